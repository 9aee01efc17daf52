"""A split for tests of what is made of sentences: its tokens are 10, 11, 12, ..., so that a token tells its place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from t5x_like.data.example import Vocabulary

VOCABULARY = Vocabulary(size=1_000_000_000, pad=0, cls=1, sep=2, mask=3)

CORPORA = st.lists(st.lists(st.integers(1, 12), max_size=12), min_size=1, max_size=8).filter(
    lambda documents: any(map(len, documents))
)
"""Lengths of sentences, document by document; documents may be empty."""


class SentenceSplit:
    """A split of documents of sentences of these lengths."""

    name = "train"

    def __init__(self, documents: list[list[int]]):
        sizes = [size for document in documents for size in document]
        self.num_tokens = sum(sizes)
        self.document_offsets = np.cumsum([0, *map(sum, documents)])
        self.sentence_offsets: np.ndarray | None = np.cumsum([0, *sizes])[:-1]
        self.lists = []  # the same, as documents of sentences of tokens; empty documents left out
        place = 10
        for document in filter(None, documents):
            self.lists.append([])
            for size in document:
                self.lists[-1].append(list(range(place, place + size)))
                place += size

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        return (10 + (np.asarray(starts)[:, None] + np.arange(length)) % self.num_tokens).astype(np.int32)


def random_split(seed: int, documents: int, sentences: int, most: int) -> SentenceSplit:
    """Documents of up to `sentences` sentences of up to `most` tokens."""
    rng = np.random.default_rng(seed)
    return SentenceSplit(
        [
            rng.integers(1, most + 1, rng.integers(1, sentences + 1)).tolist()
            for _ in range(documents)
        ]
    )  # fmt: skip


def rows(index, needs: frozenset[str] = frozenset()):
    """All windows of an epoch, and the tokens of each row as a list."""
    keys = np.zeros(index.count, np.uint64)
    found = index.windows(np.arange(index.count), keys, VOCABULARY, needs)
    return found, [t[:n].tolist() for t, n in zip(found.tokens, found.lengths, strict=True)]


def segments(index) -> list[tuple[list[int], list[int]]]:
    """The two segments of every window of an epoch."""
    found, tokens = rows(index)
    return [(row[:n], row[n:]) for row, n in zip(tokens, found.first_lengths, strict=True)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))
