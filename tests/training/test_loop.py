"""The loop: begins, resumes to the bit, stops when told to, refuses what would be another run."""

import dataclasses
import json
import os
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from tiny_run import MODEL, compiled_programs, make, one_device

from t5x_like import config
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.errors import Exit, UserError
from t5x_like.hub.t5 import export_t5
from t5x_like.models import stack
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training import metrics, restore, start, steps
from t5x_like.training.checkpoints import Checkpoints, Store
from t5x_like.training.loop import train
from t5x_like.training.partitioning import Mesh
from t5x_like.training.run import Evaluation
from t5x_like.training.run_dir import RunDir, open_for_training
from t5x_like.training.schedules import Constant, Cosine

TIMES = ("step_seconds", "tokens_per_second", "model_flops_per_second", "data_wait")


@pytest.fixture(scope="module", autouse=True)
def _one_device_and_programs_compiled_once(tmp_path_factory):
    """Twenty runs of the same few programs: on one device, unless a mesh is asked for, and kept between them."""
    with one_device(), compiled_programs(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "sentences"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """An undisturbed run of 12 steps."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert train(make(data), str(workdir)) == Exit.DONE
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def figures(workdir):
    """All metrics that are not times."""
    lines = [line for line in metrics.read(workdir / "metrics.jsonl") if line["kind"] != "time"]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def events(workdir):
    lines = map(json.loads, (workdir / "events.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] != "clock"]


def params_of(workdir):
    return jax.tree.map(np.asarray, restore.restore_params(workdir)[1])


def test_a_run_leaves_everything_behind(finished, data):
    names = {p.name for p in finished.iterdir()}
    assert names == {
        "config.json",
        "config.txt",
        "parameters.txt",
        "command.txt",
        "env.json",
        "events.jsonl",
        "metrics.jsonl",
        "data.json",
        "tb",
        "checkpoints",
        "tokenizer",
        "lock",
        "log.txt",
    }
    train_steps = [line["step"] for line in figures(finished) if line["kind"] == "train"]
    assert train_steps == list(range(1, 13))
    evaluated = [line["step"] for line in figures(finished) if line["kind"] == "eval"]
    assert evaluated == [4, 6, 8, 12], "every 6 steps, at every checkpoint (keep_best), and at the end"
    losses = [line["loss"] for line in figures(finished)]
    assert losses[-1] < losses[0] - 0.3, "it learns"
    assert [r.step for r in Store(finished / "checkpoints").records()] == [4, 8, 12]
    record = Store(finished / "checkpoints").find("best")
    assert record.tokenizer and record.data and record.config and record.tokens > 0
    assert record.validation_loss == min(line["loss"] for line in figures(finished) if line["kind"] == "eval")
    assert config.load(str(finished)) == make(data)
    assert {e["event"] for e in events(finished)} >= {"started", "saved", "validated", "done"}


def test_done_is_said_quickly(finished, data, capsys):
    """F41, U2."""
    began = time.monotonic()
    assert train(make(data), str(finished)) == Exit.DONE
    assert "already done: step 12 of 12" in capsys.readouterr().out
    assert time.monotonic() - began < 5


def test_a_run_in_two_parts_is_the_run_in_one(finished, data, tmp_path, capsys):
    train(make(data, steps=4), str(tmp_path / "run"))
    assert train(make(data), str(tmp_path / "run")) == Exit.DONE
    out = capsys.readouterr().out
    assert "resuming step 4 of 12, saved" in out and "changed    steps: 4 -> 12" in out
    assert figures(tmp_path / "run") == figures(finished)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "run"), params_of(finished))


@pytest.mark.parametrize("stop", [4, 7])  # 4 is one to validate before, which is then made up for
def test_sigterm_saves_and_the_same_command_continues(stop, finished, data, tmp_path, monkeypatch, capsys):
    """F03: no step is lost."""
    before = signal.getsignal(signal.SIGTERM)
    report = steps.Loop._report

    def report_and_kill(loop, step):
        report(loop, step)
        if step == stop - 1 and not loop.interrupts.raised:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("t5x_like.training.steps.Loop._report", report_and_kill)
    assert train(make(data), str(tmp_path / "run")) == Exit.INTERRUPTED
    assert f"SIGTERM: stopped at step {stop} of 12; the same command continues" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
    assert Store(tmp_path / "run" / "checkpoints").find("latest").step == stop
    assert events(tmp_path / "run")[-1]["event"] == "interrupted"
    assert train(make(data), str(tmp_path / "run")) == Exit.DONE
    assert figures(tmp_path / "run") == figures(finished)
    losses = [
        {r.step: r.validation_loss for r in Store(run / "checkpoints").records()}
        for run in (finished, tmp_path / "run")
    ]
    assert all(losses[1][at] == losses[0][at] for at in losses[0].keys() & {stop, 8, 12})


def test_a_save_under_way_is_let_finish_when_an_error_ends_the_run(data, tmp_path, monkeypatch):
    def fail(loop, step):
        if step == 6:
            raise UserError("enough")

    monkeypatch.setenv("T5X_LIKE_FAULT", "checkpoint.arrays:1:sleep=1")
    monkeypatch.setattr(
        "t5x_like.training.steps.Loop._visit",
        lambda loop, step, state: loop._save(step, state) if step == 4 else fail(loop, step),
    )
    with pytest.raises(UserError, match="enough"):
        train(make(data), str(tmp_path))
    assert [r.step for r in Store(tmp_path / "checkpoints").records()] == [4]


def test_checkpoints_without_the_configuration_that_they_are_of(data, copy):
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing, and checkpoint 12 was saved with another"):
        train(make(data, seed=1, steps=13), str(copy))
    assert train(make(data), str(copy)) == Exit.DONE


def test_a_checkpoint_of_another_configuration_is_told(data, copy, capsys, monkeypatch):
    """Copied from a run with another seed, as it may be."""
    beats = []
    monkeypatch.setattr("t5x_like.training.watchdog.Watchdog.beat", lambda self, what: beats.append(what))
    assert train(make(data, steps=13), str(copy)) == Exit.DONE
    assert "never had" not in capsys.readouterr().out
    assert beats.count("validating") == 1 + make(data).evaluation.batches, "each batch is a sign of life"
    path = copy / "events.jsonl"
    path.write_text(path.read_text().replace('"config": "', '"config": "other'))
    assert train(make(data, steps=14), str(copy)) == Exit.DONE
    assert (
        "checkpoint 13 was saved with a configuration that this run has never had" in capsys.readouterr().out
    )


def test_the_newest_checkpoint_damaged_costs_steps_and_not_the_run(finished, data, copy, capsys):
    next((copy / "checkpoints" / "12").rglob("_METADATA")).write_bytes(b"")
    assert train(make(data), str(copy)) == Exit.DONE
    out = capsys.readouterr().out
    assert "checkpoint 12 is damaged" in out and "resuming step 8 of 12" in out
    assert figures(copy) == figures(finished)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 16}, "batch_size: 8 in the run, 16 now"),
        ({"seed": 1}, "seed: 0 in the run, 1 now"),
        ({"schedule": Constant(rate=0.1)}, "schedule.rate: 0.01 in the run, 0.1 now"),
        ({"objective": SpanCorruption(inputs_length=20)}, "objective.inputs_length: 16 in the run, 20 now"),
        ({"model": dataclasses.replace(MODEL, d_ff=64)}, "model.d_ff: 32 in the run, 64 now"),
    ],
)  # fmt: skip
def test_another_configuration_is_refused_with_both_values(data, copy, changes, words):
    """F20."""
    with pytest.raises(UserError) as caught:
        train(make(data, steps=20, **changes), str(copy))
    assert words in str(caught.value) and "--fresh" in str(caught.value)
    assert config.load(str(copy)) == make(data), "the refused configuration leaves no trace"


@pytest.mark.slow
def test_what_may_change_is_taken_over_and_told(data, copy, capsys):
    run = make(data, steps=14, log_every=2, evaluation=Evaluation(every=0), checkpoints=Checkpoints(every=100),
               mesh=Mesh(data=2, fsdp=4))  # fmt: skip
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, prefetch=1))
    assert train(run, str(copy)) == Exit.DONE
    out = capsys.readouterr().out
    for change in ("steps: 12 -> 14", "log_every: 1 -> 2", "mesh.fsdp: 1 -> 4", "data.prefetch: 2 -> 1"):
        assert f"changed    {change}" in out
    assert figures(copy)[-1]["step"] == 14 and config.load(str(copy)) == run


def test_strict_refuses_what_would_not_be_equal_to_the_bit(data, copy):
    """F17."""
    with pytest.raises(UserError, match="not be equal to the bit") as refusal:
        train(make(data, steps=14, mesh=Mesh(data=2, fsdp=4)), str(copy), strict=True)
    assert "'fsdp': 1" in str(refusal.value) and "'fsdp': 4" in str(refusal.value)
    assert config.load(str(copy)).mesh == Mesh(), "the refused mesh leaves no trace"
    with pytest.raises(UserError, match=r"mesh\.rules: \{\} in the run, \{'mlp': '-'\} now"):
        train(make(data, steps=14, mesh=Mesh(rules={"mlp": "-"})), str(copy), strict=True)
    start.check_arithmetic(make(data), Mesh().build(), RunDir(copy))  # where it was, it may go on
    (copy / "env.json").write_text("[]")
    with pytest.raises(UserError, match=r"env\.json cannot be read"):
        start.check_arithmetic(make(data), Mesh().build(), RunDir(copy))


def test_steps_may_not_change_where_the_schedule_hangs_on_them(data, tmp_path):
    short = make(data, steps=2, schedule=Cosine(warmup=1))
    with open_for_training(tmp_path) as directory:
        directory.describe(config.to_json(short), "", [])
        with pytest.raises(UserError, match="steps: 2 in the run, 3 now"):
            start.agree(dataclasses.replace(short, steps=3), directory)
        explicit = dataclasses.replace(short, schedule=Cosine(warmup=1, steps=2))
        directory.describe(config.to_json(explicit), "", [])
        assert start.agree(dataclasses.replace(explicit, steps=3), directory) == ["steps: 2 -> 3"]


def test_other_data_is_refused_with_both_fingerprints(data, copy, tmp_path):
    """F19: here a data set of the same name with other texts."""
    other = tmp_path / "other"
    tiny_dataset.dataset(other, count=200, seed=5)
    run = make(data, steps=20)
    with pytest.raises(UserError) as caught:
        train(dataclasses.replace(run, data=Data(sources=(Source(path=str(other)),))), str(copy))
    fingerprint = Store(copy / "checkpoints").find("latest").data
    assert fingerprint in str(caught.value) and "fingerprint" in str(caught.value)
    assert caught.value.code == Exit.BAD_DATA
    assert f"{other}) was edited: train" in str(caught.value) and "tokens" in str(caught.value), (
        "what changed"
    )


def test_other_data_can_be_allowed_and_is_recorded(data, copy, tmp_path, capsys):
    """F19."""
    other = tmp_path / "other"
    tiny_dataset.dataset(other, count=200, seed=5)
    run = dataclasses.replace(make(data, steps=14), data=Data(sources=(Source(path=str(other)),)))
    assert train(run, str(copy), allow_data_change=True) == Exit.DONE
    assert "changed    data: fingerprint" in capsys.readouterr().out
    (event,) = [e for e in events(copy) if e["event"] == "data_changed"]
    assert event["step"] == 12 and "was edited" in event["told"][1]
    assert Store(copy / "checkpoints").find("latest").data != Store(copy / "checkpoints").find(8).data
    assert train(dataclasses.replace(run, steps=14), str(copy)) == Exit.DONE, (
        "from here on these are its data"
    )


def test_data_that_fail_in_mid_run_cost_no_step(data, tmp_path):
    """F28: what has been done is saved."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (shard,) = folder.glob("train-*.tokens")
    seen = Batches.__call__

    def cut_at_6(batches, step, rows=None):
        if step == 6 and batches.split == "train":
            os.truncate(shard, 10)
        return seen(batches, step, rows)

    run = dataclasses.replace(make(data), data=Data(sources=(Source(path=str(folder)),)))
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="has been cut to 10 bytes") as caught,
    ):
        patch.setattr(Batches, "__call__", cut_at_6)
        train(run, str(tmp_path / "run"))
    assert caught.value.code == Exit.IO_ERROR
    assert Store(tmp_path / "run" / "checkpoints").find("latest").step == 6
    shutil.copy(next(data.glob("train-*.tokens")), shard)
    assert train(run, str(tmp_path / "run")) == Exit.DONE


def test_a_moved_data_set_is_the_same(data, copy, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    assert train(make(moved, steps=13), str(copy)) == Exit.DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken(SpanCorruption):
    """Has no loss for a batch that begins with an id below `worst`."""

    worst: int

    def loss(self, model, params, batch, rngs):
        losses = super().loss(model, params, batch, rngs)
        total, weight = losses["loss"]
        bad = batch["encoder_input_tokens"][0, 0] < self.worst
        return {**losses, "loss": (jnp.where(bad, jnp.nan, total), weight)}


def broken(data, **changes):
    """A run some of whose batches have no loss, and which those are."""
    run = make(data, evaluation=Evaluation(every=0), **changes)
    batches = Batches(run.data, run.objective, run.batch_size, run.seed)
    first = [int(batches(step)["encoder_input_tokens"][0, 0]) for step in range(12)]
    worst = sorted(first)[4]
    return dataclasses.replace(run, objective=Broken(inputs_length=16, worst=worst)), [
        f < worst for f in first
    ]


@pytest.mark.slow
def test_a_bad_batch_is_skipped_and_counted(data, tmp_path, capsys):
    """F21."""
    run, bad = broken(data)
    assert 0 < sum(bad) < 12
    assert train(run, str(tmp_path)) == Exit.DONE
    lines = figures(tmp_path)
    assert [line["loss"] is None for line in lines] == bad
    assert lines[-1]["skipped_updates"] == sum(bad)
    assert sum(e["updates"] for e in events(tmp_path) if e["event"] == "skipped") == sum(bad)
    assert "of 1 updates up to step" in capsys.readouterr().out
    store = Store(tmp_path / "checkpoints")
    params = restore.load_params(run, store, store.find("latest"))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.slow
def test_too_many_bad_batches_end_the_run(data, tmp_path):
    """F22: and what was saved before is kept."""
    run, bad = broken(data, max_nonfinite_steps=1, checkpoints=Checkpoints(every=1))
    with pytest.raises(UserError, match=f"not finite: stopped at step {bad.index(True) + 1}") as caught:
        train(run, str(tmp_path))
    assert caught.value.code == Exit.INTERNAL
    assert all(r.step <= bad.index(True) for r in Store(tmp_path / "checkpoints").records())


def test_parameters_that_are_not_finite_are_never_saved(data, tmp_path, monkeypatch):
    begin = start.begin

    def begin_badly(*arguments):
        state, told = begin(*arguments)
        return dataclasses.replace(state, params=jax.tree.map(lambda p: p * jnp.inf, state.params)), told

    monkeypatch.setattr(start, "begin", begin_badly)
    with pytest.raises(UserError, match="the parameters are not finite: stopped at step 4") as caught:
        train(make(data), str(tmp_path))
    assert caught.value.code == Exit.INTERNAL
    assert Store(tmp_path / "checkpoints").records() == []


# ---- warm start -----------------------------------------------------------------------------------------------


def fresh(model):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), model.abstract_params())


def test_weights_that_do_not_fit_are_refused_before_the_step_is_compiled(
    finished, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(steps.Loop, "_compile", lambda self: pytest.fail("compiled"))
    with pytest.raises(UserError, match=r"config\.json"):
        train(make(data, init_from=str(tmp_path / "nowhere")), str(tmp_path / "run"))


def test_warm_start_begins_with_the_weights_of_another_run(finished, data, tmp_path, capsys):
    assert train(make(data, steps=1, init_from=str(finished)), str(tmp_path)) == Exit.DONE
    assert f"weights from {finished}: 26 of 26 arrays matched" in capsys.readouterr().out
    first = next(line for line in figures(tmp_path))
    assert first["loss"] < figures(finished)[0]["loss"] - 0.3, "it goes on from what was learned"


def test_warm_start_converts_between_scanned_and_unrolled_layers(finished, data):
    model = dataclasses.replace(MODEL, scan_layers=True)
    params, (report,) = start.warm_start(make(data, model=model), fresh(model), str(finished))
    assert "layers converted to scanned" in report
    expected = stack.stack_layers(params_of(finished))
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_warm_start_tells_what_does_not_fit(finished, data):
    model = dataclasses.replace(MODEL, d_ff=48, num_decoder_layers=2)
    params, report = start.warm_start(make(data, model=model), fresh(model), str(finished))
    text = "\n".join(report)
    assert "missing there, drawn at random: 13: decoder/layers_1/" in text
    assert "of another shape, drawn at random" in text and "[16, 32] there, [16, 48] here" in text
    assert (params["decoder"]["layers_1"]["mlp"]["wi"]["kernel"] == 7).all()
    narrow = dataclasses.replace(MODEL, d_model=24, d_kv=4, num_heads=1, relative_buckets=16)
    with pytest.raises(UserError, match="no array of the model fits"):
        start.warm_start(make(data, model=narrow), fresh(narrow), str(finished))


def test_warm_start_from_a_hugging_face_directory(finished, data, tmp_path):
    export_t5(MODEL, params_of(finished), tmp_path)
    params, (report,) = start.warm_start(make(data), fresh(MODEL), str(tmp_path))
    assert "26 of 26 arrays matched" in report
    jax.tree.map(np.testing.assert_array_equal, params, params_of(finished))


# ---- what is shown --------------------------------------------------------------------------------------------


def test_first_screen_is_short_and_tells_what_matters(data, tmp_path, capsys):
    train(make(data, steps=1), str(tmp_path / "run"))
    screen = capsys.readouterr().out.partition("step 1/1")[0].splitlines()
    assert len(screen) <= 25 and max(map(len, screen)) <= 110
    text = "\n".join(screen)
    for words in (
        "parameters",
        "span corruption",
        "fingerprint",
        "8 examples",
        "one device",
        "Adafactor",
        "Constant",
        "model FLOPs",
        "<extra_id_0>",
        "new run",
        str(tmp_path / "run"),
    ):
        assert words in text, words


def test_hostile_text_does_not_reach_the_terminal(tmp_path, capsys):
    texts = [f"the whale \x1b[31m and a ship \x07 sailed {i}" for i in range(200)]
    tiny_dataset.dataset(tmp_path / "data", train=texts, validation=texts[:20])
    train(make(tmp_path / "data", steps=1), str(tmp_path / "run"))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out


def test_a_tokenizer_too_large_for_the_model_is_refused_before_compiling(data, tmp_path):
    """F31."""
    with pytest.raises(UserError, match="ids and the model's table 128 rows"):
        train(make(data, model=dataclasses.replace(MODEL, vocab_size=128)), str(tmp_path / "run"))
