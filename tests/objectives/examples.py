"""What the tests of objectives share: T5's vocabulary, windows of random tokens, rows without padding."""

import numpy as np

from t5x_like.data import counter
from t5x_like.data.example import Vocabulary, Windows


def t5_vocabulary(pieces: int = 32000, sentinels: int = 100) -> Vocabulary:
    size = pieces + sentinels
    return Vocabulary(size=size, sentinels=tuple(range(size - 1, pieces - 1, -1)))


T5 = t5_vocabulary()


def keys(rows: int, seed: int = 0) -> np.ndarray:
    return counter.fold(counter.seed_key(seed, "test"), np.arange(rows))


def windows(
    lengths: list[int] | np.ndarray, width: int | None = None, vocabulary: Vocabulary = T5
) -> Windows:
    """Windows of different ordinary ids, so that a test sees where each token went."""
    lengths = np.asarray(lengths, np.int32)
    width = int(lengths.max(initial=0)) if width is None else width
    tokens = 3 + np.arange(len(lengths) * width, dtype=np.int32).reshape(len(lengths), width) % 31000
    return Windows(
        np.where(np.arange(width) < lengths[:, None], tokens, vocabulary.pad).astype(np.int32),
        lengths,
        vocabulary,
    )


def used(row: np.ndarray) -> list[int]:
    """A row without its padding."""
    return row[: int((row != 0).sum())].tolist()


BERT = Vocabulary(size=1000, pad=0, eos=102, unk=100, mask=103, cls=101, sep=102)
"""A small vocabulary with BERT's special ids."""


def segments(
    lengths: list[int] | np.ndarray, firsts: list[int] | None = None, width: int | None = None, seed: int = 0
) -> Windows:
    """Windows of ordinary ids of `BERT`: A of `firsts` tokens, B of the rest; words begin at 7 of 10 tokens."""
    lengths = np.asarray(lengths, np.int32)
    width = int(lengths.max(initial=0)) if width is None else width
    rng = np.random.default_rng(seed)
    inside = np.arange(width) < lengths[:, None]
    return Windows(
        np.where(inside, rng.integers(104, BERT.size, inside.shape), BERT.pad).astype(np.int32),
        lengths,
        BERT,
        word_starts=(rng.random(inside.shape) < 0.7) & inside,
        first_lengths=None if firsts is None else np.asarray(firsts, np.int32),
        pair_labels=rng.integers(0, 2, len(lengths)).astype(np.int32),
    )
