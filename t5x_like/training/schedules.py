"""Learning rates: frozen dataclasses, called with the number of updates done so far.

A schedule that ends takes `steps`, the update at which it does; None stands for the whole run and is filled in
by `schedule.over(run_steps)`, so that the length of a run is written once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Protocol, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.errors import UserError

Step = int | Int[Array, ""]


class Schedule(Protocol):
    """A learning rate as a function of the update, counted from 0. Traceable."""

    def __call__(self, step: Step) -> Float[Array, ""]: ...

    def over(self, steps: int) -> Schedule:
        """This schedule for a run of `steps` updates."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The same rate throughout; 1e-3 with Adafactor is how T5 is fine-tuned (Raffel et al. 2020, section 3.1.3)."""

    rate: float = 1e-3

    def __post_init__(self) -> None:
        _at_least(self, 0.0, "rate")

    def __call__(self, step: Step) -> Float[Array, ""]:
        return jnp.full((), self.rate, jnp.float32)

    def over(self, steps: int) -> Self:
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rsqrt:
    """scale / sqrt(max(step, warmup)): T5's pretraining schedule, 0.01 flat for 10,000 steps, then decaying.

    There is no ramp: "warmup" is how long the rate stays at its highest (Raffel et al. 2020, section 3.1.2). The
    rate is meant for Adafactor, which multiplies it by the scale of each parameter.
    """

    scale: float = 1.0
    warmup: int = 10_000

    def __post_init__(self) -> None:
        _at_least(self, 0.0, "scale")
        _at_least(self, 1, "warmup")

    def __call__(self, step: Step) -> Float[Array, ""]:
        return self.scale * jax.lax.rsqrt(jnp.maximum(jnp.asarray(step, jnp.float32), self.warmup))

    def over(self, steps: int) -> Self:
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ramp:
    """What the schedules below share: a linear warm-up from 0 to `peak`, then `_after` until `steps`.

    The first update has the rate peak / warmup and update `warmup - 1` has `peak`, so that none is wasted on 0.
    """

    peak: float = 1e-3
    warmup: int = 1_000
    final: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        _at_least(self, 0.0, "peak", "final")
        _at_least(self, 0, "warmup")
        if self.steps is not None and self.steps < self.warmup:
            raise UserError(
                f"{type(self).__name__} ends at update {self.steps}, before its warm-up of {self.warmup} is over",
                where="schedule.warmup",
                help=f"for example schedule.warmup={self.steps // 10}",
            )

    def __call__(self, step: Step) -> Float[Array, ""]:
        if self.steps is None:
            raise UserError(
                f"{type(self).__name__} does not know when it ends",
                where="schedule.steps",
                help="set schedule.steps, or call schedule.over(steps of the run) first",
            )
        now = jnp.asarray(step, jnp.float32)
        return jnp.where(
            now < self.warmup, self.peak * (now + 1) / max(self.warmup, 1), self._after(now, self.steps)
        )

    def over(self, steps: int) -> Self:
        return self if self.steps is not None else dataclasses.replace(self, steps=steps)

    def _after(self, now: Float[Array, ""], steps: int) -> Float[Array, ""]:
        raise NotImplementedError


def _remaining(now: Float[Array, ""], start: int, end: int) -> Float[Array, ""]:
    """1 until `start`, 0 from `end` on, a line between them."""
    return jnp.clip((end - now) / max(end - start, 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(_Ramp):
    """Linear warm-up to `peak`, then linear decay to `final` at update `steps`.

    Attributes:
      form: where the falling line begins.
        "shifted": at the end of the warm-up, at `peak` (RoBERTa: fairseq polynomial_decay; Hugging Face; XLNet).
        "bert": at update 0, and it takes over from the ramp after the warm-up, so that the rate drops there from
          `peak` to peak * (1 - warmup / steps) (google-research/bert optimization.py).
        "electra": at update 0, and the ramp multiplies it (google-research/electra model/optimization.py).
        The ramps of the last two are those of their code, t / warmup: update 0 has the rate 0.
    """

    form: Literal["shifted", "bert", "electra"] = "shifted"

    def __call__(self, step: Step) -> Float[Array, ""]:
        if self.form == "shifted" or self.steps is None:
            return super().__call__(step)
        now = jnp.asarray(step, jnp.float32)
        line = self.final + (self.peak - self.final) * _remaining(now, 0, self.steps)
        if self.warmup == 0:
            return line
        ramp = now / self.warmup
        if self.form == "electra":
            return line * jnp.minimum(1.0, ramp)
        return jnp.where(now < self.warmup, self.peak * ramp, line)

    def _after(self, now: Float[Array, ""], steps: int) -> Float[Array, ""]:
        return self.final + (self.peak - self.final) * _remaining(now, self.warmup, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(_Ramp):
    """Linear warm-up to `peak`, then half a cosine down to `final` (Loshchilov and Hutter 2017, one period)."""

    def _after(self, now: Float[Array, ""], steps: int) -> Float[Array, ""]:
        fall = 0.5 * (1.0 - jnp.cos(math.pi * _remaining(now, self.warmup, steps)))
        return self.final + (self.peak - self.final) * fall


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(_Ramp):
    """Linear warm-up, `peak` for most of the run, then a linear fall to `final` over the last `decay` share of it
    (Hu et al. 2024, MiniCPM, section 4)."""

    decay: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.decay <= 1.0:
            raise UserError(
                f"decay is {self.decay}; it is the share of the run, between 0 and 1", where="schedule.decay"
            )

    def _after(self, now: Float[Array, ""], steps: int) -> Float[Array, ""]:
        start = max(self.warmup, steps - round(steps * self.decay))
        return self.final + (self.peak - self.final) * _remaining(now, start, steps)


def _at_least(schedule: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if not (math.isfinite(value) and value >= least):
            raise UserError(f"{name} is {value}; it must be at least {least:g}", where=f"schedule.{name}")
