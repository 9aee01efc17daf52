"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) with the choices of T5X (t5x/adafactor.py).

Per parameter: steps relative to RMS(parameter), a second moment kept as a row and a column where the matrix is
large, the update's own RMS clipped at 1, no momentum. Differs from `optax.adafactor` for stacked parameters: the
`layers` axis of a scanned stack is a pile of separate parameters here, each with its own factors, scale and
clipping, so that a scanned and an unrolled model take the same steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32

from t5x_like.errors import UserError
from t5x_like.training.parameters import NO_DECAY, STACKED, decay_mask
from t5x_like.training.schedules import Schedule


class Factored(NamedTuple):
    """Second moment of a matrix: means of g² over columns (`row`) and over rows (`column`)."""

    row: Any
    column: Any


class AdafactorState(NamedTuple):
    """`moments` is a tree like the parameters whose leaves are `Factored`, or an array of the parameter's shape."""

    updates: Int32[Array, ""]
    moments: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor:
    """Adafactor as T5 was trained with it.

    Attributes:
      decay_exponent: the second moment decays by 1 - t**-decay_exponent at the t-th update, counted from 1.
      clip_rms: largest RMS of a parameter's update before it is scaled; none clips nothing.
      relative: multiply the learning rate by max(RMS(parameter), least_scale); T5's rates are meant so.
      least_scale: see `relative`; T5X's epsilon2.
      epsilon: added to g²; T5X's epsilon1.
      factored: keep rows and columns where both largest dimensions have at least `factor_from` entries.
      factor_from: see `factored`.
      weight_decay: share of a parameter that each update takes away, not scaled by the learning rate (as in T5X).
      no_decay: words in the path of parameters that do not decay.
    """

    decay_exponent: float = 0.8
    clip_rms: float | None = 1.0
    relative: bool = True
    least_scale: float = 1e-3
    epsilon: float = 1e-30
    factored: bool = True
    factor_from: int = 128
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = NO_DECAY

    def __post_init__(self) -> None:
        if self.clip_rms is not None and self.clip_rms <= 0:
            raise UserError("clip_rms must be positive, or none", where="optimizer.clip_rms")
        if self.decay_exponent <= 0:
            raise UserError("decay_exponent must be positive", where="optimizer.decay_exponent")
        if not 0 <= self.weight_decay < 1:
            raise UserError(
                f"weight_decay is {self.weight_decay}; Adafactor's is a share of the parameter, at least 0 and below 1",
                where="optimizer.weight_decay",
            )

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation.

        Args:
          schedule: learning rate by the number of updates done.
          axes: tree of tuples of logical names, like the parameters; says which dimensions are stacked layers.
        """

        def init(params: Any) -> AdafactorState:
            def moment(p: Array, names: Sequence[str | None]) -> Factored | Array:
                dims = self.factored_dims(p.shape, names)
                if dims is None:
                    return jnp.zeros(p.shape, jnp.float32)
                row, column = dims
                return Factored(
                    row=jnp.zeros(_without(p.shape, column), jnp.float32),
                    column=jnp.zeros(_without(p.shape, row), jnp.float32),
                )

            return AdafactorState(jnp.zeros((), jnp.int32), jax.tree.map(moment, params, axes))

        def update(grads: Any, state: AdafactorState, params: Any = None) -> tuple[Any, AdafactorState]:
            assert params is not None
            rate = schedule(state.updates)
            decay = 1.0 - (state.updates + 1).astype(jnp.float32) ** -self.decay_exponent
            leaves, treedef = jax.tree.flatten(params)
            steps, moments = [], []
            for p, g, moment, names, decays in zip(
                leaves,
                treedef.flatten_up_to(grads),
                treedef.flatten_up_to(state.moments),
                treedef.flatten_up_to(axes),
                treedef.flatten_up_to(decay_mask(params, self.no_decay)),
            ):
                step, moment = self._update(p, g.astype(jnp.float32), moment, names, rate, decay)
                steps.append(step - self.weight_decay * p if self.weight_decay and decays else step)
                moments.append(moment)
            return treedef.unflatten(steps), AdafactorState(state.updates + 1, treedef.unflatten(moments))

        return optax.GradientTransformation(init, update)  # type: ignore[arg-type]

    def state_axes(self, axes: Any, shapes: Any) -> AdafactorState:
        """The logical names of `build(...).init(...)`, leaf by leaf: a factor keeps the names of the dimensions
        that it keeps, and is sharded with them."""

        def names_of(p: Any, names: tuple[str | None, ...]) -> Factored | tuple[str | None, ...]:
            dims = self.factored_dims(p.shape, names)
            if dims is None:
                return names
            return Factored(row=_without(names, dims[1]), column=_without(names, dims[0]))

        return AdafactorState((), jax.tree.map(names_of, shapes, axes))  # type: ignore[arg-type]

    def factored_dims(self, shape: Sequence[int], names: Sequence[str | None]) -> tuple[int, int] | None:
        """(row, column): the two largest dimensions that are not stacked, row the smaller; None = keep it whole.

        The size test is T5X's for plain matrices; T5X factors stacked ones of any size, here they follow the
        same test, so that stacking changes nothing.
        """
        dims = [d for d, name in enumerate(names) if name != STACKED]
        if not self.factored or len(dims) < 2:
            return None
        row, column = sorted(dims, key=lambda d: shape[d])[-2:]
        return (row, column) if shape[row] >= self.factor_from else None

    def _update(
        self,
        p: Array,
        g: Float[Array, "..."],
        moment: Factored | Array,
        names: Sequence[str | None],
        rate: Float[Array, ""],
        decay: Float[Array, ""],
    ) -> tuple[Float[Array, "..."], Factored | Array]:
        """One parameter: what to add to it, and its new second moment."""
        within = tuple(d for d, name in enumerate(names) if name != STACKED)

        def rms(x: Array) -> Array:
            return jnp.sqrt(jnp.mean(jnp.square(x), axis=within, keepdims=True))

        def mixed(old: Array, new: Array) -> Array:
            return decay * old + (1.0 - decay) * new

        dims = self.factored_dims(p.shape, names)
        if dims is None:
            moment = mixed(moment, jnp.square(g) + self.epsilon)  # type: ignore[arg-type]
            step = g * jax.lax.rsqrt(moment)
        else:
            assert isinstance(moment, Factored)
            row, column = dims
            squared = jnp.square(g)
            moment = Factored(
                row=mixed(moment.row, jnp.mean(squared, axis=column) + self.epsilon),
                column=mixed(moment.column, jnp.mean(squared, axis=row) + self.epsilon),
            )
            rows, columns = jnp.expand_dims(moment.row, column), jnp.expand_dims(moment.column, row)
            step = g * jax.lax.rsqrt(rows / jnp.mean(rows, axis=row, keepdims=True)) * jax.lax.rsqrt(columns)
        scale = -rate
        if self.clip_rms is not None:
            scale = scale / jnp.maximum(1.0, rms(step) / self.clip_rms)
        if self.relative:
            scale = scale * jnp.maximum(rms(p.astype(jnp.float32)), self.least_scale)
        return scale * step, moment


def _without(items: Sequence[Any], index: int) -> tuple[Any, ...]:
    return (*items[:index], *items[index + 1 :])
