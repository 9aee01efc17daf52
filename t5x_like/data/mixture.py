"""Mixtures: which stream each example of a run comes from, by a schedule that is exact over any prefix.

Rates are quantised to whole shares of a period, and the period is laid out so that after any i examples each
stream has had i * rate of them, give or take less than one. (Tijdeman 1980, "The chairman assignment problem";
built here by earliest deadline first, which meets every deadline of unit jobs whose rates sum to one: Baruah et
al. 1996, "Proportionate progress".) No random draw is involved, so there is no luck in the mixture of a run.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

PERIOD = 2**16
"""Longest period; a rate is met to within 1 / PERIOD, and none is rounded down to nothing."""


def proportional_rates(
    sizes: Sequence[int], limits: Sequence[int | None], temperature: float = 1.0
) -> list[float]:
    """Examples-proportional rates (T5 paper section 3.5.2): min(size, limit) ** (1 / temperature), normalised."""
    clipped = [min(size, size if limit is None else limit) for size, limit in zip(sizes, limits, strict=True)]
    powers = [
        (c / max(clipped)) ** (1.0 / temperature) for c in clipped
    ]  # at most 1, whatever the temperature
    return [p / sum(powers) for p in powers]


def quantise(rates: Sequence[float], period: int = PERIOD) -> list[int]:
    """Whole shares that sum to at most `period`, nearest to `rates` (largest remainder), each at least 1."""
    exact = [rate / sum(rates) * period for rate in rates]
    shares = [max(math.floor(e), 1) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda d: (shares[d] - exact[d], d))
    missing = period - sum(shares)
    for d in by_remainder[: max(missing, 0)]:
        shares[d] += 1
    for _ in range(-missing):  # tiny rates were lifted to one share: the largest pay for it
        shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
    divisor = math.gcd(*shares)
    return [s // divisor for s in shares]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The endless sequence of streams with these shares: `shares[d]` of every sum(shares) examples are d's."""

    shares: tuple[int, ...]

    @functools.cached_property
    def _table(self) -> tuple[Int32[np.ndarray, "P"], Int32[np.ndarray, "P"]]:
        """For each slot of the period: its stream, and how many slots that stream had before."""
        period = sum(self.shares)
        stream, rank = np.zeros(period, np.int32), np.zeros(period, np.int32)
        ready: list[tuple[int, int, int]] = []  # (deadline, stream, its how-many-eth job)
        waiting = [(0, d, 0) for d in range(len(self.shares))]  # (release, stream, job)
        for slot in range(period):
            while waiting and waiting[0][0] <= slot:
                _, d, job = heapq.heappop(waiting)
                heapq.heappush(ready, (-(-(job + 1) * period // self.shares[d]), d, job))
            _, d, job = heapq.heappop(ready)
            stream[slot], rank[slot] = d, job
            if job + 1 < self.shares[d]:
                heapq.heappush(waiting, ((job + 1) * period // self.shares[d], d, job + 1))
        return stream, rank

    def lookup(self, index: np.ndarray) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """For global example numbers [B]: the stream of each, and its number within that stream."""
        stream, rank = self._table
        turn, slot = np.divmod(index, len(stream))
        which = stream[slot].astype(np.int64)
        return which, turn * np.asarray(self.shares)[which] + rank[slot]
