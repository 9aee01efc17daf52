"""What the person at the terminal sees while a run goes on.

On a terminal one line that is redrawn; elsewhere plain lines without control characters, at most one in ten
seconds. Both show the same facts: step, loss, validation loss, tokens/s, step time, ETA, model FLOP/s, last save.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where the output is not a terminal."""


class Eta:
    """The time a run still takes, from what its parts took so far.

    Steps and evaluations are timed apart, because a run often begins with many steps and no evaluation. Saves
    run beside the steps and show in their time. Work is steps, or what else steps are alike in: where a run
    changes its length on the way, their FLOPs.
    """

    def __init__(self) -> None:
        self.work, self._seconds, self._evaluations, self._evaluation_seconds = 0.0, 0.0, 0, 0.0

    def stepped(self, work: float, seconds: float) -> None:
        """Steps of that much work took `seconds`, evaluations not counted."""
        self.work += work
        self._seconds += seconds

    def evaluated(self, seconds: float) -> None:
        self._evaluations += 1
        self._evaluation_seconds += seconds

    def seconds(self, work_left: float, evaluations_left: int) -> float | None:
        """None while nothing is known."""
        if not self.work:
            return None
        evaluation = self._evaluation_seconds / self._evaluations if self._evaluations else 0.0
        return work_left * self._seconds / self.work + evaluations_left * evaluation


class Progress:
    """Shows a run from `start` to `stop`; use it as a context manager.

    Args:
      start: the step that the run starts or resumes from; the bar begins there.
      stop: steps of the whole run.
      log: takes the lines that stay, and one in `interval`, for the log file.
      stream: where to write (standard output).
      interval: seconds between two plain lines.
      clock: seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        log: Callable[[str], None] = lambda text: None,
        stream: IO[str] | None = None,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.step, self._stop, self._interval, self._clock = start, stop, interval, clock
        self._stream = stream if stream is not None else sys.stdout
        self._log = log
        self._facts: dict[str, str] = {}
        self._phase: tuple[str, float] | None = None
        self._last_line, self._told = -float("inf"), True
        console = Console(file=self._stream)
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=4)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._phase = None
        if self._live:
            self._live.__exit__(None, None, None)
        if exception[0] is None:
            self._line(force=True)

    def phase(self, name: str | None) -> None:
        """What is going on other than stepping (`compiling`, `evaluating`), shown with its time; None ends it."""
        self._phase = (name, self._clock()) if name else None

    def update(self, step: int, **facts: str) -> None:
        """The step reached, and facts that replace earlier ones of the same name (`loss="3.21"`)."""
        self.step = step
        self._facts |= facts
        self._told = False
        self._line()

    def say(self, text: str) -> None:
        """A line that stays: for what must be seen, such as a skipped update or a failed save."""
        self._log(text)
        if self._live:
            self._live.console.print(Text(text))
        else:
            print(text, file=self._stream, flush=True)

    def _line(self, force: bool = False) -> None:
        now = self._clock()
        if not self._told and (force or now - self._last_line >= self._interval):
            self._last_line, self._told = now, True
            self._log(self._text())
            if self._live is None:
                print(self._text(), file=self._stream, flush=True)

    def _text(self) -> str:
        return "  ".join([f"step {self.step}/{self._stop}", *(f"{k} {v}" for k, v in self._facts.items())])

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        text = self._text()
        if self._phase:
            text += f"  [{self._phase[0]} {self._clock() - self._phase[1]:.0f} s]"
        table.add_row(
            ProgressBar(total=max(self._stop, 1), completed=self.step, width=16),
            Text(text, no_wrap=True, overflow="ellipsis"),
        )
        return table


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min, 2 d 5 h."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def quantity(number: float) -> str:
    """A count in three digits: 950, 12.3k, 4.57M, 1.2G, 3T."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5 or unit == "E":
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError
