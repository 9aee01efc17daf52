"""From the sums of single steps to the figures of a report: means, throughput, skipped updates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from t5x_like.data.example import Batch, Feature
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
        self._pad, self._clock = pad, clock
        self.turn(flops, features, terms)
        self._sums: list[Losses] = []
        self._tokens = self._slots = 0
        self._waited, self._since = 0.0, clock()

    def turn(self, flops: float, features: dict[str, Feature], terms: dict[str, float]) -> None:
        """The steps from here on are of another phase. Those before must have been reported."""
        self._flops, self._names, self._terms = flops, token_features(features), terms

    @property
    def steps(self) -> int:
        """Steps since the last report."""
        return len(self._sums)

    def add(self, sums: Losses, batch: Batch, waited: float) -> None:
        """Takes the sums of a step that has been dispatched, this host's rows of its batch, and the seconds that
        were spent waiting for it."""
        self._sums.append(sums)
        for name in self._names:
            self._tokens += int(np.count_nonzero(batch[name] != self._pad)) * jax.process_count()
            self._slots += batch[name].size * jax.process_count()
        self._waited += waited

    def reset_clock(self) -> None:
        """Time until now (compiling, evaluating) belongs to no step."""
        self._since = self._clock()

    def report(self) -> tuple[dict[str, float], float]:
        """Waits for the steps and returns (metrics, seconds they took). At least one step must have been added."""
        steps, self._sums = jax.device_get(self._sums), []
        seconds = self._clock() - self._since
        self.reset_clock()
        for sums in steps:
            bad = float(sums["nonfinite"][0]) > 0
            self.nonfinite_in_a_row = self.nonfinite_in_a_row + 1 if bad else 0
            self.skipped += bad
        self.tokens_seen += self._tokens
        values = mean([{n: v for n, v in sums.items() if n != "nonfinite"} for sums in steps], self._terms)
        values.setdefault("loss", math.nan)  # every one of the steps was skipped
        values |= {
            "step_seconds": seconds / len(steps),
            "tokens_per_second": self._tokens / seconds,
            "model_flops_per_second": self._flops * len(steps) / seconds,
            "data_wait": self._waited / seconds,
            "padding": 1.0 - self._tokens / max(self._slots, 1),
            "tokens_seen": self.tokens_seen,
            "skipped_updates": self.skipped,
        }
        self._tokens = self._slots = 0
        self._waited = 0.0
        return values, seconds
