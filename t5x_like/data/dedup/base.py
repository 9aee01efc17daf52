"""What a comparison is: rounds of "say something under a key, judge together what was said under one key".

Every deduplication fits this shape, and both engines know nothing else of it. In each round a document makes
`entries`, pairs of a 16-byte key and a value; all that was said under one key, by however many documents, meets in
`decide`, which hands verdicts to documents; a later round may build on them; at the end `apply` changes or rejects
the document by the verdicts of the last round. The local engine brings equal keys together by sorting on disk
(data/corpus/exchange.py), Beam by GroupByKey: the functions are the same.

Documents go by numbers: the number of their unit of input times 2**32 and their place in it. A smaller number is
earlier in the input, whatever engine and however many workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

import xxhash

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document

KEY_BYTES = 16

Entry = tuple[bytes, bytes]
"""(key of `KEY_BYTES` evenly spread bytes, value)."""
Said = tuple[int, bytes]
"""(number of the document that said it, value)."""
Verdict = tuple[int, bytes]
"""(number of the document that it is for, what it says)."""


class Round(Protocol):
    """One exchange between documents. Plain, picklable, without state."""

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        """What the document says.

        Args:
          number: of the document.
          document: as it is before the comparison, in every round.
          verdicts: that the round before gave it, sorted, each once. In a first round every document speaks, with no
            verdicts; in later ones only those that were given some.
        """
        ...

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        """Judges what was said under one key.

        Args:
          key: the key.
          said: two entries or more, in the order of numbers, and as the document said them; it can be gone through
            again, and may be longer than memory. A key under which one entry stands alone is not judged.
        """
        ...


class Comparison(Protocol):
    """A step that compares the documents of the whole corpus."""

    name: ClassVar[str]

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The exchanges, one after another; at least one."""
        ...

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        """The document as it is after the comparison; called for every document, with the last round's verdicts
        for it, sorted, each once."""
        ...


def key(text: str) -> bytes:
    """A key for a text: its 128-bit xxh3."""
    return xxhash.xxh3_128_digest(text.encode())
