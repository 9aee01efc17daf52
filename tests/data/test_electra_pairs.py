"""ELECTRA's two segments: against the published builder with the same draws, and in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter, electra_pairs
from t5x_like.data.electra_pairs import ElectraPairs
from t5x_like.errors import UserError
from tests.sentence_split import CORPORA, VOCABULARY, SentenceSplit, flat, random_split, rows, segments

KEY = counter.seed_key(3, "electra")


def build(form, split: SentenceSplit, length: int, key=KEY, cover: bool = False):
    return form.build(split, length, VOCABULARY, key, cover)


class PublishedBuilder:
    """ExampleBuilder (build_pretraining_dataset.py), with draws named by the sentence that a block begins with."""

    def __init__(self, key, length: int):
        self.key, self.length = key, length
        self.sentences, self.total, self.target = [], 0, length
        self.place = self.begin = 0
        self.examples = []

    def random(self, place: int, salt: int) -> float:
        return float(counter.uniform_at(self.key, place, salt))

    def add_line(self, sentence: list[int]):
        if not sentence and self.total:
            self.create_example()
            return
        self.sentences.append(sentence)
        self.total += len(sentence)
        self.place += bool(sentence)
        if self.total >= self.target:
            self.create_example()

    def create_example(self):
        if self.random(self.begin, electra_pairs._SINGLE) < 0.1:
            aim = 100000
        else:
            aim = (self.target - 3) // 2
        first, second = [], []
        number = self.begin
        for sentence in filter(None, self.sentences):
            if (
                not first
                or len(first) + len(sentence) < aim
                or (not second and len(first) < aim and self.random(number, electra_pairs._COIN) < 0.5)
            ):
                first += sentence
            else:
                second += sentence
            number += 1
        first = first[: self.length - 2]
        second = second[: max(0, self.length - len(first) - 3)]
        self.examples.append((first, second))
        self.sentences, self.total, self.begin = [], 0, self.place
        if self.random(self.begin, electra_pairs._SHORT) < 0.05:
            self.target = int(
                counter.integers_at(self.key, self.begin, electra_pairs._TARGET, 5, self.length + 1)
            )
        else:
            self.target = self.length


def published(split: SentenceSplit, form: ElectraPairs, length: int, key):
    examples = []
    for number in range(form.duplicates):
        builder = PublishedBuilder(counter.fold(key, number), length)
        for document in split.lists:
            for sentence in document:
                builder.add_line(list(sentence))
            if form.document_breaks:
                builder.add_line([])
        builder.add_line([])
        examples += builder.examples
    return examples


@settings(max_examples=150, deadline=None)
@given(CORPORA, st.booleans(), st.integers(1, 2), st.integers(5, 40), st.integers(0, 2**32))
def test_the_segments_are_those_of_the_published_builder(corpus, breaks, duplicates, length, seed):
    split, key = SentenceSplit(corpus), counter.seed_key(seed)
    form = ElectraPairs(document_breaks=breaks, duplicates=duplicates)
    index = build(form, split, length, key)
    expected = published(split, form, length, key)
    assert segments(index) == expected
    np.testing.assert_array_equal(index.lengths(), [len(a) + len(b) for a, b in expected])
    covered = build(form, split, length, key, cover=True)
    assert segments(covered) == expected[: covered.count]


def test_a_corpus_of_longer_sentences():
    split, form = random_split(5, documents=60, sentences=40, most=70), ElectraPairs()
    index = build(form, split, 64)
    assert segments(index) == published(split, form, 64, KEY)
    found, tokens = rows(index)
    assert found.tokens.shape[1] == 62 and (found.lengths <= 62).all()
    both = found.first_lengths < found.lengths
    assert (found.lengths[both] <= 61).all() and found.pair_labels is None
    mixed = [a for a, b in segments(index) if b and a[-1] > b[0]]
    assert mixed  # a short sentence that joined the first segment after a longer one had opened the second
    seen = flat(tokens)
    assert len(set(seen)) == len(seen) < split.num_tokens  # nothing twice; what is too long is cut


def test_shares_of_short_and_single_segments():
    split = SentenceSplit([[1] * 50] * 8000)
    index = build(ElectraPairs(), split, 25)
    size = index.lengths()
    first = np.array([len(a) for a, _ in segments(index)])
    single = np.mean(first == size)
    short = np.mean(
        size[(index.begins % 50) == 0] < 22
    )  # a block that begins a document is never cut by its end
    assert abs(short - 0.05 * 17 / 21) < 4 * np.sqrt(0.04 / 8000)
    assert 0.09 < single < 0.13  # one in ten, and the few that are too short to be two


def test_marks_and_rows_by_number():
    split = random_split(6, documents=20, sentences=12, most=15)
    needs = frozenset({"document_starts", "sentence_starts", "word_starts"})
    is_word_start = np.arange(10_000) % 3 == 0
    index = build(ElectraPairs(document_breaks=False, duplicates=2), split, 48)
    keys = np.zeros(index.count, np.uint64)
    found = index.windows(np.arange(index.count), keys, VOCABULARY, needs, is_word_start)
    inside = np.arange(46) < found.lengths[:, None]
    place = found.tokens - 10
    np.testing.assert_array_equal(found.document_starts, inside & np.isin(place, split.document_offsets))
    np.testing.assert_array_equal(found.sentence_starts, inside & np.isin(place, split.sentence_offsets))
    np.testing.assert_array_equal(found.word_starts, inside & is_word_start[found.tokens])
    some = np.random.default_rng(0).permutation(index.count)[:9]
    again = index.windows(some, keys[:9], VOCABULARY)
    np.testing.assert_array_equal(again.tokens, found.tokens[some])
    np.testing.assert_array_equal(again.first_lengths, found.first_lengths[some])


def test_what_cannot_be_is_refused():
    split = SentenceSplit([[3, 4], [5]])
    with pytest.raises(UserError, match="duplicates is 0"):
        ElectraPairs(duplicates=0).check()
    with pytest.raises(UserError, match="need 3"):
        build(ElectraPairs(), split, 4)
    split.sentence_offsets = None
    with pytest.raises(UserError, match="ElectraPairs needs to know where sentences begin"):
        build(ElectraPairs(), split, 20)
