"""Deduplication by spans of sentences, as the T5 paper tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.base import Entry, Round, Said, Verdict, key
from t5x_like.data.documents import Document
from t5x_like.data.sentences import split_sentences
from t5x_like.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateSpans:
    """Of every span of `sentences` sentences that is there more than once, the first of the input stays.

    Spans overlap, and run over line breaks; their words are compared in lower case. All sentences of a span that is
    elsewhere, or earlier on the same page, are taken out. A document of fewer sentences has no span and stays.

    Source: Raffel et al. 2020, section 2.2: "we discarded all but one of any three-sentence span occurring more than
    once in the data set". TFDS's code compares lines instead: `DuplicateLines`.
    """

    name: ClassVar[str] = "duplicate_spans"

    sentences: int = 3

    def __post_init__(self) -> None:
        if self.sentences < 1:
            raise UserError(
                f"sentences is {self.sentences}, expected at least 1", where="DuplicateSpans.sentences"
            )

    @property
    def rounds(self) -> tuple[Round, ...]:
        return (self,)

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        return [(code, b"") for code in dict.fromkeys(self._spans(split_sentences(document.text)))]

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        winner = min(number for number, _ in said)
        return ((number, key) for number, _ in said if number != winner)

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        parts = split_sentences(document.text)
        seen, gone = set(verdicts), set()
        for place, code in enumerate(self._spans(parts)):
            if code in seen:
                gone.update(range(place, place + self.sentences))
            seen.add(code)
        if not gone:
            return document
        text = "".join("\n" * part.count("\n") if place in gone else part for place, part in enumerate(parts))
        lines = (line.strip() for line in text.split("\n"))
        text = "\n".join(line for line in lines if line)
        return dataclasses.replace(document, text=text) if text else Rejection(self.name, "empty")

    def _spans(self, parts: Sequence[str]) -> list[bytes]:
        """A key for each span, by the place of its first sentence."""
        plain = [" ".join(part.lower().split()) for part in parts]
        return [key("\n".join(plain[i : i + self.sentences])) for i in range(len(plain) - self.sentences + 1)]
