"""A race from its configuration to its page, on models of some thousand parameters."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_encoder
import tiny_run
import tiny_tasks
from tiny_run import one_device

from t5x_like import config, race_plan, racing
from t5x_like import race as command
from t5x_like.data.batches import Data, Source
from t5x_like.data.token_dataset import from_documents
from t5x_like.errors import Exit, UserError
from t5x_like.race_plan import Contestant, Race
from t5x_like.tasks.recipe import FineTune
from t5x_like.training.run import Phase
from t5x_like.training.schedules import Linear


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race") / "data"
    texts = {"train": tiny_encoder.documents(200), "validation": tiny_encoder.documents(20, 1)}
    from_documents(folder, tiny_encoder.tokenizer(), texts)
    return folder


def race(data: Path, **changes: object) -> Race:
    def with_data(run: config.Run) -> config.Run:
        return dataclasses.replace(run, data=Data(sources=(Source(path=str(data)),)))

    made = Race(
        name="tiny",
        contestants=(
            Contestant(name="bert", run=with_data(tiny_encoder.BERT)),
            Contestant(name="electra", run=with_data(tiny_encoder.ELECTRA)),
        ),
        budget=2e9,
        points=1,
        tasks=("sms_spam",),
        probes=("sms_spam",),
        finetune=FineTune(epochs=1.0, batch_size=16, length=24, seeds=(0,)),
        probe_seeds=(0,),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_race_runs_continues_and_reports(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, workdir = tmp_path / "tasks", tmp_path / "race"
    tiny_tasks.write(tasks / "sms_spam", tiny_tasks.CLASSIFICATION, train=48, test=16)
    tiny = race(data)
    with one_device():
        race_plan.check(tiny)
        shares = race_plan.plan(tiny, workdir)
        for share in shares.values():  # equal compute, to the last whole step of every point
            assert 0 <= tiny.budget - share.steps * share.formula_flops < tiny.points * share.formula_flops
        assert shares["bert"].steps > shares["electra"].steps
        assert racing.execute(tiny, shares, workdir, tasks, only="electra/0") == Exit.DONE
        assert not (workdir / "bert").exists()
        assert racing.execute(tiny, shares, workdir, tasks) == Exit.DONE
        results = racing.collect(tiny, shares, workdir)["results"]
        # untrained and at the end; each probed and fine-tuned once
        assert len(results) == 2 * 2 * (1 + 1)
        spent = {r["flops"] for r in results if r["contestant"] == "bert"}
        assert spent == {0.0, shares["bert"].steps * shares["bert"].formula_flops}
        # a judgement that was lost is made again, and comes out the same; the others are left alone
        lines = (workdir / "bert/seed-0/results.jsonl").read_text().splitlines()
        (workdir / "bert/seed-0/results.jsonl").write_text("\n".join(lines[:-1]) + '\n{"torn')
        capsys.readouterr()
        assert racing.execute(tiny, race_plan.plan(tiny, workdir), workdir, tasks) == Exit.DONE
        printed = capsys.readouterr().out
        assert printed.count("sms_spam finetune") == 1 and "sms_spam probe" not in printed
        again = json.loads((workdir / "bert/seed-0/results.jsonl").read_text().splitlines()[-1])
        before = json.loads(lines[-1])
        assert {**again, "seconds": 0} == {**before, "seconds": 0}
    racing.report(tiny, shares, workdir, "A reading.")
    page = (workdir / "report.html").read_text()
    assert "A reading." in page and page.count("<iframe") == 2
    assert json.loads((workdir / "race.json").read_text())["contestants"]["electra"]["steps"] > 0


def test_the_untrained_model_is_judged_for_the_first_seed_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def record(race: Race, heat: racing.Heat, step: int, *_: object) -> list[dict[str, object]]:
        judged.append((heat.label, step))
        return []

    monkeypatch.setattr(racing, "_judged", record)
    two = race(data, seeds=(3, 4), contestants=race(data).contestants[:1])
    with one_device():
        shares = race_plan.plan(two, tmp_path)
    for heat in racing.heats(two, shares, tmp_path):
        heat.directory.mkdir(parents=True)
        racing.judge(two, heat, tmp_path)
    end = shares["bert"].steps
    assert set(judged) == {("bert/3", 0), ("bert/3", end), ("bert/4", end)}


def test_parts_of_a_race_must_be_there_and_planned(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "t5x_like.race",
        "--config=race/bert_vs_electra:tiny",
        f"--workdir={tmp_path}",
    ]
    for part, code, told in (
        ("electra/1", Exit.USAGE, "electra/0"),
        ("electra/0", Exit.USAGE, "--report_only"),
    ):
        done = subprocess.run([*command, f"--only={part}"], capture_output=True, text=True)
        assert done.returncode == code and told in done.stderr


def test_a_race_is_not_kept_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="directory of a training run"):
        command.FLAGS(["race", "--config=race/bert_vs_electra:tiny", f"--workdir={tmp_path}"])
        command.main([])


def test_steps_are_timed_and_the_compiled_program_is_counted(data: Path, tmp_path: Path) -> None:
    with one_device():
        shares = race_plan.plan(
            race(data, contestants=race(data).contestants[:1], count="seconds", budget=30.0), tmp_path
        )
    share = shares["bert"]
    assert share.step_seconds is not None and share.step_seconds > 0
    assert share.steps == int(30.0 / share.step_seconds)
    # The compiler counts more than the products of the formula, and nothing near twice as much at this size.
    assert 1.0 < share.compiled_flops / share.formula_flops < 3.0
    assert share.flops("compiled") == share.compiled_flops and share.flops("seconds") == share.formula_flops


def test_another_race_in_the_same_place_is_refused(data: Path, tmp_path: Path) -> None:
    one = race(data, contestants=race(data).contestants[:1])
    with one_device():
        race_plan.plan(one, tmp_path)
    with pytest.raises(UserError, match=r"budget 2000000000\.0, not 3000000000\.0"):
        race_plan.plan(dataclasses.replace(one, budget=3e9), tmp_path)
    with pytest.raises(UserError, match=r"begun with finetune\.epochs 1\.0, not 2\.0"):
        race_plan.plan(
            dataclasses.replace(one, finetune=dataclasses.replace(one.finetune, epochs=2.0)), tmp_path
        )
    with pytest.raises(UserError, match="probe_examples 8000, not 80"):
        race_plan.plan(dataclasses.replace(one, probe_examples=80), tmp_path)
    run = dataclasses.replace(one.contestants[0].run, batch_size=16)
    with pytest.raises(UserError, match="'bert' was begun with another configuration"):
        race_plan.plan(dataclasses.replace(one, contestants=(Contestant(name="bert", run=run),)), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("sms_spma",)}, "no task 'sms_spma'"),
        ({"tasks": ()}, "a race needs tasks"),
        ({"points": 0}, "points is 0"),
        ({"points": 10**9}, "at most 1,000"),
        ({"seeds": (0, 0)}, "seeds has something twice"),
        ({"seeds": (-1,)}, "none may be negative"),
        ({"probe_examples": -5}, "probe_examples is -5"),
        ({"finetune": FineTune(epochs=-1.0)}, "epochs is -1.0"),
        ({"probes": ("conll2003_ner",)}, "conll2003_ner is tagging"),
        ({"finetune": FineTune(metric="pearson")}, "contestant 'bert': sms_spam is not judged by 'pearson'"),
        ({"finetune": FineTune(length=65)}, "contestant 'bert': finetune.length is 65.* positions for 64"),
        ({"contestants": (Contestant(name="a/b", run=tiny_encoder.BERT),)}, "names a folder"),
        (
            {"contestants": (Contestant(name="a", run=tiny_encoder.BERT),) * 2},
            "two contestants are called 'a'",
        ),
        (
            {
                "contestants": (
                    Contestant(name="a", run=dataclasses.replace(tiny_encoder.BERT, batch_size=0)),
                )
            },
            "contestant 'a': batch_size is 0",
        ),
        (
            {
                "contestants": (
                    Contestant(
                        name="a", run=dataclasses.replace(tiny_encoder.BERT, phases=(Phase(start=1),))
                    ),
                )
            },
            "contestant 'a' has phases",
        ),
    ],
)
def test_impossible_races_are_refused(data: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        race_plan.check(race(data, **changes))


def test_a_budget_that_buys_nothing_and_tasks_that_are_not_there(data: Path, tmp_path: Path) -> None:
    one = race(data, contestants=race(data).contestants[:1], budget=1.0)
    with one_device(), pytest.raises(UserError, match=r"buys 0\.00 steps") as caught:
        race_plan.plan(one, tmp_path)
    assert caught.value.help is not None and "10 steps" in caught.value.help
    with one_device(), pytest.raises(UserError, match=r"contestant 'bert': the budget of 1e\+60 buys"):
        race_plan.plan(dataclasses.replace(one, budget=1e60), tmp_path)
    warm = dataclasses.replace(
        tiny_encoder.BERT, data=race(data).contestants[0].run.data, schedule=Linear(peak=1.0)
    )
    with (
        one_device(),
        pytest.raises(
            UserError, match=r"contestant 'a': Linear ends at update \d+, before its warm-up of 1000"
        ),
    ):
        race_plan.plan(
            dataclasses.replace(one, contestants=(Contestant(name="a", run=warm),), budget=2e9), tmp_path
        )
    with pytest.raises(UserError, match="no folder for the task sms_spam"):
        racing.execute(one, {}, tmp_path, tmp_path)
    (tmp_path / "plan.json").write_text('{"rules": {}, "configs": {}, "shares": {"bert": {}}, "tasks": {}}')
    with pytest.raises(UserError, match="the plan of this race cannot be read"):
        race_plan.plan(one, tmp_path)


@pytest.mark.parametrize(
    ("name", "contestants"),
    [("config", ["bert", "electra"]), ("tiny", ["bert", "electra"]), ("with_t5", ["bert", "electra", "t5"])],
)
def test_shipped_races_can_be_run(name: str, contestants: list[str]) -> None:
    found = config.load_as(f"race/bert_vs_electra:{name}", Race)
    race_plan.check(found)
    assert [c.name for c in found.contestants] == contestants


def test_t5_can_enter_with_a_tokenizer_of_its_own(data: Path, tmp_path: Path) -> None:
    run = tiny_run.make(tmp_path / "t5-data", steps=1)
    mixed = race(data, contestants=(*race(data).contestants[:1], Contestant(name="t5", run=run)))
    with one_device():
        race_plan.check(mixed)
        shares = race_plan.plan(mixed, tmp_path / "race")
    assert shares["t5"].formula_flops == 3 * run.batch_size * run.model.flops(
        {"encoder_input_tokens": (16,), "decoder_input_tokens": (5,)}
    )
