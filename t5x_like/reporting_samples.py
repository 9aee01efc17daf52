"""What a model did with held-out text, as rows of a report: blanks filled, words found that do not belong there."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5x_like.errors import Exit, UserError

_BLANK = re.compile(r"<extra_id_\d+>|\[MASK\]|<mask>")
_LEGEND = (
    "<p class=quiet>Some words were swapped for others. Marked: as many of the words that the discriminator suspects "
    "most, <mark>rightly</mark> or <mark class=wrong>wrongly</mark>; <u>underlined</u>: swapped words that are not "
    "among them.</p>"
)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a samples.jsonl, which `infer` wrote; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        samples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        section(samples)  # what cannot be shown is said here
        return samples
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
        raise UserError(f"cannot read {path.name}: {e}", where=str(path), code=Exit.BAD_DATA) from None


def section(samples: Sequence[dict[str, Any]]) -> str:
    """HTML of a part of the report, by what the records hold; "" for none that it knows."""
    blanks = [_filled_row(s) for s in samples if "originals" in s and ("spans" in s or "blanks" in s)]
    words = [_words_row(s) for s in samples if "swapped" in s and "words" in s]
    out = ""
    if blanks:
        out += "<h2>Blanks filled in held-out sentences</h2><table><tr><th>model</th><th>original</th></tr>"
        out += "".join(blanks) + "</table>"
    if words:
        found = detections(samples)
        out += "<h2>Swapped words in held-out sentences</h2>" + _LEGEND
        out += (
            f"<p>{found['found']} of {found['swapped']} swapped words are among the most suspected; by chance it would "
            f"be {found['chance']:.1f}</p>"
        )
        out += "<table><tr><th>what the model read</th><th>original of what was swapped</th></tr>"
        out += "".join(words) + "</table>"
    return out


def detections(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over all samples with swapped words: how many were `swapped`, how many of these are `found` among as many of the
    most suspected words of their sample, and how many would be by `chance`.

    A model that has just begun to learn gives no word a probability above one half, but it has an order of them.
    """
    totals = {"swapped": 0, "found": 0, "chance": 0.0}
    for sample in samples:
        if "swapped" in sample and "words" in sample:
            suspects = _suspects(sample)
            swapped = {int(i) for i in sample["swapped"]}
            totals["swapped"] += len(swapped)
            totals["found"] += len(suspects & swapped)
            totals["chance"] += len(suspects) * len(swapped) / max(len(sample["words"]), 1)
    return totals


def _suspects(sample: dict[str, Any]) -> set[int]:
    """As many words as were swapped, of the highest probability."""
    order = sorted(range(len(sample["words"])), key=lambda i: -sample["words"][i]["probability"])
    return set(order[: len(sample["swapped"])])


def _filled_row(sample: dict[str, Any]) -> str:
    if "spans" in sample:
        answers = [(span or "", "") for span in sample["spans"]]
    else:
        answers = [
            (blank[0]["text"], ", ".join(f"{c['text']} {c['probability']:.0%}" for c in blank))
            for blank in sample["blanks"]
        ]
    originals = [(text, "") for text in sample["originals"]]
    return f"<tr><td>{_insert(sample['inputs'], answers)}</td><td>{_insert(sample['inputs'], originals)}</td></tr>"


def _insert(text: str, answers: Sequence[tuple[str, str]]) -> str:
    """The text with marked answers in its blanks; the second of a pair is shown by a mouse that rests there."""
    parts = _BLANK.split(text)
    out = printable(parts[0])
    for i, part in enumerate(parts[1:]):
        answer, more = answers[i] if i < len(answers) else ("", "")
        title = f' title="{printable(more)}"' if more else ""
        out += f"<mark{title}>{printable(answer) or '&nbsp;'}</mark>{printable(part)}"
    return out


def _words_row(sample: dict[str, Any]) -> str:
    suspects, swapped = _suspects(sample), {int(i): text for i, text in sample["swapped"].items()}
    words = []
    for i, word in enumerate(sample["words"]):
        text, title = printable(word["text"]), f' title="{word["probability"]:.0%}"'
        if i in suspects:
            words.append(f"<mark{'' if i in swapped else ' class=wrong'}{title}>{text}</mark>")
        else:
            words.append(f"<u{title}>{text}</u>" if i in swapped else text)
    read = [str(word["text"]) for word in sample["words"]]
    pairs = [f"{read[i]} for {text}" for i, text in sorted(swapped.items()) if i < len(read)]
    return f"<tr><td>{' '.join(words)}</td><td>{printable('; '.join(pairs))}</td></tr>"


def printable(text: str) -> str:
    """Escaped for HTML, without control characters (a terminal escape in the corpus stays harmless)."""
    return html.escape(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )
