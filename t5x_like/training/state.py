"""The train state: everything that a step changes, one pytree, created and restored straight into its shards."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from t5x_like.training import distributed
from t5x_like.training.layout import DEFAULT, Layout, shardings
from t5x_like.training.optimizers import Optimizer
from t5x_like.training.schedules import Schedule


class Model(Protocol):
    """What training asks of a model, whatever its family."""

    def init(self, key: Array) -> Any:
        """Parameters: nested dicts of arrays."""
        ...

    def abstract_params(self) -> Any:
        """The same tree of `jax.ShapeDtypeStruct`."""
        ...

    def logical_axes(self) -> Any:
        """The same tree of tuples of logical axis names."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """One pytree.

    Attributes:
      step: train steps done; it is the number of the next batch.
      params: nested dicts of arrays.
      opt_state: of the optimizer; its own count is `step - skipped`.
      skipped: steps whose update was left out because the loss or the gradient was not finite.
    """

    step: Int32[Array, ""]
    params: Any
    opt_state: Any
    skipped: Int32[Array, ""]


def create(
    model: Model,
    optimizer: Optimizer,
    schedule: Schedule,
    mesh: jax.sharding.Mesh,
    seed: int,
    layout: Layout = DEFAULT,
) -> TrainState:
    """A fresh state. No device ever holds more than its own shards; the numbers do not depend on the mesh."""
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract(model, optimizer, schedule, mesh, layout))
    init = _init(model, optimizer, schedule)
    # As NumPy the key is of no device: every process of several gives it to its own.
    bits = np.asarray(jax.random.key_data(jax.random.key(seed)))
    return distributed.compiled(
        jax.jit(lambda key: init(jax.random.wrap_key_data(key)), out_shardings=placed), bits
    )(bits)


def abstract(
    model: Model, optimizer: Optimizer, schedule: Schedule, mesh: jax.sharding.Mesh, layout: Layout = DEFAULT
) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with their shardings: for restoring, and for compiling ahead."""
    params = model.abstract_params()
    axes = layout.place(model.logical_axes(), params, mesh)
    shapes = jax.eval_shape(_init(model, optimizer, schedule), jax.random.key(0))
    names = TrainState(
        step=(),  # type: ignore[arg-type]
        params=axes,
        opt_state=optimizer.state_axes(axes, params),
        skipped=(),  # type: ignore[arg-type]
    )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings(names, shapes, mesh, layout.rules),
    )


def _init(model: Model, optimizer: Optimizer, schedule: Schedule) -> Any:
    transformation = optimizer.build(schedule, model.logical_axes())

    def init(key: Array) -> TrainState:
        params = model.init(key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(step=zero, params=params, opt_state=transformation.init(params), skipped=zero)

    return init
