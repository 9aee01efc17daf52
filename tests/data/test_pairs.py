"""BERT's pairs of segments: against its published algorithm, step by step with the same draws; and in numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter, pairs
from t5x_like.data.pairs import SegmentPairs, SentencePairs
from t5x_like.errors import UserError
from tests.sentence_split import CORPORA, VOCABULARY, SentenceSplit, flat, random_split, rows, segments

KEY = counter.seed_key(7, "pairs")


def build(form, split: SentenceSplit, length: int, key=KEY, cover: bool = False):
    return form.build(split, length, VOCABULARY, key, cover)


# ---- the published algorithm, one token at a time ------------------------------------------------


class Draws:
    """The draws of one pass, by what they are for and the number of the sentence (or document) they belong to."""

    def __init__(self, key):
        self.key = key

    def random(self, place: int, salt: int) -> float:
        return float(counter.uniform_at(self.key, place, salt))

    def randint(self, place: int, salt: int, low: int, high: int) -> int:
        """As Python's: both bounds included."""
        return int(counter.integers_at(self.key, place, salt, low, high + 1))

    def coins(self, place: int, salt: int):
        """True: the next dropped token of a segment is dropped at its front."""
        number = word = 0
        while True:
            if number % 64 == 0:
                word = int(counter.bits_at(counter.fold(self.key, number // 64), place, salt))
            yield bool(word >> number % 64 & 1)
            number += 1


def published_pairs(documents, form, capacity: int, draws: Draws):
    """create_instances_from_document for every document, without the masking: (a, b, label, sentences) each."""
    instances, first_place = [], 0
    single_sentences = isinstance(form, SentencePairs)
    for number, document in enumerate(documents):
        target = capacity
        if not single_sentences and draws.random(number, pairs._SHORT) < form.short_probability:
            target = draws.randint(number, pairs._TARGET, 2, capacity)
        chunk, i = [], 0
        while i < len(document):
            chunk.append(document[i])
            full = len(chunk) == 2 if single_sentences else sum(map(len, chunk)) >= target
            if i == len(document) - 1 or full:
                place = first_place + i - len(chunk) + 1
                a_end = 1 if len(chunk) == 1 else draws.randint(place, pairs._CUT, 1, len(chunk) - 1)
                a = flat(chunk[:a_end])
                random_next = form.next_sentence and (
                    len(chunk) == 1 or draws.random(place, pairs._RANDOM) < 0.5
                )
                if random_next:
                    for attempt in range(10):
                        other = draws.randint(place, pairs._OTHER + attempt, 0, len(documents) - 1)
                        if other != number:
                            break
                    start = draws.randint(place, pairs._SENTENCE, 0, len(documents[other]) - 1)
                    b = []
                    for sentence in documents[other][start:]:
                        b += sentence
                        if len(b) >= target - len(a) or single_sentences:
                            break
                    i -= len(chunk) - a_end
                else:
                    b = flat(chunk[a_end:])
                front_a, front_b = draws.coins(place, pairs._FRONT_A), draws.coins(place, pairs._FRONT_B)
                while len(a) + len(b) > capacity:
                    longer, coins = (a, front_a) if len(a) > len(b) else (b, front_b)
                    del longer[0 if next(coins) else -1]
                instances.append((a, b, int(random_next), len(chunk)))
                chunk = []
            i += 1
        first_place += len(document)
    return instances


FORMS = st.builds(
    SegmentPairs,
    next_sentence=st.booleans(),
    short_probability=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    duplicates=st.integers(1, 2),
    double_separator=st.booleans(),
) | st.builds(SentencePairs, next_sentence=st.booleans(), duplicates=st.integers(1, 2))


@settings(max_examples=150, deadline=None)
@given(CORPORA, FORMS, st.integers(6, 40), st.integers(0, 2**32))
def test_the_pairs_are_those_of_the_published_algorithm(corpus, form, length, seed):
    split = SentenceSplit(corpus)
    if len(split.lists) == 1 or all(len(document) == 1 for document in split.lists):
        form = dataclasses.replace(form, next_sentence=False)
    key = counter.seed_key(seed)
    expected = []
    for number in range(form.duplicates):
        draws = Draws(counter.fold(key, number))
        expected += published_pairs(split.lists, form, form.capacity(length), draws)
    index = build(form, split, length, key)
    found, _ = rows(index)
    assert segments(index) == [(a, b) for a, b, *_ in expected]
    if form.next_sentence:
        assert found.pair_labels.tolist() == [label for _, _, label, _ in expected]
    else:
        assert found.pair_labels is None
    np.testing.assert_array_equal(index.lengths(), found.lengths)
    covered = build(form, split, length, key, cover=True)
    assert segments(covered) == segments(index)[: covered.count]  # validation: the first pass


def test_long_sentences_lose_tokens_by_fair_coins():
    split = SentenceSplit([[1000], [700]] * 150 + [[1, 1]])
    form = SegmentPairs(duplicates=1, short_probability=0)
    index = build(form, split, 103)
    (expected,) = [published_pairs(split.lists, form, 100, Draws(counter.fold(KEY, 0)))]
    assert segments(index) == [(a, b) for a, b, *_ in expected]
    fronts = np.array(
        [a[0] - document[0][0] for (a, _), document in zip(segments(index), split.lists, strict=False)][:300]
    )
    for size, part in ((1000, fronts[::2]), (700, fronts[1::2])):
        assert abs(part.mean() - (size - 50) / 2) < 4 * np.sqrt((size - 50) / 4 / 150)
        assert 0.6 < part.var() / ((size - 50) / 4) < 1.5


# ---- in numbers ----------------------------------------------------------------------------------


def test_more_than_half_of_the_pairs_are_negatives():
    split = random_split(1, documents=400, sentences=30, most=60)
    index = build(SegmentPairs(duplicates=1), split, 128)
    published = published_pairs(split.lists, SegmentPairs(), 125, Draws(counter.fold(KEY, 0)))
    single = np.mean([sentences == 1 for *_, sentences in published])
    share = rows(index)[0].pair_labels.mean()
    assert single > 0.05 and share > 0.5
    assert abs(share - (single + (1 - single) / 2)) < 4 * np.sqrt((1 - single) / 4 / index.count)


def test_cuts_are_uniform_and_one_document_in_ten_aims_lower():
    split = SentenceSplit(
        [[1] * 40] * 4000
    )  # of one-token sentences: a chunk of a document comes to its target
    index = build(SegmentPairs(duplicates=1, next_sentence=False), split, 23)
    document = (index.first_starts.astype(np.int64)) // 40
    first_of = np.flatnonzero(np.diff(document, prepend=-1))
    targets = index.lengths()[first_of]
    many = np.bincount(targets, minlength=21)
    assert targets.max() == 20 and targets.min() == 2
    share = many[2:20].sum() / 4000  # 2..20 are drawn, 20 among them
    assert abs(share - 0.1 * 18 / 19) < 4 * np.sqrt(0.09 / 4000)
    expected = 400 / 19
    assert ((many[2:20] - expected) ** 2 / expected).sum() < 50  # chi-square of 17: 50 has p < 1e-4
    cuts = np.bincount(index.first_lengths[index.lengths() == 20])[1:]
    assert len(cuts) == 19
    expected = cuts.sum() / 19
    assert ((cuts - expected) ** 2 / expected).sum() < 50
    never = build(SegmentPairs(short_probability=0.0, next_sentence=False, duplicates=1), split, 23)
    assert (never.lengths() == 20).all()


def test_random_segments_come_from_every_other_document():
    split = SentenceSplit([[3, 2, 4]] * 6)
    found = segments(build(SentencePairs(duplicates=400), split, 40))
    index = build(SentencePairs(duplicates=400), split, 40)
    labels = rows(index)[0].pair_labels
    begins = np.array([(a[0] - 10, b[0] - 10) for a, b in found])
    own, other = begins[labels == 1].T
    assert (own // 9 != other // 9).all()
    many = np.bincount(other, minlength=54)[split.sentence_offsets]
    assert ((many - many.mean()) ** 2 / many.mean()).sum() < 50


def test_what_is_not_cut_away_is_the_corpus():
    split = SentenceSplit(
        [[1] * n for n in (50, 3, 41, 1, 28)]
    )  # no truncation where sentences have one token
    for form in (
        SegmentPairs(duplicates=1, next_sentence=False),
        SegmentPairs(duplicates=1),
        SentencePairs(duplicates=1),
    ):
        index = build(form, split, 16)
        labels = index.labels if index.labels is not None else np.zeros(index.count)
        used = [a + (b if not label else []) for (a, b), label in zip(segments(index), labels, strict=True)]
        assert flat(used) == list(range(10, 10 + split.num_tokens))


def test_marks_of_borders_and_words():
    split = SentenceSplit([[3, 2], [4, 1, 2], [5]])
    needs = frozenset({"document_starts", "sentence_starts", "word_starts"})
    is_word_start = np.arange(100) % 2 == 0
    index = build(SegmentPairs(duplicates=20), split, 9)
    found = index.windows(
        np.arange(index.count), np.zeros(index.count, np.uint64), VOCABULARY, needs, is_word_start
    )
    inside = np.arange(6) < found.lengths[:, None]
    place = found.tokens - 10
    for marks, offsets in (
        (found.document_starts, split.document_offsets),
        (found.sentence_starts, split.sentence_offsets),
    ):
        np.testing.assert_array_equal(marks, inside & np.isin(place, offsets))
    np.testing.assert_array_equal(found.word_starts, inside & is_word_start[found.tokens])


def test_a_plan_is_a_function_of_its_key_and_rows_of_their_number():
    split = random_split(3, documents=30, sentences=20, most=30)
    form = SegmentPairs(duplicates=2)
    index, again = build(form, split, 64), build(form, split, 64)
    whole, tokens = rows(index)
    np.testing.assert_array_equal(whole.tokens, rows(again)[0].tokens)
    other = build(form, split, 64, counter.seed_key(8, "pairs"))
    assert sum(a == b for a, b in zip(tokens, rows(other)[1], strict=False)) < 0.1 * index.count
    some = np.random.default_rng(0).permutation(index.count)[:37]
    found = index.windows(some, np.arange(37).astype(np.uint64), VOCABULARY)
    np.testing.assert_array_equal(found.tokens, whole.tokens[some])
    np.testing.assert_array_equal(found.first_lengths, whole.first_lengths[some])
    np.testing.assert_array_equal(found.pair_labels, whole.pair_labels[some])
    first, second = np.array_split(np.arange(index.count), 2)  # duplicates are fresh draws
    assert [tokens[i] for i in first[:50]] != [tokens[i] for i in second[:50]]


# ---- refused -------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused():
    split = SentenceSplit([[3, 4], [5]])
    for form, what in (
        (SegmentPairs(duplicates=0), "duplicates is 0"),
        (SegmentPairs(duplicates=1001), "duplicates is 1,001; an epoch has 1 to 1,000"),
        (SegmentPairs(short_probability=1.5), "short_probability is 1.5"),
        (SentencePairs(duplicates=-1), "duplicates is -1"),
    ):
        with pytest.raises(UserError, match=what):
            form.check()
    with pytest.raises(UserError, match="have room for 1 tokens") as error:
        build(SegmentPairs(), split, 4)
    assert "objective.length=5" in str(error.value)
    with pytest.raises(UserError, match="is a single sentence"):
        build(SegmentPairs(), SentenceSplit([[3], [4], []]), 23)
    with pytest.raises(UserError, match="one document"):
        build(SegmentPairs(), SentenceSplit([[3, 4], []]), 20)
    with pytest.raises(UserError, match="CLS"):
        SegmentPairs().build(split, 20, dataclasses.replace(VOCABULARY, cls=None), KEY, False)
    split.sentence_offsets = None
    for form in (SegmentPairs(), SentencePairs()):
        with pytest.raises(UserError, match=f"{type(form).__name__} needs to know where sentences begin"):
            build(form, split, 20)
