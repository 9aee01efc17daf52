"""A finished corpus in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from t5x_like.data.documents import BESIDE_PAGES
from t5x_like.errors import Exit, UserError

DAMAGE = frozenset(
    {
        "broken_header",
        "content_length",
        "damaged",
        "decompression_bomb",
        "link_not_followed",
        "missing_file",
        "no_record",
        "truncated",
        "unreadable_file",
    }
)
"""Problems of files, not of single documents: part of the input could not be read, and nobody knows what was in it."""


_NEEDED = frozenset((
    "request", "arguments", "rules", "dataset", "input_files", "input_bytes", "funnel", "tokens_per_character",
    "problems", "splits", "tokens", "languages", "lengths", "clusters",
))  # fmt: skip
"""What corpus.json must have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a corpus holds and how it came about.

    Attributes:
      path: its folder.
      data: corpus.json.
      seconds: throughput.json.
      made_before: it was there already.
    """

    path: str
    data: dict[str, Any]
    seconds: dict[str, Any]
    made_before: bool = False

    @classmethod
    def open(cls, folder: Path, help: str = "a folder that python -m t5x_like.corpus made") -> Summary:
        """Of a finished corpus.

        Args:
          folder: where it is.
          help: what the error advises.

        Raises:
          UserError: the folder holds none, or a damaged one.
        """
        try:
            data = json.loads((folder / "corpus.json").read_bytes())
            seconds = json.loads((folder / "throughput.json").read_bytes())
            if data["format"] != "t5x_like corpus":
                raise ValueError("not of a corpus")
            for name in _NEEDED.difference(data) | {"steps", "wall", "workers"}.difference(seconds):
                raise KeyError(name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"corpus.json or throughput.json cannot be read ({error})",
                where=str(folder),
                help=help,
                code=Exit.BAD_DATA,
            ) from None
        return cls(path=str(folder), data=data, seconds=seconds)

    @property
    def documents(self) -> int:
        """Of all splits."""
        return sum(split["documents"] for split in self.data["splits"].values())

    @property
    def damage(self) -> dict[str, int]:
        """Problems of files: "kind action" -> count."""
        return {key: n for key, n in self.data["problems"].items() if key.split()[0] in DAMAGE}

    @property
    def code(self) -> Exit:
        """How the command ends: `DONE`; `PARTIAL` where part of the input could not be read; `BAD_DATA` where no
        document is left."""
        if not self.documents:
            return Exit.BAD_DATA
        return Exit.PARTIAL if self.damage else Exit.DONE

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"path": self.path, "made_before": self.made_before, "seconds": self.seconds, **self.data}

    def __str__(self) -> str:
        lines = []
        if self.made_before:
            lines.append(f"{self.path} is already made with these arguments; nothing to do")
        tokens = self.data["tokens_per_character"] is not None
        heading = "tokens" if self.data.get("tokens_counted") else "tokens, about"
        lines.append(f"{'':24}{'documents':>12}{'M characters':>14}" + (f"{heading:>16}" if tokens else ""))
        funnel = self.data["funnel"]
        lines.append(_row("read", funnel[0]["in"]))
        for row in funnel:
            lines.append(_row(row["step"], row["out"]))
            for reason, count in sorted(row["rejected"].items(), key=lambda item: -item[1]):
                lines.append(f"{'':24}{-count:>12,}  {reason.replace('_', ' ')}")
        for split, counts in self.data["splits"].items():
            exact = f"{counts['tokens']:>16,}" if "tokens" in counts else ""
            size = f"{counts['bytes'] / 1e6:,.2f} MB"
            lines.append(f"{split:24}{counts['documents']:>12,}{size:>14}{exact}")
        clusters = self.data["clusters"]
        if clusters["clusters"]:
            many = f"{clusters['clusters']:,} cluster{'s' * (clusters['clusters'] != 1)}"
            lines.append(f"{clusters['documents']:,} documents in {many} of near-duplicates")
        problems = sorted(self.data["problems"].items(), key=lambda item: -item[1])
        for heading, beside in (
            ("bad input (details: rejections.jsonl):", False),
            ("beside pages the crawl holds:", True),
        ):
            found = [(key.split(), n) for key, n in problems if (key.split()[0] in BESIDE_PAGES) == beside]
            lines += [heading] * bool(found)
            for (kind, action), count in found:
                lines.append(f"  {count:>10,}  {kind.replace('_', ' ')}, {action}")
        if self.damage:
            lines.append(
                "part of the input could not be read; everything else is here "
                f"(exit code {int(Exit.PARTIAL)})"
            )
        if not self.documents:
            lines.append("no document is left: samples.jsonl shows what was rejected, and why")
        if not self.made_before:
            lines.append(f"{self.path} written in {self.seconds['wall']:.1f} s")
        if self.data["splits"]["train"]["documents"]:
            lines.append("next: " + self._next())
        return "\n".join(lines)

    def _next(self) -> str:
        tokens = self.data["tokens"]
        if tokens:
            config, data = tokens["next_config"], f"{self.path}/tokens"
            return f"python -m t5x_like.train --config={config} --data={data} --workdir=runs/first"
        name = f"tfds:{self.data['dataset']}"
        held_out = ""
        if self.data["splits"]["validation"]["documents"]:
            held_out = f" --validation_input={name}:validation"
        return (
            f"python -m t5x_like.prepare --input={name}:train{held_out} --tfds_data_dir={self.path} "
            "--output=DIR --vocab_size=8192"
        )


def _row(name: str, counts: dict[str, int]) -> str:
    size = f"{counts['characters'] / 1e6:>14,.2f}"
    tokens = f"{counts['tokens']:>16,}" if "tokens" in counts else ""
    return f"{name:24}{counts['documents']:>12,}{size}{tokens}"
