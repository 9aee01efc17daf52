"""The one place where a model speaks of devices: hints on activations, nothing at all without rules.

A model names the axes of an activation (`constrain(x, "batch", "length", "mlp")`); the training core says what
mesh axes those names mean (`with logical_rules(mesh, rules): ...`). Names used by the models of this package:

- parameters: `vocab embed heads mlp layers relpos_buckets`, and in encoders `positions token_types embedding pooled
  classes`, which stay whole (`embedding`: the width of tables, where a projection or a head leads to or from it)
- activations: `batch length embed heads mlp vocab`, and None for an axis that stays whole.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None


class Pinned(str):
    """The logical name of a dimension that a rule of its own sends to mesh axes, whatever the rules of the name say."""

    __slots__ = ("axes",)
    axes: MeshAxes

    def __new__(cls, name: str, axes: MeshAxes) -> Pinned:
        pinned = super().__new__(cls, name)
        pinned.axes = axes
        return pinned


Rules = Sequence[tuple[str, MeshAxes]]
"""(logical name, mesh axis or axes); the first rule of a name whose mesh axes are all free is taken."""

_ACTIVE: contextvars.ContextVar[tuple[Mesh, Rules] | None] = contextvars.ContextVar(
    "logical_rules", default=None
)


@contextlib.contextmanager
def logical_rules(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Inside, `constrain` places activations on `mesh` by `rules`. Hold it while the function is traced."""
    token = _ACTIVE.set((mesh, tuple(rules)))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active() -> tuple[Mesh, Rules] | None:
    """The mesh and the rules that `logical_rules` holds, or None outside it."""
    return _ACTIVE.get()


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: of the mesh that is active, which need not be this machine's (compiling ahead), or JAX's
    default."""
    held = _ACTIVE.get()
    if held is None or isinstance(held[0], AbstractMesh):  # an abstract mesh is nowhere
        return jax.default_backend()
    return held[0].devices.flat[0].platform


def partition_spec(
    names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    """The mesh axes of an array whose dimensions carry these logical names.

    A dimension stays whole where no rule names it, where its mesh axes are already taken by an earlier dimension,
    or where they do not divide it (6 heads over 4 devices).
    """
    taken: set[str] = set()
    spec: list[MeshAxes] = []
    for name, size in zip(names, shape, strict=True):
        chosen: MeshAxes = None
        for rule_name, axes in [(name, name.axes)] if isinstance(name, Pinned) else rules:
            group = (axes,) if isinstance(axes, str) else (axes or ())
            if rule_name != name or taken & set(group):
                continue
            if size % math.prod(mesh.shape[a] for a in group) == 0:
                chosen = axes
                taken |= set(group)
            break
        spec.append(chosen)
    return PartitionSpec(*spec)


_ROWS_AXIS: contextvars.ContextVar[str | None] = contextvars.ContextVar("rows_axis", default=None)


@contextlib.contextmanager
def rows_of_one_device(axis: str) -> Iterator[None]:
    """Inside, arrays hold the rows of one device of the mapped `axis`, as under `jax.shard_map`."""
    token = _ROWS_AXIS.set(axis)
    try:
        yield
    finally:
        _ROWS_AXIS.reset(token)


def row_numbers(count: int) -> jax.Array:
    """The number in the whole batch of each of the `count` rows of an array, uint32 [count]."""
    rows = jax.lax.iota(np.uint32, count)
    axis = _ROWS_AXIS.get()
    return rows if axis is None else rows + jax.lax.axis_index(axis).astype(np.uint32) * np.uint32(count)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, pinned to the mesh by the logical names of its dimensions; `x` itself outside `logical_rules`."""
    held = _ACTIVE.get()
    if held is None:
        return x
    mesh, rules = held
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, partition_spec(names, x.shape, mesh, rules))
    )
