"""`doctor`: intact and damaged checkpoints, and what else lies beside them (F15)."""

import dataclasses
import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from t5x_like import config, doctor
from t5x_like.errors import UserError
from t5x_like.training.checkpoints import Checkpoints, Store
from t5x_like.training.records import Record
from t5x_like.training.run_dir import open_for_training


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """As much of a state as `Store.save` needs."""

    params: dict
    step: jax.Array


def test_the_table_tells_what_is_intact_and_what_is_not(tmp_path, capsys):
    (tmp_path / "config.json").write_text(config.to_json(config.load("t5/tiny")))
    (tmp_path / "events.jsonl").write_text('{"event": "saved\\u001b[2J", "time": "now", "step": 3}\n')
    folder = tmp_path / "checkpoints"
    store = Store(folder, Checkpoints(keep_last=9))
    store.sweep(None)
    state = State({"w": jnp.arange(1000.0)}, jnp.int32(1))
    for step in (1, 2, 3):
        store.save(Record(step=step, validation_loss=2.5), state)
    store.wait()
    path = max((p for p in (folder / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(bytes(path.stat().st_size))
    shutil.rmtree(folder / "3")
    (folder / "saving-4").mkdir()
    (folder / "notes").write_text("mine")

    doctor.FLAGS(["doctor", f"--workdir={tmp_path}"])
    with open_for_training(tmp_path):
        assert doctor.main([]) == 0
    quick = capsys.readouterr().out.splitlines()
    assert quick[-1].startswith(f"at work: pid {os.getpid()} on ")
    assert quick[-2] == r"last event: saved\x1b[2J at now, step 3"
    assert [line.split()[:2] for line in quick[:2]] == [["1", "intact"], ["2", "intact"]], "sizes only"
    assert "3 is missing" in quick[2] and "validation 2.5" in quick[0]
    assert any(line.startswith("saving-4: a save") for line in quick)
    assert any(line.startswith("notes: not of a run") for line in quick)

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be made without"):
        doctor.main([])
    assert "at work" not in capsys.readouterr().out

    states = doctor.examine(folder, verify=True)
    assert [bool(trouble) for _, _, trouble in states] == [False, True, True]
    assert str(path) in states[1][2]
