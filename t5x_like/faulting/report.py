"""What came of a fault: rows, as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row of the battery.

    Attributes:
      injected: what was done, and how often.
      outcome: what was seen.
      verdict: `holds`; `fails` where what was seen is not what must be; `skipped` where this machine cannot.
      figures: numbers behind the words.
    """

    injected: str
    outcome: str
    verdict: Literal["holds", "fails", "skipped"]
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


def judged(injected: str, outcome: str, failures: list[str], **figures: Any) -> Outcome:
    """`holds` with `outcome`, or `fails` with the first of the failures."""
    if not failures:
        return Outcome(injected=injected, outcome=outcome, verdict="holds", figures=figures)
    figures["failures"] = failures
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return Outcome(injected=injected, outcome=failures[0] + more, verdict="fails", figures=figures)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: id, fault, injected, outcome, verdict of each row of faults.json."""
    names = ("id", "fault", "injected", "outcome", "verdict")
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for row in rows:
        lines.append(
            "| " + " | ".join(" ".join(row[name].split()).replace("|", "\\|") for name in names) + " |"
        )
    return "\n".join(lines)
