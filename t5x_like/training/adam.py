"""Adam with decoupled weight decay as its publications have it, and LAMB, which scales the same steps by layer."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32

from t5x_like.errors import UserError
from t5x_like.training.parameters import NO_DECAY, STACKED, VECTORS, decay_mask
from t5x_like.training.schedules import Schedule


class AdamState(NamedTuple):
    """First and second moments, each a tree like the parameters, float32."""

    updates: Int32[Array, ""]
    mu: Any
    nu: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), equal to `optax.adamw`.

    BERT and ELECTRA (google-research/bert optimization.py): `bias_correction=False, eps=1e-6, no_decay=VECTORS`, which
    is `berts()`. RoBERTa (fairseq optim/adam.py): `b2=0.98, eps=1e-6, epsilon_hat=True, no_decay=()`, `robertas()`.

    Attributes:
      b1, b2, eps: as in Kingma and Ba 2015; eps is added to the square root.
      weight_decay: times the learning rate, the share of a parameter that an update takes away.
      no_decay: words in the path of parameters that do not decay; `()` lets all of them decay.
      bias_correction: off for BERT's original optimizer: its first steps are up to 3.2 times as long.
      epsilon_hat: add eps before the second moment is corrected (Kingma and Ba 2015, end of section 2; fairseq).
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = NO_DECAY
    bias_correction: bool = True
    epsilon_hat: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation; `schedule` gives the learning rate by the number of updates done."""

        def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
            assert params is not None
            rate, after = schedule(state.updates), _moments(self, grads, state)
            # Bias correction as two scalars, so that a parameter's whole update is one elementwise loop.
            correct1, correct2 = _corrections(self, after.updates)
            eps = self.eps * jnp.sqrt(correct2) if self.epsilon_hat else self.eps

            def step(p: Array, m: Array, v: Array, decays: bool) -> Array:
                direction = m * correct1 / (jnp.sqrt(v * correct2) + eps)
                return -rate * (direction + self.weight_decay * p if decays else direction)

            return jax.tree.map(step, params, after.mu, after.nu, decay_mask(params, self.no_decay)), after

        return optax.GradientTransformation(_init, update)  # type: ignore[arg-type]

    def state_axes(self, axes: Any, shapes: Any) -> AdamState:
        """Both moments lie as their parameters do."""
        return AdamState((), axes, axes)  # type: ignore[arg-type]


def berts() -> AdamW:
    """BERT's and ELECTRA's optimizer: no bias correction, decay on all but biases and norms."""
    return AdamW(eps=1e-6, weight_decay=0.01, no_decay=VECTORS, bias_correction=False)


def robertas() -> AdamW:
    """RoBERTa's: fairseq's Adam, decay on everything."""
    return AdamW(b2=0.98, eps=1e-6, weight_decay=0.01, no_decay=(), epsilon_hat=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lamb:
    """LAMB (You et al. 2020, arXiv:1904.00962, algorithm 2) as google-research/albert lamb_optimizer.py has it.

    The step of AdamW, decay included, times ‖parameter‖ / ‖step‖, parameter by parameter; 1 where either norm is 0. A
    scanned stack is a pile of separate parameters: each layer has norms of its own.

    Attributes:
      b1, b2, eps, weight_decay: as in `AdamW`.
      no_decay: words in the path of parameters that neither decay nor have their steps scaled.
      bias_correction: as in the publication's algorithm; ALBERT's code has none.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = VECTORS
    bias_correction: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation; `schedule` gives the learning rate by the number of updates done."""

        def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
            assert params is not None
            rate, after = schedule(state.updates), _moments(self, grads, state)
            correct1, correct2 = _corrections(self, after.updates)

            def step(p: Array, m: Array, v: Array, scales: bool, names: tuple[str | None, ...]) -> Array:
                direction = m * correct1 / (jnp.sqrt(v * correct2) + self.eps)
                if not scales:
                    return -rate * direction
                direction = direction + self.weight_decay * p
                within = tuple(d for d, name in enumerate(names) if name != STACKED)
                size, length = _norm(p, within), _norm(direction, within)
                ratio = jnp.where((size > 0) & (length > 0), size / jnp.where(length > 0, length, 1.0), 1.0)
                return -rate * ratio * direction

            scales = decay_mask(params, self.no_decay)
            return jax.tree.map(step, params, after.mu, after.nu, scales, axes), after

        return optax.GradientTransformation(_init, update)  # type: ignore[arg-type]

    def state_axes(self, axes: Any, shapes: Any) -> AdamState:
        """Both moments lie as their parameters do."""
        return AdamState((), axes, axes)  # type: ignore[arg-type]


def _init(params: Any) -> AdamState:
    def zeros() -> Any:
        return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)

    return AdamState(jnp.zeros((), jnp.int32), zeros(), zeros())


def _moments(config: AdamW | Lamb, grads: Any, state: AdamState) -> AdamState:
    """The state after one more gradient."""
    mu = jax.tree.map(lambda m, g: config.b1 * m + (1 - config.b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: config.b2 * v + (1 - config.b2) * jnp.square(g), state.nu, grads)
    return AdamState(state.updates + 1, mu, nu)


def _corrections(config: AdamW | Lamb, updates: Int32[Array, ""]) -> tuple[Any, Any]:
    """Factors that undo the start of both moments at 0, after this many updates."""
    if not config.bias_correction:
        return 1.0, 1.0
    return 1 / (1 - config.b1**updates), 1 / (1 - config.b2**updates)


def _norm(x: Float[Array, "..."], within: tuple[int, ...]) -> Float[Array, "..."]:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=within, keepdims=True))


def _check(config: AdamW | Lamb) -> None:
    for name in ("b1", "b2"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(
                f"{name} is {getattr(config, name)}; it must be at least 0 and below 1",
                where=f"optimizer.{name}",
            )
    for name in ("eps", "weight_decay"):
        if not getattr(config, name) >= 0:
            raise UserError(
                f"{name} is {getattr(config, name)}; it must not be negative", where=f"optimizer.{name}"
            )
