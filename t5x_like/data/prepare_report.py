"""What `prepare` shows: progress while it works, a summary at its end."""

from __future__ import annotations

import dataclasses
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where the output is not a terminal."""


class Progress:
    """A bar on a terminal; elsewhere plain lines without control characters, at most one in ten seconds.

    Args:
      total: stored bytes of all files.
      quiet: show nothing.
    """

    def __init__(self, total: int, *, quiet: bool = False):
        self._total, self._quiet, self._done, self._stage = max(total, 1), quiet, 0, ""
        self._last = self._started = time.monotonic()
        self._bar: Bar | None = None
        if not quiet and sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """What is being done now; with `total`, it is counted anew from nothing to that."""
        self._stage = name
        if total is not None:
            self._total, self._done, self._started = max(total, 1), 0, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, description=name, total=self._total, completed=self._done)
        self._line()

    def advance(self, size: int) -> None:
        """`size` more stored bytes are done."""
        self._done += size
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        self._line()

    def _line(self) -> None:
        now = time.monotonic()
        if self._quiet or self._bar is not None or now - self._last < PLAIN_INTERVAL:
            return
        self._last = now
        share = self._done / self._total
        left = f", {(now - self._started) * (1 - share) / share:.0f} s left" if 0 < share < 1 else ""
        print(f"{self._stage}: {100 * share:.0f} %{left}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a token dataset holds and how it came about.

    Attributes:
      path: its folder.
      fingerprint: of its content.
      vocab_size: ids, sentinels included.
      next_config: a configuration that fits the tokenizer.
      splits: split -> documents, tokens, bytes of text, unknown tokens.
      problems: "kind action" -> count.
      made_before: it was there already.
      seconds: that making it took.
    """

    path: str
    fingerprint: str
    vocab_size: int
    next_config: str
    splits: dict[str, dict[str, int]]
    problems: dict[str, int]
    made_before: bool = False
    seconds: float = 0.0

    @property
    def total(self) -> dict[str, int]:
        """Sums over the splits."""
        return {
            key: sum(split[key] for split in self.splits.values())
            for key in ("documents", "tokens", "bytes", "unknown")
        }

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        total = self.total
        tokens = max(total["tokens"], 1)
        lines = []
        if self.made_before:
            lines.append(f"{self.path} is already prepared with these arguments; nothing to do")
        lines += [
            f"{'':12}{'documents':>12}{'tokens':>16}{'MB of text':>12}",
            *(
                f"{name:12}{split['documents']:>12,}{split['tokens']:>16,}{split['bytes'] / 1e6:>12,.1f}"
                for name, split in self.splits.items()
            ),
            f"{tokens / max(total['documents'], 1):,.0f} tokens a document, "
            f"{total['bytes'] / tokens:.2f} bytes a token, {total['unknown'] / tokens:.4%} unknown, "
            f"vocabulary {self.vocab_size:,}",
        ]
        if self.problems:
            lines.append("bad input (details: rejections.jsonl in the dataset):")
            for name, count in sorted(self.problems.items(), key=lambda item: -item[1]):
                kind, action = name.split()
                lines.append(f"  {count:>10,}  {kind.replace('_', ' ')}, {action}")
        if not self.splits.get("validation", {}).get("documents", 1):
            lines.append(
                "the validation split is empty: give more documents or a larger --validation_fraction"
            )
        if not self.made_before:
            lines.append(f"{self.path} written in {self.seconds:.1f} s")
        lines.append(
            f"next: python -m t5x_like.train --config={self.next_config} --data={self.path} --workdir=runs/first"
        )
        return "\n".join(lines)
