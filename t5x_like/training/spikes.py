"""Steps that stand out: a loss or a step time far above what was usual just before. A flag, not an action.

Usual is the median of a window, far is many times its median absolute deviation: both are deaf to the spikes
themselves, and to a loss that falls. A spike that lasts is told once, when it begins.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable

WINDOW = 128
"""Steps that say what is usual."""
LEAST = 32
"""Steps before anything is flagged."""
DEVIATIONS = 8.0
"""Standard deviations, estimated as 1.4826 times the median absolute deviation."""


@dataclasses.dataclass(frozen=True)
class Spike:
    """One flag.

    Attributes:
      what: `loss` or `step time`.
      step: the step of it, counted from 0.
      value: seen there; nats, or seconds.
      usual: median of the steps before.
    """

    what: str
    step: int
    value: float
    usual: float

    def __str__(self) -> str:
        return f"{self.what} spike at step {self.step:,}: {self.value:.4g}, where {self.usual:.4g} is usual"


class Series:
    """One quantity over the steps.

    Args:
      what: its name.
      margin: least distance from the median, as a share of it, that can be a spike.
    """

    def __init__(self, what: str, margin: float):
        self._what, self._margin = what, margin
        self._seen: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._quiet = 0  # steps for which nothing more is told

    def add(self, step: int, value: float) -> Spike | None:
        """Takes the value of a step; a spike where one begins. What is not finite is told elsewhere."""
        if not math.isfinite(value):
            return None
        spike = None
        if len(self._seen) >= LEAST:
            usual = statistics.median(self._seen)
            spread = 1.4826 * statistics.median(abs(x - usual) for x in self._seen)
            if value - usual > max(DEVIATIONS * spread, self._margin * abs(usual)):
                if not self._quiet:
                    spike = Spike(self._what, step, value, usual)
                self._quiet = WINDOW
        self._quiet = max(self._quiet - 1, 0)
        self._seen.append(value)
        return spike


class Spikes:
    """Loss and step time of a run; a new one for each phase, whose steps are of another kind."""

    def __init__(self) -> None:
        self._loss, self._time = Series("loss", 0.05), Series("step time", 1.0)
        self._times: list[float] = []
        self._before: float | None = None

    def clock(self, seconds: float) -> None:
        """The training seconds of this process so far, once a step."""
        if self._before is not None:
            self._times.append(seconds - self._before)
        self._before = seconds

    def look(self, step: int, losses: Iterable[float]) -> list[Spike]:
        """What begins among the steps before `step`, whose losses these are."""
        losses, times = list(losses), self._times
        self._times = []
        found = [self._loss.add(step - len(losses) + i, loss) for i, loss in enumerate(losses)]
        found += [self._time.add(step - len(times) + i, seconds) for i, seconds in enumerate(times)]
        return [spike for spike in found if spike is not None]
