"""Windows: where they lie, that they cover a split, what they know of borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter, windows
from t5x_like.data.example import Vocabulary
from t5x_like.data.windows import Isolated, Joined

VOCABULARY = Vocabulary(size=1_000_000)


class Split:
    """Tokens 10, 11, 12, ... in documents of the given lengths."""

    def __init__(self, *lengths: int):
        self.num_tokens = sum(lengths)
        self.document_offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.sentence_offsets = np.arange(0, self.num_tokens, 3)

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        return (10 + (starts[:, None] + np.arange(length)) % self.num_tokens).astype(np.int32)


def epoch(spans, number: int = 0):
    keys = np.full(spans.count, counter.seed_key(0, number))
    return spans.locate(np.arange(spans.count), keys)


def test_joined_training_windows_tile_a_ring():
    spans = Joined(Split(50, 20, 33), 10)
    assert spans.count == 10  # 103 tokens; 3 are left out, others in each epoch
    offsets = set()
    for e in range(20):
        starts, lengths = epoch(spans, e)
        assert (lengths == 10).all()
        seen = (starts[:, None] + np.arange(10)) % 103
        assert len(np.unique(seen)) == 100
        np.testing.assert_array_equal(np.diff(starts) % 103, 10)
        offsets.add(int(starts[0]))
    assert len(offsets) > 12


def test_a_split_shorter_than_a_window():
    for cover in (False, True):
        spans = Joined(Split(4, 3), 10, cover=cover)
        starts, lengths = epoch(spans)
        assert spans.count == 1 and lengths.tolist() == [7]
        found = windows.read(spans.split, starts, lengths, 10, VOCABULARY)
        assert sorted(found.tokens[0, :7]) == list(range(10, 17)) and (found.tokens[0, 7:] == 0).all()


def test_joined_validation_covers_every_token_once():
    spans = Joined(Split(50, 20, 33), 10, cover=True)
    starts, lengths = epoch(spans)
    found = windows.read(spans.split, starts, lengths, 10, VOCABULARY)
    assert spans.count == 11 and lengths[-1] == 3
    np.testing.assert_array_equal(found.tokens[found.tokens > 0], 10 + np.arange(103))
    np.testing.assert_array_equal(found.lengths, lengths)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=30).filter(sum), st.integers(1, 12))
def test_isolated_windows_cover_and_never_cross(lengths, width):
    split = Split(*lengths)
    spans = Isolated(split, width)
    starts, sizes = epoch(spans)
    assert (sizes >= 1).all() and (sizes <= width).all()
    np.testing.assert_array_equal(sizes, spans.lengths())
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)])
    np.testing.assert_array_equal(covered, np.arange(split.num_tokens))
    document = np.searchsorted(split.document_offsets, starts, side="right")
    np.testing.assert_array_equal(
        document, np.searchsorted(split.document_offsets, starts + sizes - 1, side="right")
    )
    assert spans.count == sum(-(-n // width) for n in lengths)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(sum),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_borders_also_across_the_seam(lengths, width, start):
    split = Split(*lengths)
    starts = np.array([start % split.num_tokens, 0])
    sizes = np.full(2, min(width, split.num_tokens))
    needs = frozenset({"document_starts", "sentence_starts", "word_starts"})
    is_word_start = np.arange(VOCABULARY.size) % 2 == 0
    found = windows.read(split, starts, sizes, width, VOCABULARY, needs, is_word_start)
    documents, sentences = (
        set(split.document_offsets.tolist()) - {split.num_tokens},
        set(split.sentence_offsets),
    )
    for row, first in enumerate(starts):
        for column in range(width):
            at, inside = (first + column) % split.num_tokens, column < sizes[row]
            assert found.document_starts[row, column] == (inside and at in documents)
            assert found.sentence_starts[row, column] == (inside and at in sentences)
            assert found.word_starts[row, column] == (inside and at % 2 == 0)


def test_borders_only_where_asked_for():
    found = windows.read(Split(9), np.array([0]), np.array([4]), 4, VOCABULARY)
    assert found.document_starts is None and found.sentence_starts is None and found.word_starts is None


@pytest.mark.parametrize("spans", [Joined(Split(), 5), Joined(Split(), 5, cover=True), Isolated(Split(0), 5)])
def test_nothing_gives_no_windows(spans):
    assert spans.count == 0
