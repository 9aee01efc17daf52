"""The rules that RefinedWeb and FineWeb added (Penedo et al. 2023; Penedo et al. 2024)."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from t5x_like.data.cleaning.base import Rejection, at_least, in_unit
from t5x_like.data.cleaning.characters import TERMINAL, Splitter, words
from t5x_like.data.cleaning.gopher import duplicated
from t5x_like.data.documents import Document

_ENDS = tuple(sorted(TERMINAL))
_COUNTER = re.compile(
    r"\d[\d.,]*[kKmM]?\s*(?:likes?|shares?|comments?|views?|replies|reply|retweets?|followers?|votes?)\W*",
    re.I,
)
_BEGINS = ("sign in", "sign-in", "log in", "login", "sign up", "skip to")
_CLOSES = ("read more", "read more...", "read more…", "see more", "show more", "continue reading")
_HOLDS = ("items in cart", "item in cart", "items in your cart", "add to cart")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineWebQuality:
    """Rejects lists and boilerplate: few lines that end as sentences do, short lines, repeated lines, many lines.

    Attributes:
      min_ended_lines: share of the lines, empty ones left out, that end in a mark that ends sentences.
      max_short_lines: share of the lines that are short.
      short: characters of a short line, at most.
      max_repeated_characters: share of the characters in lines that were there before.
      max_line_breaks: line breaks a word.
      splitter: what a word is.

    Reasons: `empty`, `ended_lines`, `short_lines`, `repeated_lines`, `line_breaks`.

    Source: FineWeb paper, section 3.6; datatrove/pipeline/filters/fineweb_quality_filter.py.
    """

    name: ClassVar[str] = "fineweb_quality"

    min_ended_lines: float = 0.12
    max_short_lines: float = 0.67
    short: int = 30
    max_repeated_characters: float = 0.01
    max_line_breaks: float = 0.3
    splitter: Splitter = "tokens"

    def __post_init__(self) -> None:
        in_unit(self, "min_ended_lines", "max_short_lines", "max_repeated_characters")

    def __call__(self, document: Document) -> Document | Rejection:
        reason = self._reason(document.text)
        return Rejection(self.name, reason) if reason else document

    def _reason(self, text: str) -> str:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return "empty"
        if sum(line.endswith(_ENDS) for line in lines) / len(lines) < self.min_ended_lines:
            return "ended_lines"
        if sum(len(line) <= self.short for line in lines) / len(lines) > self.max_short_lines:
            return "short_lines"
        breaks = text.count("\n")
        if duplicated(lines)[1] / (len(text) - breaks) > self.max_repeated_characters:
            return "repeated_lines"
        return "line_breaks" if breaks / len(words(text, self.splitter)) > self.max_line_breaks else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedWebLines:
    """Takes out lines that are no text, and rejects documents that lose too much by it.

    A line goes if it is mostly capitals, a number, a counter such as `3 likes`, or a single word; a short one also if
    it begins with an invitation to sign in or speaks of a cart; `read more` goes from the end of one.

    The paper names the kinds of lines and one example of each; it does not publish its patterns, so these here are our
    own reading, and there is nothing to compare them with.

    Attributes:
      max_words_lost: share of the words in lines that go or are cut; above it the document is rejected.
      short: words of a line that is looked at for invitations, at most.

    Reasons: `lost_words`, `empty`.

    Source: RefinedWeb paper, section 3.2 and appendix G.2.
    """

    name: ClassVar[str] = "refinedweb_lines"

    max_words_lost: float = 0.05
    short: int = 10

    def __post_init__(self) -> None:
        in_unit(self, "max_words_lost")
        at_least(self, "short", 1)

    def __call__(self, document: Document) -> Document | Rejection:
        kept, lost, total = [], 0, 0
        for line in document.text.split("\n"):
            if count := len(line.split()):
                left = self._left_of(line, count)
                total += count
                lost += count * (left != line)
                if not left:
                    continue
                line = left
            kept.append(line)
        if total and lost / total > self.max_words_lost:
            return Rejection(self.name, "lost_words", f"{lost} of {total} words")
        text = "\n".join(kept).strip()
        if not text:
            return Rejection(self.name, "empty")
        return dataclasses.replace(document, text=text) if lost else document

    def _left_of(self, line: str, count: int) -> str:
        """What stays of a line of `count` words."""
        bare = line.strip()
        letters = sum(map(str.isalpha, bare))
        if count == 1 or not letters or 2 * sum(map(str.isupper, bare)) > letters or _COUNTER.fullmatch(bare):
            return ""
        if count <= self.short:
            small = bare.lower()
            if small.startswith(_BEGINS) or any(phrase in small for phrase in _HOLDS):
                return ""
            if small.endswith(_CLOSES) and len(small) == len(bare):
                longest = max((phrase for phrase in _CLOSES if small.endswith(phrase)), key=len)
                return bare[: -len(longest)].rstrip()
        return line
