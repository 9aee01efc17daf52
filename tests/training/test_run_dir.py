"""The run directory: one process at a time, nothing deleted, no secrets."""

import json
import os
import subprocess
import sys

import pytest

from t5x_like.errors import Exit, UserError
from t5x_like.training.run_dir import RunDir, environment, open_for_training

HOLD = """
import sys, time
from t5x_like.training.run_dir import open_for_training
with open_for_training(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    """F34."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid} on ") as caught, open_for_training(tmp_path):
            pass
        assert caught.value.code == Exit.LOCKED
    finally:
        holder.kill()
        holder.wait()
    with open_for_training(tmp_path) as directory:
        assert json.loads((directory.path / "lock.json").read_text())["pid"] == os.getpid()


def test_fresh_moves_the_old_run_aside(tmp_path):
    path = tmp_path / "run"
    with open_for_training(path, fresh=True) as directory:
        directory.describe("{}", "", [])
    with open_for_training(path) as directory:
        assert directory.config.exists()
    with open_for_training(path, fresh=True) as directory:
        assert not directory.config.exists()
        with pytest.raises(UserError), open_for_training(path):
            pass
    (old,) = tmp_path.glob("run.old-*")
    assert (old / "config.json").read_text() == "{}"


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written") as caught,
        open_for_training(tmp_path / "file" / "run"),
    ):
        pass
    assert caught.value.code == Exit.CANNOT_WRITE and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["lock", "lock.json"])
def test_a_lock_that_cannot_be_had_is_told(tmp_path, name):
    (tmp_path / name / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written") as caught, open_for_training(tmp_path):
        pass
    assert caught.value.code == Exit.CANNOT_WRITE and name in str(caught.value)


def test_fresh_moves_checkpoints_aside_whose_configuration_is_gone(tmp_path):
    (tmp_path / "run" / "checkpoints" / "2").mkdir(parents=True)
    with open_for_training(tmp_path / "run", fresh=True) as directory:
        assert not directory.checkpoints.exists()


def test_no_secret_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-1")
    monkeypatch.setenv("HF_TOKEN", "canary-2")
    with open_for_training(tmp_path) as directory:
        directory.describe("{}", "a = 1", ["cpu:0"])
        directory.event("started", step=0)
    text = "".join(p.read_text() for p in tmp_path.iterdir() if p.is_file())
    assert "canary" not in text and '"jax":' in text and "started" in text


def test_events_survive_a_full_disk(tmp_path):
    directory = RunDir(tmp_path / "gone")
    directory.event("started")  # no such folder: the line is lost, nothing is raised


def test_environment_names_versions_and_devices():
    found = environment(["cpu:0"])
    assert found["devices"] == ["cpu:0"] and {"jax", "orbax-checkpoint"} <= found["versions"].keys()
