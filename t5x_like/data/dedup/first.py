"""Comparisons in which one document of several keeps what they share: by address, by text, by line, by sentences."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import ClassVar

from t5x_like.data import urls
from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.base import Entry, Round, Said, Verdict, key
from t5x_like.data.documents import Document


def _losers(said: Iterable[Said]) -> Iterable[int]:
    """Everybody but the one with the smallest value, the earliest of equals. Goes through `said` twice and keeps
    nothing of it."""
    winner = min((value, number) for number, value in said)[1]
    return (number for number, _ in said if number != winner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateURLs:
    """Of pages with one address the newest stays; of equally new ones the first of the input.

    Addresses are compared as C4 does (data/urls.py). Documents without address are left alone.

    Source: tensorflow_datasets/text/c4_utils.py, `select_newest_page` (3.1.0).
    """

    name: ClassVar[str] = "duplicate_urls"

    @property
    def rounds(self) -> tuple[Round, ...]:
        return (self,)

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        if document.url:
            # Timestamps of one format compare as text does; complemented, the newest is the smallest.
            age = bytes(255 - byte for byte in document.timestamp.encode())
            yield key(urls.normalized(document.url)), age + b"\xff"

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        return ((number, b"") for number in _losers(said))

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        return Rejection(self.name, "older_page", document.url) if verdicts else document


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateTexts:
    """Of documents with the same text, up to white space at its ends, the first of the input stays."""

    name: ClassVar[str] = "duplicate_texts"

    @property
    def rounds(self) -> tuple[Round, ...]:
        return (self,)

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        yield key(document.text.strip()), b""

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        return ((number, b"") for number in _losers(said))

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        return Rejection(self.name, "duplicate") if verdicts else document


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateLines:
    """C4's deduplication: each line stays on one page alone, and there once.

    Lines are compared stripped and in lower case. The page that keeps a line is the one whose address has the
    smallest MD5; among pages without address, or of one address, it is the first of the input. A page that has no
    line left is rejected. C4 then wants three sentences: the rule for that follows this step in the recipe.

    Source: tensorflow_datasets/text/c4_utils.py, `remove_duplicate_text`. The T5 paper (section 2.2) says that all
    but one of any three-sentence span went; that is `DuplicateSpans`.
    """

    name: ClassVar[str] = "duplicate_lines"

    @property
    def rounds(self) -> tuple[Round, ...]:
        return (self,)

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        page = hashlib.md5(document.url.encode(), usedforsecurity=False).digest()
        return [(line, page) for line in dict.fromkeys(map(_line_key, document.text.split("\n")))]

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        return ((number, key) for number in _losers(said))

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        lines = document.text.split("\n")
        gone, kept = set(verdicts), []
        for line in lines:
            if (code := _line_key(line)) not in gone:
                gone.add(code)
                kept.append(line)
        text = "\n".join(kept)
        if not text:
            return Rejection(self.name, "empty")
        return document if len(kept) == len(lines) else dataclasses.replace(document, text=text)


def _line_key(line: str) -> bytes:
    return key(line.strip().lower())
