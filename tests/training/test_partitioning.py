"""Meshes, shardings from logical axes, batches on devices, and the table of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from t5x_like.errors import UserError
from t5x_like.training import layout, parameters, partitioning
from t5x_like.training.partitioning import Mesh


@pytest.mark.parametrize(
    ("mesh", "shape"),
    [
        (Mesh(), (8, 1, 1, 1)),
        (Mesh(fsdp=2), (4, 2, 1, 1)),
        (Mesh(data=1, fsdp=-1, tensor=2), (1, 4, 1, 2)),
        (Mesh(data=2, fsdp=2, tensor=2), (2, 2, 1, 2)),
        (Mesh(sequence=2, tensor=2), (2, 1, 2, 2)),
    ],
)
def test_shapes(mesh, shape):
    built = mesh.build()
    assert built.devices.shape == shape and built.axis_names == ("data", "fsdp", "sequence", "tensor")
    assert all(kind == jax.sharding.AxisType.Auto for kind in built.axis_types)


def test_one_device():
    assert Mesh().build(jax.devices()[:1]).devices.shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("mesh", "nearest"),
    [
        (Mesh(tensor=3), "data=2, fsdp=1, tensor=4"),
        (Mesh(data=4), "data=8, fsdp=1, tensor=1"),
        (Mesh(data=1, fsdp=16), "data=1, fsdp=8, tensor=1"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_the_nearest(mesh, nearest):
    with pytest.raises(UserError, match="8 devices") as refusal:
        mesh.build()
    assert nearest in str(refusal.value)


def test_impossible_meshes():
    with pytest.raises(UserError, match="left over"):
        Mesh(data=-1, fsdp=-1)
    with pytest.raises(UserError, match="at least 1"):
        Mesh(tensor=0)


SHAPES = {
    "kernel": jax.ShapeDtypeStruct((16, 32), jnp.float32),
    "stacked": jax.ShapeDtypeStruct((3, 16, 32), jnp.float32),
    "head": jax.ShapeDtypeStruct((16, 128), jnp.float32),
    "relpos": jax.ShapeDtypeStruct((3, 32), jnp.float32),  # 3 heads do not divide over 2 devices
    "norm": jax.ShapeDtypeStruct((16,), jnp.float32),
}
NAMES = {
    "kernel": ("embed", "heads"),
    "stacked": ("layers", "embed", "mlp"),
    "head": ("embed", "vocab"),
    "relpos": ("heads", "relpos_buckets"),
    "norm": ("embed",),
}


def test_shardings_follow_the_rules():
    found = layout.shardings(NAMES, SHAPES, Mesh(data=2, fsdp=2, tensor=2).build())
    assert {name: sharding.spec for name, sharding in found.items()} == {
        "kernel": P("fsdp", "tensor"),
        "stacked": P(None, "fsdp", "tensor"),
        "head": P("fsdp", "tensor"),
        "relpos": P(None, None),
        "norm": P("fsdp"),
    }


def test_table_counts_the_bytes_that_a_device_holds():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    rows = {row.path: row for row in parameters.rows(NAMES, SHAPES, mesh)}
    assert {path: row.bytes_per_device for path, row in rows.items()} == {
        "kernel": 4 * 16 * 32 // 4,
        "stacked": 4 * 3 * 16 * 32 // 4,
        "head": 4 * 16 * 128 // 4,
        "relpos": 4 * 3 * 32,
        "norm": 4 * 16 // 2,
    }
    text = parameters.table(NAMES, SHAPES, mesh).splitlines()
    assert len(text) == 1 + len(SHAPES) + 1
    assert "float32 3 x 16 x 32" in text[-2] and "-, fsdp, tensor" in text[-2]
    total = sum(s.size for s in SHAPES.values())
    held = sum(row.bytes_per_device for row in rows.values())
    assert f"{total:,} parameters" in text[-1] and text[-1].endswith(f" {held:,}")


def test_decay_mask_by_path():
    params = {
        "token_embedder": {"embedding": 1},
        "mlp": {"wi": {"kernel": 1}, "bias": 1},
        "layer_norm": {"scale": 1},
    }
    assert parameters.decay_mask(params) == {
        "token_embedder": {"embedding": False},
        "mlp": {"wi": {"kernel": True}, "bias": False},
        "layer_norm": {"scale": False},
    }
    assert parameters.decay_mask(params, ("norm", "bias"))["token_embedder"]["embedding"]


def test_batch_rows_over_the_batch_axes():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    batch = {"tokens": np.arange(32, dtype=np.int32).reshape(8, 4), "weights": np.ones(8, np.float32)}
    placed = partitioning.shard_batch(batch, mesh)
    assert {shard.data.shape for shard in placed["tokens"].addressable_shards} == {(2, 4)}
    np.testing.assert_array_equal(placed["tokens"], batch["tokens"])
    assert partitioning.host_rows(8, mesh) == slice(0, 8)


def test_batch_size_must_divide():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    partitioning.check_batch(24, 3, mesh)
    with pytest.raises(UserError, match="does not divide over 4 devices") as refusal:
        partitioning.check_batch(30, 2, mesh)
    assert "batch_size=24 or 32" in str(refusal.value)
    with pytest.raises(UserError) as refusal:
        partitioning.check_batch(3, 1, mesh)
    assert str(refusal.value).endswith("batch_size=4")
