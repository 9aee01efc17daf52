"""Checkpoints: what is saved comes back to the bit on any mesh, and what is not whole is never taken for one."""

import dataclasses
import os
import pathlib
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5x_like.errors import Exit, UserError
from t5x_like.training import checkpoints
from t5x_like.training.checkpoints import MAX_FAILURES, Checkpoints, Record, Store
from t5x_like.training.partitioning import Mesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    opt_state: tuple


def state(step=1, seed=0, dtype=jnp.float32):
    key = jax.random.key(seed)
    params = {
        "encoder": {"kernel": jax.random.normal(key, (16, 8), dtype)},
        "bias": jnp.arange(8, dtype=jnp.bfloat16),
    }
    moments = optax_like(jax.tree.map(lambda p: p * 2, params), None, {})
    return State(step=jnp.int32(step), params=params, opt_state=(moments, ()))


def optax_like(*fields):
    return fields


def abstract(tree, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
    )


def save(store, *steps, losses=None):
    for step in steps:
        store.save(Record(step=step, validation_loss=(losses or {}).get(step)), state(step, seed=step))
    store.wait()


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def store(tmp_path):
    lines = []
    store = Store(tmp_path / "checkpoints", Checkpoints(keep_last=10), lines.append)
    store.lines = lines
    store.sweep(None)
    return store


def test_round_trip_to_the_bit(store):
    save(store, 3)
    (record,) = store.records()
    assert (record.step, store.saved) == (3, 3)
    same(store.restore(record, abstract(state())), state(3, seed=3))
    same(store.restore_params(record, abstract(state().params)), state(3, seed=3).params)


def test_restores_onto_another_mesh(store):
    four = NamedSharding(Mesh(fsdp=4, data=1).build(jax.devices()[:4]), PartitionSpec())
    rows = NamedSharding(Mesh(fsdp=2, data=1).build(jax.devices()[:2]), PartitionSpec("fsdp"))
    store.save(Record(step=1), jax.device_put(state(1), four))
    store.wait()
    wanted = abstract(state())
    kernel = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=rows)
    wanted = State(wanted.step, {**wanted.params, "encoder": {"kernel": kernel}}, wanted.opt_state)
    restored = store.restore(store.records()[0], wanted)
    assert restored.params["encoder"]["kernel"].sharding == rows
    same(restored, state(1))


def test_a_state_donated_right_after_the_save_is_saved_as_it_was(store):
    grow = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    big = State(jnp.int32(0), {"w": jnp.zeros((1024, 1024))}, ())
    for step in range(3):
        store.save(Record(step=step), big)
        for _ in range(3):
            big = grow(big)
    store.wait()
    for record in store.records():
        loaded = store.restore(record, abstract(big))
        assert int(loaded.step) == 3 * record.step
        assert (np.asarray(loaded.params["w"]) == 3 * record.step).all()


def test_another_dtype_is_an_error_and_not_a_cast(store):
    save(store, 1)
    with pytest.raises(
        UserError, match=r"encoder/kernel: float32.16,8. in the checkpoint, bfloat16.16,8. in the run"
    ):
        store.restore(store.records()[0], abstract(state(dtype=jnp.bfloat16)))


def test_another_model_is_told_in_a_few_lines(store):
    save(store, 1)
    other = state()
    params = {"encoder": {"kernel": jnp.zeros((16, 4))}, "norm": jnp.zeros(3)}
    with pytest.raises(UserError) as caught:
        store.restore(store.records()[0], abstract(State(other.step, params, other.opt_state)))
    text = str(caught.value)
    assert len(text.splitlines()) <= 7
    for words in (
        "params/bias: bfloat16[8] in the checkpoint, missing in the run",
        "float32[16,4] in the run",
        "params/norm: missing in the checkpoint",
    ):
        assert words in text


def test_keeps_the_newest_and_the_best(tmp_path):
    store = Store(tmp_path, Checkpoints(keep_last=2, keep_best=1))
    save(store, 1, 2, 3, 4, 5, losses={1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 2.4})
    assert [r.step for r in store.records()] == [2, 4, 5]
    assert store.find("best").step == 2 and store.find("latest").step == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{s}{e}" for s in (2, 4, 5) for e in ("", ".json")
    )
    with pytest.raises(UserError, match="no checkpoint of step 3") as caught:
        store.find(3)
    assert "2, 4, 5" in str(caught.value)


def test_what_is_no_checkpoint_is_ignored_and_set_aside(store):
    """F15: an empty folder with a step for its name, a stale temporary one, an unfinished save, junk."""
    save(store, 1, 2)
    (store.directory / "7").mkdir()
    (store.directory / "5.orbax-checkpoint-tmp-123").mkdir()
    shutil.copytree(store.directory / "2", store.directory / "6")
    (store.directory / "notes.txt").write_text("mine")
    (store.directory / "9.json").write_text("{ not json")
    (store.directory / "saving-8").mkdir()  # killed between the record and the name
    shutil.copy(store.directory / "2.json", store.directory / "8.json")
    shutil.move(store.directory / "1", store.directory / "deleting-1")  # killed while it was being removed
    record = store.newest_good()
    assert record.step == 2 and store.damaged.keys() == {6, 9}, "and 7 was never one"
    store.sweep(record)
    left = {p.name for p in store.directory.iterdir() if not p.name.startswith("unusable-")}
    assert left == {"2", "2.json", "notes.txt"}
    assert any("/7 is not" in line for line in store.lines)
    save(store, 6, 7)
    assert [r.step for r in store.records()] == [2, 6, 7]


def test_damage_in_any_file_is_noticed_and_the_step_before_is_used(store):
    """F12, F13: Orbax restores flipped bits without a word."""
    save(store, 1, 2)
    files = [store.directory / "2.json", *(p for p in (store.directory / "2").rglob("*") if p.is_file())]
    assert any("ocdbt" in str(f) for f in files)
    for path in files:
        content = path.read_bytes()
        if content:
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
            assert store.newest_good().step == 1, path
            for cut in (content[:middle], b""):
                path.write_bytes(cut)
                assert store.newest_good().step == 1, path
        path.unlink()
        assert store.newest_good().step == 1, path
        path.write_bytes(content)
    assert str(files[-1]) in store.lines[-1]
    assert store.newest_good().step == 2


def test_a_damaged_step_can_be_saved_again(store):
    save(store, 1, 2)
    next((store.directory / "2").rglob("_METADATA")).write_text("")
    store.sweep(store.newest_good())
    save(store, 2)
    assert store.newest_good().step == 2


def test_sizes_alone_are_a_cheaper_check(store):
    save(store, 1, 2)
    path = next(p for p in (store.directory / "2").rglob("*") if p.is_file() and p.stat().st_size > 9)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    quick = Store(store.directory, say=store.lines.append, verify="size")
    assert quick.newest_good().step == 2 and store.newest_good().step == 1
    path.write_bytes(content[:-1])
    assert quick.newest_good().step == 1


def test_what_a_reader_has_found_is_not_pruned_under_it(tmp_path):
    """F35, with a reader of another process standing in for itself: locks belong to open files."""
    store, reader = Store(tmp_path, Checkpoints(keep_last=1, keep_best=0)), Store(tmp_path)
    save(store, 1)
    record = reader.find("latest")
    save(store, 2, 3)
    assert [r.step for r in store.records()] == [1, 3]
    same(reader.restore(record, abstract(state())), state(1, seed=1))
    reader.close()
    save(store, 4)
    assert [r.step for r in store.records()] == [4]


def test_everything_is_on_the_disk_before_it_is_named(tmp_path, monkeypatch):
    """F14: what a power cut would leave is what was synced: every file and folder, the record, then the name."""
    synced = []
    fsync = os.fsync

    def record(descriptor):
        synced.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    store = Store(tmp_path)
    save(store, 1)
    saving = tmp_path / "saving-1"
    entries = {saving, *(saving / p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*"))}
    sealed = synced.index(tmp_path / ".1.json.tmp")
    assert entries <= set(synced[:sealed]), entries - set(synced[:sealed])
    assert synced[sealed + 1 :] == [tmp_path, tmp_path], "the record's name, then the folder's"


def test_names_that_only_look_like_numbers_are_left_alone(store):
    save(store, 1)
    odd = ["1\u00b2", "\u0663", "007", "9" * 30]
    for name in odd:
        (store.directory / name).mkdir()
    assert store.steps() == [1]
    store.sweep(store.newest_good())
    assert all((store.directory / name).is_dir() for name in odd)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    store = Store(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="cannot be read"):
        store.newest_good()
    with pytest.raises(UserError, match="cannot be put in order"):
        store.sweep(None)


def test_damage_that_sizes_do_not_show_is_an_error_that_names_it(store):
    save(store, 1)
    quick = Store(store.directory, verify="size")
    path = store.directory / "1" / "params" / "_METADATA"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match="_METADATA is not as it was written") as caught:
        quick.restore(quick.newest_good(), abstract(state()))
    assert caught.value.code == Exit.CORRUPT


def test_a_loss_that_is_no_number_is_not_the_best(tmp_path):
    store = Store(tmp_path / "checkpoints", Checkpoints(keep_last=1, keep_best=1))
    store.sweep(None)
    save(store, 1, 2, 3, losses={1: float("nan"), 2: 2.0, 3: float("nan")})
    assert [r.step for r in store.records()] == [2, 3] and store.find("best").step == 2


def test_a_link_is_no_checkpoint(store):
    """S06."""
    save(store, 1, 2)
    shutil.move(store.directory / "2", store.directory.parent / "elsewhere")
    (store.directory / "2").symlink_to(store.directory.parent / "elsewhere")
    assert store.newest_good().step == 1 and "is a link" in store.damaged[2]


def test_the_folder_removed_under_a_run_is_told(store):
    shutil.rmtree(store.directory)
    save(store, 1)
    assert "has been removed" in store.lines[-1] and not store.directory.exists()


def test_nothing_intact_is_an_error(store):
    save(store, 1)
    shutil.rmtree(store.directory / "1" / "params")
    with pytest.raises(UserError, match="no checkpoint of this run is intact") as caught:
        store.newest_good()
    assert caught.value.code == Exit.CORRUPT


def test_a_failed_save_is_told_and_earlier_ones_stay(store, monkeypatch):
    """F08: the first failures are survived, for a disk can be mended; the third in a row ends the run."""
    save(store, 1)
    full = OSError(28, "No space left on device")

    def fail(*arguments):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("t5x_like.training.checkpoints.sync", fail)
        for step in range(2, 1 + MAX_FAILURES):
            store.save(Record(step=step), state())
        with pytest.raises(UserError, match="no space left on the disk") as caught:
            store.save(Record(step=MAX_FAILURES + 1), state())
            store.wait()
            store.save(Record(step=MAX_FAILURES + 2), state())
        assert caught.value.code == Exit.IO_ERROR
    assert [r.step for r in store.records()] == [1] and store.newest_good().step == 1
    assert sum("could not be saved" in line for line in store.lines) == MAX_FAILURES - 1
    save(store, 3)
    assert store.newest_good().step == 3


def test_a_policy_that_keeps_nothing_is_refused():
    with pytest.raises(UserError, match=r"checkpoints\.keep_last is 0"):
        Checkpoints(keep_last=0)


GOLDEN = sorted((pathlib.Path(__file__).parent.parent / "fixtures" / "golden_checkpoints").iterdir())


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_what_older_versions_saved_is_restored(folder):
    """F39."""
    from fixtures.make_golden_checkpoint import golden

    store = Store(folder)
    record = store.newest_good()
    assert (record.step, record.tokens, record.validation_loss, record.data) == (7, 12345, 2.5, "d")
    same(store.restore(record, abstract(golden())), golden())
    same(store.restore_params(record, abstract(golden().params)), golden().params)


def test_writes_of_a_failed_save_that_end_late_are_passed_over_and_nothing_else(monkeypatch):
    """F11: Orbax's event loop has closed when TensorStore tells it of them."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(str(args.exc_value)))
    for _ in range(2):
        checkpoints._pass_over_late_writes()
    for error in (
        RuntimeError("Event loop is closed"),
        RuntimeError("another"),
        OSError("Event loop is closed"),
    ):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))  # type: ignore[arg-type]
    assert told == ["another", "Event loop is closed"]
