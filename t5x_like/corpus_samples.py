"""Documents of a corpus for eyeballing: what was kept, what a rule took out of a text, what was rejected, and clusters.

Text of a corpus is hostile: whatever is shown goes through `visible`, so that it can neither move a terminal's cursor
nor turn a line around; HTML is escaped where it is made.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from t5x_like.data.corpus.tally import SHOWN
from t5x_like.errors import Exit, UserError

# Controls but for line ends and tabs; line and paragraph separators; marks that change the direction of writing;
# private use is harmless, lone surrogates cannot be printed.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
Fate = Literal["kept", "removed", "new"]
Line = tuple[Fate, str]


def visible(text: Any) -> str:
    """Text without anything that is not seen but acts; each such character becomes U+FFFD."""
    return _INVISIBLE.sub("�", str(text))


@dataclasses.dataclass(frozen=True)
class Sample:
    """A document to look at.

    Attributes:
      title: where it came from, in a line.
      lines: (what became of it, line) pairs, in order; of a document that no rule changed all are `kept`.
      more: characters that are not shown.
    """

    title: str
    lines: tuple[Line, ...]
    more: int = 0


@dataclasses.dataclass(frozen=True)
class Group:
    """Samples of one kind: `kept`; `changed` by a step; `rejected` by a step for a reason; near-duplicates of a
    `cluster`."""

    kind: str
    title: str
    samples: tuple[Sample, ...]


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of OUTPUT/samples.jsonl.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / "samples.jsonl"
    try:
        with path.open(encoding="utf-8", newline="\n") as file:  # U+2028 and U+0085 end no line of JSON
            records = [json.loads(line) for line in file]
        for record in records:
            if not all(name in record for name in (*_SHOWN, *_KEYS[record["kind"]])):
                raise ValueError("a sample lacks a field")
        return records
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path.name}: {error}",
            where=str(path),
            help="a folder that python -m t5x_like.corpus made",
            code=Exit.BAD_DATA,
        ) from None


def groups(records: Sequence[dict[str, Any]], most: int) -> list[Group]:
    """The samples by what happened to them, at most `most` of each; the choice is the same every time."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in _KEYS}
    for record in records:
        key = " ".join(str(record[name]) for name in _KEYS[record["kind"]])
        found[record["kind"]].setdefault(key, []).append(record)
    return [
        Group(kind, _title(some[0]), tuple(map(_sample, some[:most])))
        for kind, by_key in found.items()
        for some in sorted(by_key.values(), key=_place)[: most if kind == "cluster" else None]
    ]


def _place(some: list[dict[str, Any]]) -> bool:
    """Steps have numbers but for the first, which finds the text."""
    return some[0].get("step", "extract") != "extract"


_KEYS = {"kept": (), "changed": ("step",), "rejected": ("step", "reason"), "cluster": ("cluster",)}
"""What samples of a group have in common, by kind."""
_SHOWN = ("kind", "text", "characters", "url", "timestamp", "source", "position", "language")
"""What every sample has."""


def _title(record: dict[str, Any]) -> str:
    if record["kind"] == "rejected":
        return f"{record['step']}: {record['reason'].replace('_', ' ')}"
    if record["kind"] == "cluster":
        return f"{record['size']:,} documents alike"
    return record.get("step", "kept")


def _sample(record: dict[str, Any]) -> Sample:
    text = record["text"]
    place = f"{record['source']} at {record['position']:,}" if record["source"] else ""
    known = [record["url"], record["timestamp"], record["language"], place]
    known.append(f"{record['characters']:,} characters")
    if record.get("detail"):
        known.append(record["detail"])
    title = visible(", ".join(each for each in known if each).replace("\n", " ").replace("\t", " "))
    if "before" in record:
        lines = [(fate, visible(line)) for fate, line in removed(record["before"], text)]
    else:
        lines: list[Line] = [("kept", visible(line)) for line in text.split("\n")]
    return Sample(title, tuple(lines), max(record["characters"] - len(text), 0))


def removed(before: str, after: str) -> Iterator[Line]:
    """Line by line what a step took away and what it put in its place.

    Both may be cut at `SHOWN` characters. What stands behind the last line that they have in common is not told from
    what the cut took, and is left out.
    """
    old, new = ([line.strip() for line in text.split("\n")] for text in (before, after))
    if len(before) >= SHOWN:
        del old[-1:]
    if len(after) >= SHOWN:
        del new[-1:]
    cut = len(before) >= SHOWN or len(after) >= SHOWN
    steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    if cut and len(steps) > 1 and steps[-1][0] != "equal":
        del steps[-1]
    for kind, a, b, c, d in steps:
        for line in filter(None, old[a:b]):
            yield ("kept" if kind == "equal" else "removed"), line
        for line in filter(None, new[c:d] if kind != "equal" else ()):
            yield "new", line


_STYLES = {"kept": "", "removed": "red strike", "new": "green"}
MARKS = {"kept": " ", "removed": "-", "new": "+"}
_LINES = 24
"""Lines of a sample that a terminal gets."""


def to_terminal(found: Sequence[Group], title: str, console: Console) -> None:
    """Prints the samples; without colours the marks in front of the lines say the same."""

    def put(text: Text | str = "") -> None:
        console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=not console.is_terminal)

    put(Text(visible(title), "bold"))
    for group in found:
        put()
        head = group.title if group.kind == "kept" else f"{group.kind}: {group.title}"
        put(Text(visible(head), "bold reverse"))
        for sample in group.samples:
            put()
            put(Text(sample.title, "bold"))
            for fate, line in sample.lines[:_LINES]:
                put(Text(f"{MARKS[fate]} {line}", _STYLES[fate]))
            if len(sample.lines) > _LINES or sample.more:
                put(Text("  ...", "dim"))
