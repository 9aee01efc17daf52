"""The rules by which C4 was made of web pages (Raffel et al. 2020, section 2.2).

The paper and the code that made the published corpus (tensorflow_datasets/text/c4_utils.py) do not say the same.
The defaults are the code's, version 3.1.0; what differs is a named option, with the paper's value beside it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from t5x_like.data.cleaning.base import Rejection, at_least
from t5x_like.data.cleaning.punkt import count_sentences, has_sentences
from t5x_like.data.documents import Document

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_PHRASES = ("lorem ipsum", "javascript", *POLICIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class C4Clean:
    """Keeps the lines of a page that are sentences, and the pages that are prose.

    A line stays if it ends in an end mark, has enough words, none of them absurdly long, and speaks neither of
    JavaScript nor of cookies and terms of use. Citation marks as of Wikipedia are taken out before. A page goes if a
    line holds a curly bracket or "lorem ipsum", or if fewer than `min_sentences` are left.

    Attributes:
      end_marks: what a line must end in; empty where any line will do (as FineWeb has it). The paper also speaks of
        end quotation marks: `.`, `!`, `?`, `"`, `”`.
      ellipsis: whether `...` ends a line; the paper makes no exception of it (True).
      min_words: words in a line, at least.
      words_before_citations: whether words are counted before citation marks are taken out, as datatrove does.
      max_word_length: characters; a line with a longer word goes. Not in the paper.
      min_sentences: in what is left of a page; the sum over its lines.
      whole_page: whether `{` and "lorem ipsum" anywhere on the page count, as the paper has it (True), or only in
        lines that pass the tests before, so that braces in menus and code do no harm.

    Reasons: `lorem_ipsum`, `curly_bracket`, `too_few_sentences`.

    Source: tensorflow_datasets/text/c4_utils.py, `clean_page`. Early versions of the paper, and datatrove, have 3
    words in a line and 5 sentences.
    """

    name: ClassVar[str] = "c4_clean"

    end_marks: tuple[str, ...] = (".", "?", "!", '"')
    ellipsis: bool = False
    min_words: int = 5
    words_before_citations: bool = False
    max_word_length: int = 1000
    min_sentences: int = 3
    whole_page: bool = False

    def __post_init__(self) -> None:
        at_least(self, "min_words", 1)
        at_least(self, "max_word_length", 1)
        at_least(self, "min_sentences", 0)

    def __call__(self, document: Document) -> Document | Rejection:
        text = document.text
        if self.whole_page:
            if "{" in text:
                return Rejection(self.name, "curly_bracket")
            if "lorem ipsum" in text.lower():
                return Rejection(self.name, "lorem_ipsum")
        kept = self._sentence_lines(text)
        cleaned = "\n".join(kept)
        small = cleaned.lower()
        if "{" in cleaned or any(phrase in small for phrase in _PHRASES):
            found = self._harmless_lines(kept)
            if isinstance(found, Rejection):
                return found
            kept, cleaned = found, "\n".join(found)
        # A line is a sentence or more, unless it was nothing but citation marks.
        sure = sum(map(bool, map(str.strip, kept))) if self.words_before_citations else len(kept)
        if sure < self.min_sentences and sum(map(count_sentences, kept)) < self.min_sentences:
            return Rejection(self.name, "too_few_sentences")
        cleaned = cleaned.strip()
        return document if cleaned == text else dataclasses.replace(document, text=cleaned)

    def _sentence_lines(self, text: str) -> list[str]:
        """Lines that end as sentences do, with enough words of bearable length, without their citation marks."""
        marks, few, longest = self.end_marks, self.min_words - 1, self.max_word_length
        lines = filter(None, map(str.strip, text.splitlines()))
        if "[" in text:
            pairs = [(line, _CITATION.sub("", line) if "[" in line else line) for line in lines]
            pairs = [pair for pair in pairs if not marks or pair[1].endswith(marks)]
        else:
            pairs = [(line, line) for line in lines if not marks or line.endswith(marks)]
        return [
            line
            for before, line in pairs
            if (self.ellipsis or not marks or not line.endswith("..."))
            and len((before if self.words_before_citations else line).split(None, few)) > few
            and (len(before) <= longest or max(map(len, before.split())) <= longest)
        ]

    def _harmless_lines(self, lines: list[str]) -> list[str] | Rejection:
        """Lines without JavaScript and policies, or why the page goes; the first line that says so decides."""
        kept = []
        for line in lines:
            small = line.lower()
            if "lorem ipsum" in small:
                return Rejection(self.name, "lorem_ipsum", line)
            if "javascript" in small:
                continue
            if "{" in line:
                return Rejection(self.name, "curly_bracket", line)
            if not any(phrase in small for phrase in POLICIES):
                kept.append(line)
        return kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxLength:
    """Rejects long pages: C4's first step. Not in the paper.

    Attributes:
      characters: of a page, at most.

    Reason: `too_long`. Source: c4_utils.py, `is_valid_length`.
    """

    name: ClassVar[str] = "max_length"

    characters: int = 190_000

    def __post_init__(self) -> None:
        at_least(self, "characters", 1)

    def __call__(self, document: Document) -> Document | Rejection:
        if len(document.text) > self.characters:
            return Rejection(self.name, "too_long", f"{len(document.text)} characters")
        return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinSentences:
    """Rejects pages with few sentences: C4 asks again when lines that stand elsewhere are gone.

    Attributes:
      sentences: of the whole text, at least; lines do not end sentences here.

    Reason: `too_few_sentences`. Source: c4_utils.py, `_remove_lines_from_text`.
    """

    name: ClassVar[str] = "min_sentences"

    sentences: int = 3

    def __post_init__(self) -> None:
        at_least(self, "sentences", 1)

    def __call__(self, document: Document) -> Document | Rejection:
        if not has_sentences(document.text, self.sentences):
            return Rejection(self.name, "too_few_sentences")
        return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongLines:
    """mC4's rule instead of end marks: a page has `lines` lines of `characters` characters, or goes.

    The mT5 paper (section 3.1) says three lines of 200 characters and more.

    Reason: `too_few_long_lines`. Source: c4_utils.py, `paragraph_filter`.
    """

    name: ClassVar[str] = "long_lines"

    lines: int = 3
    characters: int = 200

    def __post_init__(self) -> None:
        at_least(self, "lines", 1)
        at_least(self, "characters", 0)

    def __call__(self, document: Document) -> Document | Rejection:
        wanted = self.lines
        if len(document.text) < wanted * self.characters + wanted - 1:
            return Rejection(self.name, "too_few_long_lines")
        for line in document.text.split("\n"):
            if len(line) >= self.characters:
                wanted -= 1
                if not wanted:
                    return document
        return Rejection(self.name, "too_few_long_lines")
