"""Meshes, shardings from logical axes, batches on devices, and the table of parameters."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from t5x_like import typed
from t5x_like.data.example import Feature
from t5x_like.errors import UserError
from t5x_like.training import layout, parameters, partitioning, state
from t5x_like.training.optimizers import Adafactor, AdamW
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Constant


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


def test_slices_are_joined_by_data_alone():
    """Two groups of four devices: each holds one half of `data`, and whole rows of the other axes."""
    built = Mesh(data=4, tensor=2, slices=2).build()
    ids = np.vectorize(lambda d: d.id)(built.devices).reshape(4, 2)
    assert built.devices.shape == (4, 1, 1, 2)
    assert [sorted(ids[:2].flat), sorted(ids[2:].flat)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(UserError, match="8 devices in 2 slices") as refusal:
        Mesh(data=1, fsdp=8, slices=2).build()
    assert "data=2, fsdp=4, tensor=1" in str(refusal.value)
    with pytest.raises(UserError, match="do not divide into 3 slices") as refusal:
        Mesh(slices=3).build()
    assert "mesh.slices=2" in str(refusal.value)


class Chip(NamedTuple):
    """Of a TPU."""

    id: int
    slice_index: int
    platform: str = "tpu"
    process_index: int = 0


def test_the_slices_of_tpus_are_found_by_themselves():
    chips = [Chip(n, slice_index=n % 2) for n in range(8)]
    groups = partitioning._slices(chips, None)
    assert [[chip.id for chip in group] for group in groups] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert partitioning._slices(chips, 2) == groups
    with pytest.raises(UserError, match="the devices lie in 2"):
        partitioning._slices(chips, 4)


def test_one_line_makes_a_mesh():
    def override(text):
        return typed.override(Holder(mesh=Mesh(fsdp=4)), text).mesh

    assert override("mesh=data=-1,fsdp=2,tensor=2") == Mesh(fsdp=2, tensor=2)
    assert override("mesh.tensor=2") == Mesh(fsdp=4, tensor=2)
    assert override('mesh.rules={"embed": "fsdp+tensor"}').rules == {"embed": "fsdp+tensor"}
    with pytest.raises(UserError, match="no field 'fdsp'") as refusal:
        override("mesh=fdsp=2")
    assert "did you mean mesh.fsdp?" in str(refusal.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    mesh: Mesh


def placed(mesh):
    found = mesh.layout()
    built = mesh.build()
    return {
        name: sharding.spec
        for name, sharding in layout.shardings(
            found.place(NAMES, SHAPES, built), SHAPES, built, found.rules
        ).items()
    }


def test_rules_and_overrides_of_a_configuration():
    axes = {"data": 2, "fsdp": 2, "tensor": 2}
    assert placed(Mesh(**axes, rules={"embed": "fsdp+tensor", "mlp": "-"})) == {
        "kernel": P(("fsdp", "tensor"), None),
        "stacked": P(None, ("fsdp", "tensor"), None),
        "head": P(("fsdp", "tensor"), None),
        "relpos": P(None, None),
        "norm": P(("fsdp", "tensor")),
    }
    overridden = placed(Mesh(**axes, overrides={"head": "tensor, data", "k*l": "-, fsdp+tensor"}))
    assert overridden["head"] == P("tensor", "data") and overridden["kernel"] == P(None, ("fsdp", "tensor"))
    assert overridden["norm"] == P("fsdp"), "the others follow the rules"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rules": {"mpl": "tensor"}}, "did you mean mlp?"),
        ({"rules": {"batch": "data"}}, "no logical axis 'batch'"),
        ({"rules": {"mlp": "tensr"}}, "did you mean tensor?"),
        ({"rules": {"mlp": "tensor+tensor"}}, "names a mesh axis twice"),
        ({"overrides": {"head": "fsdp, fsdp"}}, "uses a mesh axis for two dimensions"),
        ({"overrides": {"haed": "fsdp, -"}}, "did you mean head?"),
        ({"overrides": {"head": "fsdp"}}, "head has 2 dimensions [16, 128], and the override names 1"),
        ({"overrides": {"relpos": "tensor, -"}}, "dimension of 3, which does not divide into 2 parts"),
        ({"partitioner": "pmap"}, "pmap has data parallelism only"),
    ],
)
def test_layouts_that_cannot_be(fields, words):
    with pytest.raises(UserError) as refusal:
        placed(Mesh(**{"data": 2, "fsdp": 2, "tensor": 2, **fields}))
    assert words in str(refusal.value)


def test_moments_lie_as_their_overridden_parameter():
    class Model:
        def abstract_params(self):
            return SHAPES

        def logical_axes(self):
            return NAMES

        def init(self, key):
            return jax.tree.map(lambda s: jnp.zeros(s.shape), SHAPES)

    mesh = Mesh(data=2, fsdp=2, tensor=2, overrides={"stacked": "-, -, fsdp", "head": "tensor, fsdp"})
    args = (Model(), Constant(), mesh.build(), mesh.layout())
    adam = state.abstract(args[0], AdamW(), *args[1:])
    assert (
        adam.params["stacked"].sharding.spec
        == adam.opt_state.mu["stacked"].sharding.spec
        == P(None, None, "fsdp")
    )
    moments = state.abstract(args[0], Adafactor(factor_from=16), *args[1:]).opt_state.moments
    assert moments["head"].row.sharding.spec == P("tensor") and moments["head"].column.sharding.spec == P(
        "fsdp"
    )
    assert moments["stacked"].column.sharding.spec == P(None, "fsdp"), "the stack stays a stack"


def test_a_vocabulary_that_does_not_divide_is_refused():
    mesh = Mesh(data=2, tensor=4).build()
    partitioning.check_vocabulary(32128, mesh)
    with pytest.raises(UserError, match="30522 rows does not divide over 4 devices") as refusal:
        partitioning.check_vocabulary(30522, mesh)
    assert "model.vocab_size=30524" in str(refusal.value)
    partitioning.check_vocabulary(30522, mesh, Mesh(rules={"vocab": "-"}).layout())


def test_lengths_over_the_sequence_axis():
    mesh = Mesh(sequence=4).build()
    features = {"encoder_input_tokens": Feature((512,)), "decoder_target_tokens": Feature((114,))}
    assert partitioning.check_lengths(features, mesh) == ["decoder_target_tokens 114"]
    with pytest.raises(UserError, match="no length of the inputs divides") as refusal:
        partitioning.check_lengths({"encoder_input_tokens": Feature((510,))}, mesh)
    assert "lengths that do: 508 or 512" in str(refusal.value)


def test_layers_that_are_alike_share_a_line_of_the_table():
    leaf = jax.ShapeDtypeStruct((16, 32), jnp.float32)
    shapes = {f"layers_{n}": {"kernel": leaf} for n in range(11)} | {"layers_norm": {"kernel": leaf}}
    names = {name: {"kernel": ("embed", "mlp")} for name in shapes}
    text = parameters.table(names, shapes, Mesh(fsdp=2).build()).splitlines()
    assert len(text) == 4 and "layers_0..10/kernel" in text[1] and text[1].endswith(f"{11 * 4 * 512 // 2:,}")
    assert text[-1].startswith("12 arrays")


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
