"""Losses that go wrong: the run goes back, leaves batches out, and both stand on record; runs that die again and
again are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_run import compiled_programs, make, one_device

from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.training import recovery, restore
from t5x_like.training.checkpoints import Checkpoints, Store
from t5x_like.training.loop import train
from t5x_like.training.recovery import Recovery
from t5x_like.training.run import Evaluation
from t5x_like.training.run_dir import RunDir

BAD = (6, 7, 8)


@pytest.fixture(scope="module", autouse=True)
def _one_device_and_programs_compiled_once(tmp_path_factory):
    with one_device(), compiled_programs(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "sentences"


@pytest.fixture
def bad_batches(monkeypatch):
    """Batches 6, 7 and 8 have no finite loss, whichever step takes them."""
    plain = Batches.__call__

    def call(self, step, rows=None):
        batch = plain(self, step, rows)
        if self.split == "train" and self.number(step) in BAD:
            batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * np.float32(np.nan)
        return batch

    monkeypatch.setattr(Batches, "__call__", call)


def run(data, **changes):
    settings = {
        "evaluation": Evaluation(every=0),
        "checkpoints": Checkpoints(every=2, keep_last=9),
        "max_nonfinite_steps": 3,
        "recovery": Recovery(nonfinite="rollback"),
    }
    return make(data, **{**settings, **changes})


def events(workdir, kind):
    return [e for e in RunDir(workdir).events() if e["event"] == kind]


def params(workdir):
    return jax.tree.map(np.asarray, restore.restore_params(workdir)[1])


def test_a_run_goes_back_and_leaves_the_batches_out(data, tmp_path, bad_batches, capsys):
    """F22: the checkpoint of step 8 lies in the middle of the bad stretch and is not gone back to."""
    assert train(run(data), str(tmp_path / "run")) == Exit.DONE
    (told,) = events(tmp_path / "run", "rolled_back")
    assert (told["step"], told["to"], told["first"], told["count"]) == (9, 6, 6, 3)
    assert "back from step 9 to step 6; batches 6 to 8 are left out" in capsys.readouterr().out
    store = Store(tmp_path / "run" / "checkpoints")
    assert [(r.step, r.skips) for r in store.records()][-2:] == [(10, ((6, 3),)), (12, ((6, 3),))]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    assert all(line["loss"] is not None for line in lines if line["kind"] == "train"), (
        "none was skipped for good"
    )

    # The same as a run that was told to leave them out from the beginning; continued in two parts.
    train(run(data, steps=10), str(tmp_path / "told"), skip=(6, 3))
    train(run(data), str(tmp_path / "told"))
    assert not events(tmp_path / "told", "rolled_back")
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "run"), params(tmp_path / "told"))

    (dumped,) = [p for p in (tmp_path / "run" / "bad_batches").iterdir() if p.name == "6.jsonl"]
    rows = [json.loads(line) for line in dumped.read_text().splitlines()]
    assert len(rows) == 8 and rows[0]["batch"] == 6 and " " in rows[0]["text"]
    assert rows[0]["decoder_target_tokens"]


def test_before_the_first_checkpoint_it_begins_anew(data, tmp_path, bad_batches):
    assert train(run(data, checkpoints=Checkpoints(every=100)), str(tmp_path)) == Exit.DONE
    (told,) = events(tmp_path, "rolled_back")
    assert (told["to"], told["first"], told["count"]) == (0, 0, 9)


def test_a_run_is_rolled_back_only_so_often(data, tmp_path, bad_batches):
    settings = Recovery(nonfinite="rollback", rollbacks=0)
    with pytest.raises(
        UserError, match="0 stretches of batches have been left out: stopped at step 9"
    ) as caught:
        train(run(data, recovery=settings), str(tmp_path))
    assert caught.value.code == Exit.INTERNAL and "checkpoint 6 is the last" in str(caught.value)
    assert "stretches of batches" in (tmp_path / "log.txt").read_text()


def test_batches_are_left_out_once_and_only_ahead():
    assert recovery.asked_for((5, 2), (), 5) == ((5, 2),)
    assert recovery.asked_for((5, 2), ((5, 2),), 5) == ((5, 2),), "the same command again"
    with pytest.raises(
        UserError, match="batch 6 has been trained on: the run goes on at step 5, with batch 7"
    ):
        recovery.asked_for((6, 1), ((5, 2),), 5)


def test_a_run_that_dies_again_and_again_is_refused(data, tmp_path):
    """F42: after ten starts from one step without a checkpoint; what was told to stop does not count."""
    directory = RunDir(tmp_path)
    step = {"step": 40}
    history = [{"event": "resumed", **step}, {"event": "saved", "step": 42}]
    for _ in range(9):
        history += [{"event": "resumed", **step}]
    history += [{"event": "resumed", **step}, {"event": "interrupted", "step": 41}]
    recovery.check_starts(history, 40, Recovery(), directory)
    history += [{"event": "resumed", **step}]
    with pytest.raises(UserError, match="started 10 times from step 40") as caught:
        recovery.check_starts(history, 40, Recovery(), directory)
    assert "--skip_batches=40-40" in str(caught.value) and caught.value.code == Exit.INTERNAL
    recovery.check_starts(history, 40, Recovery(starts=0), directory)
    recovery.check_starts(history, 42, Recovery(), directory)


def test_a_start_is_counted_before_anything_is_compiled(data, tmp_path, monkeypatch):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"), monkeypatch.context() as patch:
            patch.setattr("t5x_like.training.steps.Loop._steps", _die)
            train(run(data, recovery=Recovery(starts=2)), str(tmp_path))
    with pytest.raises(UserError, match="started 2 times from step 0"):
        train(run(data, recovery=Recovery(starts=2)), str(tmp_path))
    assert "out of memory" in (tmp_path / "log.txt").read_text()


def _die(*arguments):
    raise RuntimeError("out of memory")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"recovery\.rollbacks is -1"):
        Recovery(rollbacks=-1)
    for seconds in (1e-12, 1e300):
        with pytest.raises(UserError, match=r"it is 1 to 1e\+08, or 0"):
            Recovery(stall_seconds=seconds)
    assert dataclasses.replace(Recovery(), stall_seconds=0.0)
