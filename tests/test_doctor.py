"""`doctor`: intact and damaged checkpoints, and what else lies beside them (F15)."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp

from t5x_like import doctor
from t5x_like.training.checkpoints import Checkpoints, Store
from t5x_like.training.records import Record


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """As much of a state as `Store.save` needs."""

    params: dict
    step: jax.Array


def test_the_table_tells_what_is_intact_and_what_is_not(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
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
    assert doctor.main([]) == 0
    quick = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in quick[:2]] == [["1", "intact"], ["2", "intact"]], "sizes only"
    assert "3 is missing" in quick[2] and "validation 2.5" in quick[0]
    assert any(line.startswith("saving-4: a save") for line in quick)
    assert any(line.startswith("notes: not of a run") for line in quick)

    states = doctor.examine(folder, verify=True)
    assert [bool(trouble) for _, _, trouble in states] == [False, True, True]
    assert str(path) in states[1][2]
