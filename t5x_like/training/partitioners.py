"""Two ways to run one step on a mesh: by the compiler, from named shardings, or on each device, with sums by hand.

The step is written once, for the rows that it sees. Under `Jit` these are all rows of the batch, and sums are whole
as they stand; under `Pmap` they are those of one device, and `total` adds them up.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from t5x_like.models.sharding import logical_rules, rows_of_one_device
from t5x_like.training.layout import BATCH_AXES, Layout
from t5x_like.training.partitioning import batch_sharding

Kind = Literal["jit", "pmap"]


@dataclasses.dataclass(frozen=True)
class Jit:
    """`jax.jit` with a sharding for every argument; the compiler splits the work and puts in what devices exchange."""

    mesh: jax.sharding.Mesh
    layout: Layout

    def tracing(self) -> contextlib.AbstractContextManager[None]:
        """What the model is called in: activations find the mesh."""
        return logical_rules(self.mesh, self.layout.rules)

    def total(self, sums: Any) -> Any:
        """Sums over all rows of the batch from those over the rows that the step sees."""
        return sums

    def lay_out(self, tree: Any, shardings: Any) -> Any:
        """`tree` where `shardings` says."""
        return jax.lax.with_sharding_constraint(tree, shardings)

    def microbatches(self, rows: Shaped[Array, "B ..."], parts: int) -> Shaped[Array, "parts B/parts ..."]:
        """Part m takes the rows m, m + parts, ...: each device then splits the rows that it holds, and none move."""
        split = _strided(rows, parts)
        return self.lay_out(split, NamedSharding(self.mesh, PartitionSpec(None, BATCH_AXES)))

    def wrap(
        self, step: Callable[..., Any], arguments: Any, results: Any, *, donate: Sequence[int] = ()
    ) -> Any:
        """The jitted step of (something laid out as `arguments`, a batch), with results laid out as `results`."""
        return jax.jit(
            step,
            donate_argnums=donate,
            in_shardings=(arguments, batch_sharding(self.mesh)),
            out_shardings=results,
        )


@dataclasses.dataclass(frozen=True)
class Pmap(Jit):
    """One program a device, data parallelism only: what `jax.pmap` is made of since JAX 0.8, `jit` of `shard_map`,
    taken by itself, so that state and batch are the same arrays as under `Jit`."""

    def tracing(self) -> contextlib.AbstractContextManager[None]:
        return rows_of_one_device("data")

    def total(self, sums: Any) -> Any:
        return jax.lax.psum(sums, "data")

    def lay_out(self, tree: Any, shardings: Any) -> Any:
        return tree

    def microbatches(self, rows: Shaped[Array, "B ..."], parts: int) -> Shaped[Array, "parts B/parts ..."]:
        return _strided(rows, parts)

    def wrap(
        self, step: Callable[..., Any], arguments: Any, results: Any, *, donate: Sequence[int] = ()
    ) -> Any:
        whole = PartitionSpec()
        on_each = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(whole, PartitionSpec(BATCH_AXES)),
            out_specs=whole,
            check_vma=False,  # every device ends with the same sums; the check would want it proven in the types
        )
        return super().wrap(on_each, arguments, results, donate=donate)


def make(kind: Kind, mesh: jax.sharding.Mesh, layout: Layout) -> Jit:
    """The partitioner of that name."""
    return {"jit": Jit, "pmap": Pmap}[kind](mesh, layout)


def _strided(rows: Shaped[Array, "B ..."], parts: int) -> Shaped[Array, "parts B/parts ..."]:
    return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)
