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
