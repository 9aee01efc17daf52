"""What the configuration of every family is checked and described by."""

from __future__ import annotations

import abc
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5x_like.errors import UserError
from t5x_like.models.attention import fused_obstacle

Params = dict[str, Any]
Rngs = dict[str, jax.Array]
Boxed = dict[str, Any]
"""Parameters, each in a box (`nn.LogicallyPartitioned`) with the names of its axes."""

MOST, MOST_LAYERS = 2**24, 1024
"""Far beyond any model: a slip of the keyboard ends in a sentence, not in a trace of a billion layers."""


def require(condition: bool, field: str, what: str, help: str | None = None) -> None:
    """Raises `UserError` about the model's `field` unless `condition`."""
    if not condition:
        raise UserError(f"model.{field} {what}", where=f"model.{field}", help=help)


def require_range(field: str, value: int, least: int, most: int = MOST) -> None:
    """Raises `UserError` unless least <= value <= most."""
    require(value <= most, field, f"must be at most {most:,}, not {value:,}")
    require(value >= least, field, f"must be at least {least:,}, not {value:,}")


def require_fused(*, dtype: str, drops: bool, head_dim: int) -> None:
    """Raises `UserError` where attention="fused" cannot run a model on this machine."""
    obstacle = fused_obstacle(
        platform=jax.default_backend(), dtype=jnp.dtype(dtype), drops=drops, head_dim=head_dim
    )
    help = "attention='auto' takes the fused kernel where it fits and einsum elsewhere"
    require(obstacle is None, "attention", f"'fused' cannot run: {obstacle}", help)


def inside(error: UserError, field: str) -> UserError:
    """The same refusal for a model that is a `field` of another model."""

    def deeper(text: str | None) -> str | None:
        return None if text is None else text.replace("model.", f"model.{field}.")

    return UserError(deeper(error.what) or "", where=deeper(error.where), help=deeper(error.help))


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)


def values(boxed: Boxed) -> Params:
    """The parameters without their boxes."""
    return jax.tree.map(lambda box: box.value, boxed, is_leaf=_is_box)


def axes(boxed: Boxed) -> Params:
    """For each parameter the names of its axes, such as ("embed", "mlp")."""
    # A parameter split off a stack keeps its box, whose first name (`layers`) no longer has a dimension.
    return jax.tree.map(lambda box: tuple(box.names[-box.value.ndim :]), boxed, is_leaf=_is_box)


class Initialised(abc.ABC):
    """What every model does with its parameters before they are used. A model is a frozen dataclass: hashable."""

    @abc.abstractmethod
    def boxed(self, key: jax.Array) -> Boxed:
        """Random parameters, each in a box with the names of its axes; traceable."""

    def init(self, key: jax.Array) -> Params:
        """Random parameters, float32; the same values scanned or unrolled."""
        return _init(self, key)

    def abstract_params(self) -> Params:
        """The tree of `init` as `jax.ShapeDtypeStruct`, without allocating."""
        return values(_abstract(self))

    def logical_axes(self) -> Params:
        """The tree of `init` with, for each parameter, the names of its axes, such as ("embed", "mlp")."""
        return axes(_abstract(self))


@functools.partial(jax.jit, static_argnums=0)
def _init(model: Initialised, key: jax.Array) -> Params:
    return values(model.boxed(key))


@functools.lru_cache(maxsize=32)  # a start asks several times, and tracing a deep model takes a second
def _abstract(model: Initialised) -> Boxed:
    return jax.eval_shape(model.boxed, jax.random.key(0))
