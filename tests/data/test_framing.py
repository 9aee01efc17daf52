"""Special ids around one segment and two."""

from __future__ import annotations

import numpy as np
import pytest

from t5x_like.data.example import Vocabulary
from t5x_like.data.framing import frame, num_special
from t5x_like.errors import UserError

WORDS = Vocabulary(size=99, pad=0, eos=3, cls=2, sep=3)
TOKENS = np.array([[10, 11, 12, 13], [10, 11, 12, 0], [0, 0, 0, 0]], np.int32)


def test_one_segment() -> None:
    got = frame(TOKENS, np.array([4, 3, 0]), None, 7, WORDS)
    assert got.tokens.tolist() == [[2, 10, 11, 12, 13, 3, 0], [2, 10, 11, 12, 3, 0, 0], [0] * 7]
    assert got.token_types.sum() == 0
    assert got.lengths.tolist() == [6, 5, 0]
    assert got.source.tolist()[1] == [-1, 0, 1, 2, -1, -1, -1]
    assert got.is_special.tolist()[1] == [True, False, False, False, True, False, False]


@pytest.mark.parametrize("double", [False, True])
def test_two_segments(double: bool) -> None:
    got = frame(TOKENS[:2], np.array([4, 3]), np.array([1, 3]), 8, WORDS, double_separator=double)
    gap = [3, 3] if double else [3]
    assert got.tokens.tolist()[0] == ([2, 10, *gap, 11, 12, 13, 3, 0])[:8]
    assert got.token_types.tolist()[0] == ([0, 0, *[0] * len(gap), 1, 1, 1, 1, 0])[:8]
    assert got.lengths.tolist() == [4 + num_special(True, double), 3 + num_special(False)]
    assert got.tokens.tolist()[1] == [2, 10, 11, 12, 3, 0, 0, 0]
    shown = got.source[0][got.source[0] >= 0]
    assert shown.tolist() == [0, 1, 2, 3]


def test_a_tokenizer_without_the_ids_is_refused() -> None:
    with pytest.raises(UserError, match=r"no \[CLS\] and no \[SEP\]"):
        frame(TOKENS, np.array([4, 3, 0]), None, 8, Vocabulary(size=99))
