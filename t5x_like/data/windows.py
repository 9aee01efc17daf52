"""Windows: spans of a split's tokens, addressed by an index, each found in O(1) (`joined`) or O(log documents).

`Joined` windows run on across document borders, as T5's segments of 128 concatenated documents do; `Isolated`
windows stop at them. Both answer three questions: how many windows an epoch has, where window i lies, and how
long all of them are (which packing plans by).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int64

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.token_dataset import TokenSplit


class WindowIndex(Protocol):
    """The windows of a split, by number: what `Objective.index` gives. Pure, and cheap to ask at any number."""

    @property
    def count(self) -> int:
        """Windows of an epoch."""
        ...

    def lengths(self) -> Int64[np.ndarray, "N"]:
        """The length of every window of an epoch."""
        ...

    def windows(
        self,
        index: np.ndarray,
        epoch_keys: Keys,
        vocabulary: Vocabulary,
        needs: frozenset[str] = frozenset(),
        is_word_start: Bool[np.ndarray, "V"] | None = None,
    ) -> Windows:
        """The windows numbered `index` [B], each in an epoch of which `epoch_keys` [B] names the draws; `needs` and
        `is_word_start` as for `read`."""
        ...


_OFFSET = 0x0FF5E7  # salt of the draw that moves an epoch's windows


class _Stretches(abc.ABC):
    """Windows that are each one stretch of at most `length` tokens of a split."""

    split: TokenSplit
    length: int

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """Windows of an epoch."""

    @abc.abstractmethod
    def locate(
        self, index: np.ndarray, epoch_keys: Keys
    ) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """Start and length of each window [B], in tokens."""

    def lengths(self) -> Int64[np.ndarray, "N"]:
        """The length of every window of an epoch."""
        return self.locate(np.arange(self.count), np.zeros(self.count, np.uint64))[1]

    def windows(
        self,
        index: np.ndarray,
        epoch_keys: Keys,
        vocabulary: Vocabulary,
        needs: frozenset[str] = frozenset(),
        is_word_start: Bool[np.ndarray, "V"] | None = None,
    ) -> Windows:
        """See `WindowIndex.windows`."""
        starts, lengths = self.locate(index, epoch_keys)
        return read(self.split, starts, lengths, self.length, vocabulary, needs, is_word_start)


@dataclasses.dataclass(frozen=True)
class Joined(_Stretches):
    """Windows of `length` tokens laid end to end over the whole split.

    In training, an epoch has num_tokens // length full windows, and starts at an offset drawn for this epoch; the
    split is a ring, so no token is always at a window's edge and none is always left out. A split shorter than
    one window gives one short window. With `cover` (validation) there is no offset, the last window is short,
    and every token is seen once.
    """

    split: TokenSplit
    length: int
    cover: bool = False

    @property
    def count(self) -> int:
        """Windows of an epoch."""
        if self.cover:
            return -(-self.split.num_tokens // self.length)
        return max(self.split.num_tokens // self.length, min(self.split.num_tokens, 1))

    def locate(
        self, index: np.ndarray, epoch_keys: Keys
    ) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """Start and length of each window [B], in tokens; a start plus its length may pass the end (a ring)."""
        size = self.split.num_tokens
        starts = index * self.length
        if self.cover:
            return starts, np.minimum(self.length, size - starts)
        offsets = counter.bits(epoch_keys, (), _OFFSET) % np.uint64(size)
        return (starts + offsets.astype(np.int64)) % size, np.full(starts.shape, min(self.length, size))


@dataclasses.dataclass(frozen=True)
class Isolated(_Stretches):
    """Windows that never cross a document's border: each document is cut into pieces of at most `length` tokens."""

    split: TokenSplit
    length: int

    @functools.cached_property
    def _first_piece(self) -> Int64[np.ndarray, "D+1"]:
        """The index of each document's first window."""
        pieces = -(-np.diff(self.split.document_offsets) // self.length)
        return np.concatenate([[0], np.cumsum(pieces, dtype=np.int64)])

    @property
    def count(self) -> int:
        """Windows of an epoch."""
        return int(self._first_piece[-1])

    def locate(
        self, index: np.ndarray, epoch_keys: Keys
    ) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """Start and length of each window [B], in tokens."""
        del epoch_keys  # the same pieces in every epoch
        document = (
            np.searchsorted(self._first_piece, index, side="right") - 1
        )  # the last of equals: skips empty ones
        offsets = self.split.document_offsets
        starts = offsets[document] + (index - self._first_piece[document]) * self.length
        return starts, np.minimum(self.length, offsets[document + 1] - starts)


def read(
    split: TokenSplit,
    starts: np.ndarray,
    lengths: np.ndarray,
    width: int,
    vocabulary: Vocabulary,
    needs: frozenset[str] = frozenset(),
    is_word_start: Bool[np.ndarray, "V"] | None = None,
) -> Windows:
    """The windows at `starts` [B] of `lengths` [B], padded to `width`.

    Args:
      needs: which of `document_starts`, `sentence_starts` and `word_starts` to fill in; the rest stay None.
      is_word_start: for each id, whether it begins a word; wanted where `word_starts` is needed.
    """
    tokens = split.gather(starts, width)
    short = int(lengths.min(initial=width)) < width
    inside = np.arange(width) < lengths[:, None] if short else None
    if inside is not None:
        tokens = np.where(inside, tokens, np.int32(vocabulary.pad))
    words = is_word_start[tokens] if "word_starts" in needs and is_word_start is not None else None
    if words is not None and inside is not None:
        words &= inside

    def marks(offsets: np.ndarray | None) -> np.ndarray | None:
        return None if offsets is None else marked(offsets, starts, lengths, width, split.num_tokens)

    return Windows(
        tokens=tokens,
        lengths=lengths.astype(np.int32),
        vocabulary=vocabulary,
        document_starts=marks(split.document_offsets) if "document_starts" in needs else None,
        sentence_starts=marks(split.sentence_offsets) if "sentence_starts" in needs else None,
        word_starts=words,
    )


def marked(
    offsets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int, ring: int
) -> Bool[np.ndarray, "B W"]:
    """True where a window's position holds one of `offsets` (ascending), on a ring of `ring` tokens."""
    marks = np.zeros((len(starts), width), bool)
    for shift in (0, ring):  # the part before the ring's seam, and the part behind it
        low = np.searchsorted(offsets, np.maximum(starts - shift, 0))
        high = np.searchsorted(offsets, np.clip(starts + lengths - shift, 0, ring))
        many = np.maximum(high - low, 0)
        rows = np.repeat(np.arange(len(starts)), many)
        found = offsets[np.repeat(low, many) + within(many)]
        marks[rows, found + shift - starts[rows]] = True
    return marks


def within(counts: np.ndarray) -> Int64[np.ndarray, "N"]:
    """0..counts[0]-1, 0..counts[1]-1, ...: each element's place inside its group."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
