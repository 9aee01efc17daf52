"""Optimizers: Adafactor, AdamW and LAMB of our own, others from Optax by name, and layer-wise decay around ours.

Each is a frozen dataclass with two methods:

- `build(schedule, axes)`: the `optax.GradientTransformation` (init, update);
- `state_axes(axes, shapes)`: logical axis names for every leaf of its state. Without them `jit` leaves the moments
  replicated on every device (google/jax issue 16080), so `state.py` pins the state to them.

Clipping by global norm and the guard against non-finite gradients belong to the step, not to an optimizer.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from t5x_like.errors import UserError, did_you_mean
from t5x_like.training.adafactor import Adafactor
from t5x_like.training.adam import AdamW, Lamb
from t5x_like.training.layerwise import LayerWise
from t5x_like.training.parameters import NO_DECAY, decay_mask
from t5x_like.training.schedules import Schedule

_OPTAX = (
    *(
        "adabelief",
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamaxw",
        "adamw",
        "adan",
        "amsgrad",
    ),
    *("fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "sgd"),
    *("sign_sgd", "signum", "yogi"),
)
"""What Optax exports that trains with nothing but gradients, parameters and a learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optax:
    """An optimizer of the Optax library by its name there: `Optax(name="lion", arguments={"b2": 0.98})`.

    Attributes:
      name: as exported by `optax`.
      arguments: its keyword arguments, without the learning rate, which the schedule gives.
      no_decay: words in the path of parameters that do not decay, where the optimizer has weight decay.

    Raises:
      UserError: no such optimizer, or no such argument; with the nearest.
    """

    name: str = "adamw"
    arguments: dict[str, float | int | str | bool] = dataclasses.field(default_factory=dict)
    no_decay: tuple[str, ...] = NO_DECAY

    def __post_init__(self) -> None:
        if self.name not in _OPTAX:
            help = did_you_mean(self.name, _OPTAX)
            raise UserError(
                f"Optax has no optimizer {self.name!r} to train with", where="optimizer.name", help=help
            )
        own = {"learning_rate", *self._mask_names()}
        known = set(inspect.signature(self._factory()).parameters) - own
        for argument in self.arguments:
            where = f"optimizer.arguments.{argument}"
            if argument == "learning_rate":
                raise UserError(
                    "the learning rate comes from the schedule", where=where, help="set schedule.peak"
                )
            if argument not in known:
                help = did_you_mean(argument, known) if known else f"{self.name} takes none"
                raise UserError(f"optax.{self.name} has no argument {argument!r}", where=where, help=help)
        self._try()

    def _try(self) -> None:
        """One update of a small matrix, without computing it: a value of a wrong type shows here, not in a run."""
        params = {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
        transformation = self.build(lambda step: jnp.zeros(()), None)  # type: ignore[arg-type]
        try:
            state = jax.eval_shape(transformation.init, params)
            jax.eval_shape(transformation.update, params, state, params)
        except (TypeError, ValueError) as e:
            told = str(e).splitlines()[0]
            raise UserError(
                f"optax.{self.name} does not work with {self.arguments}: {told}", where="optimizer.arguments"
            ) from None

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation; `schedule` gives the learning rate by the number of updates done."""
        masks = {name: lambda params: decay_mask(params, self.no_decay) for name in self._mask_names()}
        try:
            return self._factory()(schedule, **masks, **self.arguments)
        except (TypeError, ValueError) as e:
            raise UserError(f"optax.{self.name}: {e}", where="optimizer.arguments") from None

    def state_axes(self, axes: Any, shapes: Any) -> Any:
        """Arrays of the state that have a parameter's shape lie as the parameter does; the rest stays whole."""
        transformation = self.build(lambda step: jnp.zeros(()), axes)  # type: ignore[arg-type]
        state = jax.eval_shape(transformation.init, shapes)
        return optax.tree_map_params(
            transformation,
            lambda leaf, p, names: names if leaf.shape == p.shape else (None,) * leaf.ndim,
            state,
            shapes,
            axes,
            transform_non_params=lambda leaf: (None,) * leaf.ndim,
        )

    def _factory(self) -> Callable[..., optax.GradientTransformation]:
        return getattr(optax, self.name)

    def _mask_names(self) -> list[str]:
        parameters = inspect.signature(self._factory()).parameters
        return [name for name in ("mask", "weight_decay_mask") if name in parameters]


Optimizer = Adafactor | AdamW | Lamb | LayerWise | Optax

__all__ = ["Adafactor", "AdamW", "Lamb", "LayerWise", "Optax", "Optimizer"]
