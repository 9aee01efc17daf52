"""The rules by which MassiveText was chosen (Rae et al. 2021, appendix A.1), as FineWeb and others took them over."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from t5x_like.data.cleaning.base import Rejection, at_least, in_unit
from t5x_like.data.cleaning.characters import PUNCTUATION, Splitter, words
from t5x_like.data.documents import Document

_PARAGRAPH_BREAK, _LINE_BREAK = re.compile(r"\n{2,}"), re.compile(r"\n+")
_FIRST_TOP = 2  # words of the first of `top_ngrams`
_FIRST_DUPLICATE = 5  # and of `duplicate_ngrams`


@dataclasses.dataclass(frozen=True, kw_only=True)
class GopherQuality:
    """Rejects documents that are no running text: too short or long, odd words, symbols, lists, no function words.

    Attributes:
      min_words, max_words: that are more than punctuation.
      min_mean_length, max_mean_length: characters of these words, on average.
      max_symbols: `#`, and `...` with `…`, at most so many a word.
      max_bullets: share of lines that begin with `•` or `-`.
      max_ellipses: share of lines that end in `...` or `…`.
      min_letters: share of words, punctuation included, that have a letter.
      min_stop_words: how many of `stop_words` must be there.
      stop_words: looked for as they are written.
      splitter: what a word is.

    Reasons: `too_few_words`, `too_many_words`, `short_words`, `long_words`, `hashes`, `ellipses`, `bullets`,
    `line_ellipses`, `few_letters`, `few_stop_words`.

    Source: Gopher paper, table A1 and appendix A.1.1; datatrove/pipeline/filters/gopher_quality_filter.py.
    """

    name: ClassVar[str] = "gopher_quality"

    min_words: int = 50
    max_words: int = 100_000
    min_mean_length: float = 3
    max_mean_length: float = 10
    max_symbols: float = 0.1
    max_bullets: float = 0.9
    max_ellipses: float = 0.3
    min_letters: float = 0.8
    min_stop_words: int = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    splitter: Splitter = "tokens"

    def __post_init__(self) -> None:
        at_least(self, "min_words", 1)
        in_unit(self, "max_bullets", "max_ellipses", "min_letters")

    def __call__(self, document: Document) -> Document | Rejection:
        text = document.text
        found = words(text, self.splitter)
        lengths = [len(word) for word in found if not PUNCTUATION.issuperset(word)]
        reason = (
            self._words(found, lengths) or self._symbols(text, len(found)) or self._lines(text.splitlines())
        )
        if not reason and self.min_letters > 0:
            with_letters = sum(word.isalpha() or any(map(str.isalpha, word)) for word in found)
            if with_letters / len(found) < self.min_letters:
                reason = "few_letters"
        if not reason and len(set(self.stop_words).intersection(found)) < self.min_stop_words:
            reason = "few_stop_words"
        return Rejection(self.name, reason) if reason else document

    def _words(self, found: Sequence[str], lengths: Sequence[int]) -> str:
        if len(lengths) < self.min_words:
            return "too_few_words"
        if len(lengths) > self.max_words:
            return "too_many_words"
        mean = sum(lengths) / len(lengths)
        if mean < self.min_mean_length:
            return "short_words"
        return "long_words" if mean > self.max_mean_length else ""

    def _symbols(self, text: str, count: int) -> str:
        if text.count("#") / count > self.max_symbols:
            return "hashes"
        return "ellipses" if (text.count("...") + text.count("…")) / count > self.max_symbols else ""

    def _lines(self, lines: Sequence[str]) -> str:
        if sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines) > self.max_bullets:
            return "bullets"
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
        return "line_ellipses" if ellipses / len(lines) > self.max_ellipses else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GopherRepetition:
    """Rejects documents that repeat themselves: paragraphs, lines, the commonest phrase, any phrase.

    Attributes:
      max_paragraphs, max_paragraph_characters: share of paragraphs that were there before, and of their characters.
      max_lines, max_line_characters: the same of lines.
      top_ngrams: share of the characters in the commonest phrase of 2, 3, 4 ... words.
      duplicate_ngrams: share of the characters in phrases of 5, 6, 7 ... words that were there before.
      splitter: what a word is.

    Reasons: `empty`, `paragraphs`, `paragraph_characters`, `lines`, `line_characters`, `top_2gram` and so on,
    `duplicate_5grams` and so on.

    Source: Gopher paper, table A1; datatrove/pipeline/filters/gopher_repetition_filter.py.
    """

    name: ClassVar[str] = "gopher_repetition"

    max_paragraphs: float = 0.3
    max_paragraph_characters: float = 0.2
    max_lines: float = 0.3
    max_line_characters: float = 0.2
    top_ngrams: tuple[float, ...] = (0.2, 0.18, 0.16)
    duplicate_ngrams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    splitter: Splitter = "tokens"

    def __post_init__(self) -> None:
        in_unit(self, "max_paragraphs", "max_paragraph_characters", "max_lines", "max_line_characters")

    def __call__(self, document: Document) -> Document | Rejection:
        reason = self._reason(document.text)
        return Rejection(self.name, reason) if reason else document

    def _reason(self, text: str) -> str:
        if not text:
            return "empty"
        parts = _PARAGRAPH_BREAK.split(text.strip())
        share, characters = duplicated(parts)
        if share > self.max_paragraphs:
            return "paragraphs"
        if characters / len(text) > self.max_paragraph_characters:
            return "paragraph_characters"
        share, characters = duplicated(_LINE_BREAK.split(text))
        if share > self.max_lines:
            return "lines"
        if characters / len(text) > self.max_line_characters:
            return "line_characters"
        found = words(text, self.splitter)
        for n, limit in enumerate(self.top_ngrams, _FIRST_TOP):
            if _commonest(found, n) / len(text) > limit:
                return f"top_{n}gram"
        ends = list(itertools.accumulate(map(len, found), initial=0))
        joined = "".join(found)
        for n, limit in enumerate(self.duplicate_ngrams, _FIRST_DUPLICATE):
            if _repeated(joined, ends, n) / len(text) > limit:
                return f"duplicate_{n}grams"
        return ""


def duplicated(parts: Sequence[str]) -> tuple[float, int]:
    """Share of the parts that were there before, and how many characters these have."""
    once = set(parts)
    if len(once) == len(parts):
        return 0.0, 0
    return (len(parts) - len(once)) / len(parts), sum(map(len, parts)) - sum(map(len, once))


def _commonest(found: Sequence[str], n: int) -> int:
    """Characters in all places of the commonest phrase of n words, the first of equally common ones."""
    counts = Counter(zip(*(found[i:] for i in range(n))))
    if not counts:
        return 0
    phrase = max(counts, key=counts.__getitem__)
    return (sum(map(len, phrase)) + n - 1) * counts[phrase]


def _repeated(joined: str, ends: Sequence[int], n: int) -> int:
    """Characters in phrases of n words that were there before; phrases do not overlap.

    Args:
      joined: the words without anything between them.
      ends: where each word begins, and where the last one ends.
    """
    phrases = [joined[begin:end] for begin, end in zip(ends, ends[n:])]
    if len(set(phrases)) == len(phrases):
        return 0
    seen: set[str] = set()
    place = characters = 0
    while place < len(phrases):
        phrase = phrases[place]
        if phrase in seen:
            characters += len(phrase)
            place += n
        else:
            seen.add(phrase)
            place += 1
    return characters
