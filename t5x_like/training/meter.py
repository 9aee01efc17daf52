"""From the sums of single steps to the figures of a report: means, throughput, skipped updates."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from t5x_like.data.example import Feature
from t5x_like.objectives.base import Losses


def token_features(features: dict[str, Feature]) -> list[str]:
    """The features that are counted as tokens: all that the model reads, decoder inputs as the targets they are."""
    return [n for n in features if n.endswith("_tokens") and n != "decoder_input_tokens"]


def token_slots(features: dict[str, Feature], batch_size: int) -> int:
    """Places for tokens in a batch, padding included."""
    return batch_size * sum(features[name].shape[0] for name in token_features(features))


def step_flops(model: Any, features: dict[str, Feature], batch_size: int) -> float:
    """Floating point operations of the matrix products of a train step: forward and twice that backward.
    Recomputation under `remat` is not counted, so that the figure compares models and not settings."""
    return 3.0 * batch_size * model.flops({name: feature.shape for name, feature in features.items()})


def mean(sums: list[Losses], terms: dict[str, float]) -> dict[str, float]:
    """Adds up (sum, weight) over steps in float64, and divides once. Names without weight are left out.

    `loss` is what is minimised: the sum of factor * mean of the objective's `terms`; left out with any of them.
    """
    totals: dict[str, list[float]] = {}
    for step in sums:
        for name, (value, weight) in step.items():
            total = totals.setdefault(name, [0.0, 0.0])
            total[0] += float(value)
            total[1] += float(weight)
    means = {name: value / weight for name, (value, weight) in totals.items() if weight}
    if not terms.keys() <= means.keys():
        return means
    return means | {"loss": sum(factor * means[name] for name, factor in terms.items())}


class Meter:
    """Collects the steps between two reports. Nothing is read from the device before `report`.

    Args:
      tokens_seen, skipped: tokens and skipped updates of the steps before.
      flops: of one step, for model FLOP/s.
      pad: the id that does not count as a token.
      features: of the batch.
      terms: of the objective.
      clock: seconds, monotonic; replaced in tests.

    Attributes:
      losses: of the steps of the last report; NaN where a step was skipped.
    """

    def __init__(
        self,
        tokens_seen: int,
        skipped: int,
        flops: float,
        pad: int,
        features: dict[str, Feature],
        terms: dict[str, float],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.tokens_seen, self.nonfinite_in_a_row, self.skipped = tokens_seen, 0, skipped
        self.losses: list[float] = []
        self._pad, self._clock = pad, clock
        self.turn(flops, features, terms)
        self._sums: list[Losses] = []
        self._tokens: list[Int32[Array, ""]] = []
        self._slots = 0
        self._waited, self._since = 0.0, clock()

    def turn(self, flops: float, features: dict[str, Feature], terms: dict[str, float]) -> None:
        """The steps from here on are of another phase. Those before must have been reported."""
        self._flops, self._names, self._terms = flops, token_features(features), terms

    @property
    def steps(self) -> int:
        """Steps since the last report."""
        return len(self._sums)

    def add(self, sums: Losses, batch: dict[str, jax.Array], waited: float) -> None:
        """Takes the sums of a step that has been dispatched, its batch on the devices (all rows of all hosts), and
        the seconds that were spent waiting for it."""
        self._sums.append(sums)
        read = {name: batch[name] for name in self._names}
        self._tokens.append(_count_other(read, self._pad))
        self._slots += sum(tokens.size for tokens in read.values())
        self._waited += waited

    def reset_clock(self) -> None:
        """Time until now (compiling, evaluating) belongs to no step."""
        self._since = self._clock()

    def report(self) -> tuple[dict[str, float], float]:
        """Waits for the steps and returns (metrics, seconds they took). At least one step must have been added."""
        (steps, counts), self._sums, self._tokens = jax.device_get((self._sums, self._tokens)), [], []
        tokens = sum(map(int, counts))
        seconds = self._clock() - self._since
        self.reset_clock()
        for sums in steps:
            bad = float(sums["nonfinite"][0]) > 0
            self.nonfinite_in_a_row = self.nonfinite_in_a_row + 1 if bad else 0
            self.skipped += bad
        self.tokens_seen += tokens
        self.losses = [mean([sums], self._terms).get("loss", math.nan) for sums in steps]
        values = mean([{n: v for n, v in sums.items() if n != "nonfinite"} for sums in steps], self._terms)
        values.setdefault("loss", math.nan)  # every one of the steps was skipped
        values |= {
            "step_seconds": seconds / len(steps),
            "tokens_per_second": tokens / seconds,
            "model_flops_per_second": self._flops * len(steps) / seconds,
            "data_wait": self._waited / seconds,
            "padding": 1.0 - tokens / max(self._slots, 1),
            "tokens_seen": self.tokens_seen,
            "skipped_updates": self.skipped,
        }
        self._slots = 0
        self._waited = 0.0
        return values, seconds


@functools.partial(jax.jit, static_argnums=1)
def _count_other(arrays: dict[str, jax.Array], value: int) -> Int32[Array, ""]:
    """Elements of all arrays that are not `value`."""
    return sum((jnp.sum(x != value, dtype=jnp.int32) for x in arrays.values()), jnp.int32(0))
