"""Where the wall time of a run goes: every second into one kind, restarts included, without any service.

Within a process one kind runs at any moment (`Ledger`), so its kinds add up to the time that has passed. A `clock`
line of events.jsonl holds them now and then; from these lines alone `account` adds up all processes that worked on
the run: what the next one had to do again is `lost`, and the time in which nobody worked is `down`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from t5x_like.training.progress import duration

KINDS = {
    "train": "training steps",
    "input_wait": "waiting for a batch, the device idle",
    "start": "opening data, restoring, describing",
    "compile": "compiling",
    "checkpoint": "saving, as far as steps waited for it",
    "evaluation": "validation",
    "lost": "work done again after a restart",
    "down": "between processes, their start included",
    "other": "other",
}
"""Every kind of second, and what it is for people."""

_OUTSIDE = ("lost", "down")
"""Kinds that no process spends itself."""

INTERVAL = 60.0
"""Seconds between two `clock` lines; what a kill leaves unrecorded counts as `down`."""


class Ledger:
    """The seconds of this process by kind, from now on.

    Args:
      clock: seconds, monotonic; now: seconds since 1970. Both are replaced in tests.

    Attributes:
      began: seconds since 1970.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self.began = now()
        self._clock, self._kind, self._since = clock, "start", clock()
        self._seconds = dict.fromkeys((kind for kind in KINDS if kind not in _OUTSIDE), 0.0)

    def switch(self, kind: str) -> str:
        """The seconds from now on are of this kind; returns the kind before."""
        now, before = self._clock(), self._kind
        self._seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        before = self.switch(kind)
        try:
            yield
        finally:
            self.switch(before)

    def move(self, seconds: float, source: str, target: str) -> None:
        """Seconds that went to one kind turn out to be of another."""
        self.switch(self._kind)
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    @property
    def stepping(self) -> float:
        """Seconds in steps and waiting for their batches, up to now."""
        seconds = self.seconds()
        return seconds["train"] + seconds["input_wait"]

    def seconds(self) -> dict[str, float]:
        """By kind, up to now."""
        self.switch(self._kind)
        return dict(self._seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """The wall time of a run, from the start of its first process to the last line of its last one.

    Attributes:
      seconds: by kind; their sum is the wall time.
      processes: that worked on it.
    """

    seconds: Mapping[str, float]
    processes: int

    @property
    def wall(self) -> float:
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the wall time that went into steps that count."""
        return self.seconds["train"] / self.wall if self.wall else 0.0

    def metrics(self) -> dict[str, float]:
        """For metrics.jsonl."""
        by_kind = {f"{kind}_seconds": value for kind, value in self.seconds.items()}
        return {"goodput": self.goodput, "wall_seconds": self.wall, "processes": self.processes, **by_kind}

    def summary(self) -> str:
        """One line: the wall time, and the share of each kind that has a share."""
        shares = {kind: value / self.wall for kind, value in self.seconds.items() if self.wall}
        told = [f"{kind.replace('_', ' ')} {share:.1%}" for kind, share in shares.items() if share >= 0.0005]
        many = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{duration(self.wall)}{many}: {', '.join(told)}"


class Goodput:
    """The account of a run while one process works on it.

    Args:
      ledger: of this process.
      events: earlier lines of events.jsonl.
      start: the step that this process starts from.
    """

    def __init__(self, ledger: Ledger, events: Iterable[Mapping[str, Any]], start: int):
        self._ledger, self._start = ledger, start
        self._before = [event for event in events if event.get("event") == "clock"]
        self._written = -float("inf")

    def due(self) -> bool:
        """Whether the last `clock` line is older than `INTERVAL`."""
        return sum(self._ledger.seconds().values()) - self._written >= INTERVAL

    def line(self, step: int) -> dict[str, Any]:
        """The fields of a `clock` line: steps done so far, and the seconds of this process."""
        seconds = self._ledger.seconds()
        self._written = sum(seconds.values())
        rounded = {kind: round(value, 6) for kind, value in seconds.items()}
        went_before = len(self._before)  # tells apart what one process begins several times, going back
        return {
            "step": step,
            "start": self._start,
            "began": self._ledger.began,
            "went_before": went_before,
            "seconds": rounded,
        }

    def account(self, step: int) -> Account:
        """Up to now, earlier processes included."""
        return account([*self._before, {"event": "clock", **self.line(step)}])


def account(events: Iterable[Mapping[str, Any]]) -> Account:
    """Adds up the `clock` lines of a run, in the order in which they were written.

    A process that starts from step s makes everything useless that was done after the last line with at most s
    steps; a line that is cut off or of another make is passed over.
    """
    total = dict.fromkeys(KINDS, 0.0)
    marks: list[tuple[int, dict[str, float]]] = []  # totals whenever a line was written
    base, attempt, ended, processes = dict(total), (0.0, -1), 0.0, 0
    spent: dict[str, float] = dict.fromkeys(KINDS, 0.0)  # of the process, up to its last line
    for event in events:
        try:
            step, start, began = int(event["step"]), int(event["start"]), float(event["began"])
            seconds = {kind: float(event["seconds"][kind]) for kind in KINDS if kind not in _OUTSIDE}
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if event.get("event") != "clock" or not math.isfinite(began + sum(seconds.values())):
            continue
        if attempt != (began, event.get("went_before")):
            if processes:
                total["down"] += max(began - ended, 0.0)
                while len(marks) > 1 and marks[-1][0] > start:
                    marks.pop()
                for kind in seconds:
                    total["lost"] += total[kind] - marks[-1][1][kind]
                    total[kind] = marks[-1][1][kind]
            if began != attempt[0]:
                processes, spent = processes + 1, dict.fromkeys(KINDS, 0.0)
            base = {kind: total[kind] - spent[kind] for kind in KINDS}
            attempt = began, event.get("went_before")
        total |= {kind: base[kind] + seconds[kind] for kind in seconds}
        ended, spent = began + sum(seconds.values()), dict.fromkeys(KINDS, 0.0) | seconds
        marks.append((step, dict(total)))
    return Account(seconds=total, processes=processes)
