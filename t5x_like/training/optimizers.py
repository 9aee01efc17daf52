"""Optimizers: Adafactor and AdamW of our own, and others from Optax by name.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from t5x_like.errors import UserError, did_you_mean
from t5x_like.training.adafactor import Adafactor
from t5x_like.training.parameters import NO_DECAY, decay_mask
from t5x_like.training.schedules import Schedule


class AdamState(NamedTuple):
    """First and second moments, each a tree like the parameters, float32."""

    updates: Int32[Array, ""]
    mu: Any
    nu: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), equal to `optax.adamw`.

    Attributes:
      b1, b2, eps: as in Kingma and Ba 2015; eps is added to the square root.
      weight_decay: times the learning rate, the share of a parameter that an update takes away.
      no_decay: words in the path of parameters that do not decay.
      bias_correction: off for BERT's original optimizer (google-research/bert optimization.py).
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = NO_DECAY
    bias_correction: bool = True

    def __post_init__(self) -> None:
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it must be at least 0 and below 1",
                    where=f"optimizer.{name}",
                )
        for name in ("eps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it must not be negative", where=f"optimizer.{name}"
                )

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation; `schedule` gives the learning rate by the number of updates done."""

        def init(params: Any) -> AdamState:
            def zeros() -> Any:
                return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)

            return AdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

        def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
            assert params is not None
            rate, updates = schedule(state.updates), state.updates + 1
            # Bias correction as two scalars, so that a parameter's whole update is one elementwise loop.
            correct1 = 1 / (1 - self.b1**updates) if self.bias_correction else 1.0
            correct2 = 1 / (1 - self.b2**updates) if self.bias_correction else 1.0
            mu = jax.tree.map(lambda m, g: self.b1 * m + (1 - self.b1) * g, state.mu, grads)
            nu = jax.tree.map(lambda v, g: self.b2 * v + (1 - self.b2) * jnp.square(g), state.nu, grads)

            def step(p: Array, m: Array, v: Array, decays: bool) -> Array:
                direction = m * correct1 / (jnp.sqrt(v * correct2) + self.eps)
                return -rate * (direction + self.weight_decay * p if decays else direction)

            steps = jax.tree.map(step, params, mu, nu, decay_mask(params, self.no_decay))
            return steps, AdamState(updates, mu, nu)

        return optax.GradientTransformation(init, update)  # type: ignore[arg-type]

    def state_axes(self, axes: Any, shapes: Any) -> AdamState:
        """Both moments lie as their parameters do."""
        return AdamState((), axes, axes)  # type: ignore[arg-type]


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


Optimizer = Adafactor | AdamW | Optax
