"""A run whose length changes on the way: one curve, one optimizer state, resumed in any phase to the same bits."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
from tiny_run import compiled_programs, make, one_device

from t5x_like import config, typed
from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training import loop, metrics, restore, steps
from t5x_like.training.run import Evaluation, Phase
from t5x_like.training.step import make_eval_step
from t5x_like.training.validation import validate

LONGER = Phase(start=5, objective=SpanCorruption(inputs_length=32), batch_size=4)
PHASES = (LONGER, Phase(start=10, microbatches=2))
TIMES = ("step_seconds", "tokens_per_second", "model_flops_per_second", "data_wait")


@pytest.fixture(scope="module", autouse=True)
def cheap(tmp_path_factory):
    with one_device(), compiled_programs(tmp_path_factory.mktemp("programs")):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("phases") / "data"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("phases") / "run"
    assert loop.train(make(data, phases=(LONGER,)), str(workdir)) == Exit.DONE
    return workdir


def told(workdir):
    """The metrics without what the clock says."""
    return [
        {k: v for k, v in line.items() if k not in TIMES}
        for line in metrics.read(workdir / "metrics.jsonl")
        if line["kind"] != "time"
    ]


def test_a_run_knows_its_stages(data):
    run = make(data, phases=PHASES)
    assert [(a, b, r.objective.inputs_length, r.batch_size, r.microbatches) for a, b, r in run.stages()] == [
        (0, 5, 16, 8, 1), (5, 10, 32, 4, 1), (10, 12, 32, 4, 2),
    ]  # fmt: skip
    assert run.at(4).objective == run.objective and run.at(5).batch_size == 4 and run.at(99) == run.at(11)
    short = dataclasses.replace(run, steps=7)
    assert (
        len(short.stages()) == 2 and short.at(7).microbatches == 1
    )  # what the run is too short for never comes
    assert dataclasses.replace(run, phases=()).stages() == [(0, 12, dataclasses.replace(run, phases=()))]
    assert config.from_json(config.to_json(run)) == run
    assert "phases.0.objective.inputs_length = 32" in config.describe(run).splitlines()
    assert typed.override(run, "phases.1.start=11").phases[1].start == 11
    assert typed.override(run, "phases=").phases == ()


def test_every_phase_trains_and_is_measured(finished):
    lines = [line for line in told(finished) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 13))
    seen = np.diff([0, *(line["tokens_seen"] for line in lines)])
    assert seen[:5].max() <= 8 * (16 + 5) and seen[5:].min() > 4 * 16 and seen[5:].max() <= 4 * (32 + 8)
    assert all(np.isfinite(line["loss"]) for line in lines)
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "phase"] == [5]


def test_validation_and_a_checkpoint_belong_to_the_phase_of_their_step(finished, data):
    run, _, record = restore.open_run(finished, 4)
    assert (run.objective.inputs_length, record.step) == (16, 4)
    run, _, _ = restore.open_run(finished, 8)
    assert (run.objective.inputs_length, run.batch_size, run.phases) == (32, 4, ())
    validated = {line["step"]: line["loss"] for line in told(finished) if line["kind"] == "eval"}
    run, params = restore.restore_params(finished, 12)
    mesh = run.mesh.build()
    held_out = Batches(run.data, run.objective, run.batch_size, run.seed, split="validation")
    found = validate(make_eval_step(run.model, run.objective, mesh), params, held_out, mesh, 2)
    assert found["loss"] == pytest.approx(validated[12], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 5, 7])
def test_resumed_in_any_phase_it_is_the_same_run(stop, finished, data, tmp_path, monkeypatch):
    """Stopped before a step, at the very border of a phase too."""
    run, visit = make(data, phases=(LONGER,)), steps.Loop._report

    def report(self, step):
        if step == stop and not self.interrupts.raised:
            signal.raise_signal(signal.SIGTERM)
        return visit(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(steps.Loop, "_report", report)
        assert loop.train(run, str(tmp_path / "run")) == Exit.INTERRUPTED
    assert loop.train(run, str(tmp_path / "run")) == Exit.DONE
    assert told(tmp_path / "run")[-1] == told(finished)[-1]
    both = [restore.restore_params(folder)[1] for folder in (tmp_path / "run", finished)]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_the_screen_shows_what_comes(data, tmp_path, capsys):
    run = make(data, phases=PHASES, steps=6, evaluation=Evaluation(every=0))
    assert loop.train(run, str(tmp_path / "run")) == Exit.DONE
    out = capsys.readouterr().out
    screen = out.partition("new run")[0]
    assert "then       from step 5: span corruption" in screen and "4 examples" in screen
    assert "from step 10" not in screen  # never comes
    assert "from step 5 on: span corruption" in out.partition("new run")[2]


def test_impossible_phases_are_refused_before_anything_is_compiled(data, tmp_path, monkeypatch):
    monkeypatch.setattr(steps.Loop, "_compile", lambda self: pytest.fail("compiled"))

    def refused(match, where, *phases):
        with pytest.raises(UserError, match=match) as refusal:
            loop.train(make(data, phases=phases), str(tmp_path / "run"))
        assert refusal.value.where == where

    refused("starts at step 0; it must be step 1", "phases.0.start", Phase(start=0))
    refused("starts at step 5; it must be step 6", "phases.1.start", Phase(start=5), Phase(start=5))
    refused("does not divide into 3", "phases.0.microbatches", Phase(start=5, microbatches=3))
    refused("batch_size is 0", "phases.0.batch_size", Phase(start=5, batch_size=0))
    refused(
        "inputs_length is 1",
        "phases.0.objective.inputs_length",
        Phase(start=99, objective=SpanCorruption(inputs_length=1)),
    )
    refused("the whole data has", "phases.0.batch_size", Phase(start=5, batch_size=10**6))


def test_other_phases_are_another_run(finished, data):
    with pytest.raises(UserError, match=r"phases\.0\.batch_size: 4 in the run, 2 now"):
        loop.train(make(data, phases=(dataclasses.replace(LONGER, batch_size=2),)), str(finished))
