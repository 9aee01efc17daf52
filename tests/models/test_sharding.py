"""Sharding hints: nothing without rules, the rules' axes inside, whole where they cannot hold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from t5x_like.models.sharding import constrain, logical_rules, partition_spec

RULES = (("batch", ("data", "fsdp")), ("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"))


def mesh() -> Mesh:
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def test_nothing_happens_without_rules() -> None:
    x = jnp.ones((4, 6))
    assert constrain(x, "batch", "embed") is x


def test_rules_place_an_activation() -> None:
    with logical_rules(mesh(), RULES):
        y = jax.jit(lambda x: constrain(x * 1, "batch", "length", "mlp"))(jnp.ones((8, 3, 6)))
    assert y.sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")
    x = jnp.ones((8, 3, 6))
    assert constrain(x, "batch", "length", "mlp") is x


def test_an_axis_is_used_once_and_must_divide() -> None:
    def spec(names: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec:
        return partition_spec(names, shape, mesh(), RULES)

    assert spec(("batch", "length", "embed"), (8, 4, 4)) == PartitionSpec(("data", "fsdp"), None, None)
    assert spec(("embed", "heads"), (4, 4)) == PartitionSpec("fsdp", "tensor")
    assert spec(("embed", "heads"), (4, 3)) == PartitionSpec("fsdp", None)
    assert spec((None, "unheard_of"), (4, 4)) == PartitionSpec(None, None)
