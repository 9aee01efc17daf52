"""Blocks of whole sentences, against fairseq's algorithm, and plain blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter
from t5x_like.data.sentence_blocks import Contiguous, DocSentences, FullSentences
from t5x_like.data.sentence_table import Sentences, chain
from t5x_like.errors import UserError
from tests.sentence_split import CORPORA, VOCABULARY, SentenceSplit, flat, random_split, rows

KEY = counter.seed_key(1, "blocks")
SEPARATOR = VOCABULARY.sep


def build(form, split: SentenceSplit, length: int, cover: bool = False):
    return form.build(split, length, VOCABULARY, KEY, cover)


def complete(documents, width: int, sentence_separators: bool, across: bool) -> list[list[int]]:
    """token_block_utils_fast.pyx `complete` and `complete_doc`, with separators between texts, and with sentences
    longer than a block cut into pieces."""
    blocks, block = [], []
    for document in documents:
        for place, sentence in enumerate(document):
            gap = [SEPARATOR] * (sentence_separators + (place == 0))
            for cut in range(0, len(sentence), width):
                piece = sentence[cut : cut + width]
                opens_document = not across and place == 0 and cut == 0
                if block and (opens_document or len(block) + len(gap) + len(piece) > width):
                    blocks.append(block)
                    block = []
                block = block + (gap if block else []) + piece
    return [*blocks, block]


@settings(max_examples=200, deadline=None)
@given(CORPORA, st.booleans(), st.booleans(), st.integers(3, 40))
def test_blocks_are_those_of_fairseq(corpus, separators, across, length):
    split = SentenceSplit(corpus)
    form = (FullSentences if across else DocSentences)(sentence_separators=separators)
    index = build(form, split, length)
    found, tokens = rows(index)
    assert tokens == complete(split.lists, length - 2, separators, across)
    np.testing.assert_array_equal(index.lengths(), found.lengths)
    assert [t for t in flat(tokens) if t >= 10] == list(range(10, 10 + split.num_tokens))  # every token once
    assert rows(build(form, split, length, cover=True))[1] == tokens
    assert found.first_lengths is None and found.pair_labels is None


def test_blocks_are_full_of_whole_sentences():
    split = random_split(2, documents=50, sentences=40, most=30)
    index = build(FullSentences(), split, 128)
    begins = index.starts[:-1]
    assert np.isin(begins, split.sentence_offsets).all()
    assert index.lengths()[:-1].min() > 126 - 32  # a longest sentence and its separators did not fit
    isolated = build(DocSentences(), split, 128)
    document = np.searchsorted(split.document_offsets, isolated.starts[:-1], side="right")
    np.testing.assert_array_equal(
        document, np.searchsorted(split.document_offsets, isolated.starts[1:] - 1, side="right")
    )
    assert index.count < isolated.count


@pytest.mark.parametrize("separators", [False, True])
def test_marks_stand_at_their_tokens(separators: bool):
    split = SentenceSplit([[3, 2], [4, 1], [2], [9, 3]])
    needs = frozenset({"document_starts", "sentence_starts", "word_starts"})
    is_word_start = np.arange(100) % 2 == 0
    index = build(FullSentences(sentence_separators=separators), split, 20)
    found = index.windows(
        np.arange(index.count), np.zeros(index.count, np.uint64), VOCABULARY, needs, is_word_start
    )
    separator = (found.tokens == SEPARATOR) & (np.arange(18) < found.lengths[:, None])
    place = np.where(found.tokens >= 10, found.tokens - 10, -1)
    assert separator.any()
    np.testing.assert_array_equal(found.document_starts, np.isin(place, split.document_offsets))
    np.testing.assert_array_equal(found.sentence_starts, np.isin(place, split.sentence_offsets))
    np.testing.assert_array_equal(
        found.word_starts, separator | ((found.tokens >= 10) & is_word_start[found.tokens])
    )
    fewer = index.windows(np.arange(index.count), np.zeros(index.count, np.uint64), VOCABULARY)
    np.testing.assert_array_equal(fewer.tokens, found.tokens)
    assert fewer.document_starts is fewer.sentence_starts is fewer.word_starts is None


def test_rows_by_number_are_rows_of_the_epoch():
    split = random_split(4, documents=30, sentences=10, most=9)
    index = build(FullSentences(sentence_separators=True), split, 30)
    whole, _ = rows(index)
    some = np.random.default_rng(0).permutation(index.count)[:11]
    found = index.windows(some, np.zeros(11, np.uint64), VOCABULARY)
    np.testing.assert_array_equal(found.tokens, whole.tokens[some])
    np.testing.assert_array_equal(found.lengths, whole.lengths[some])


def test_contiguous_blocks():
    split = SentenceSplit([[50], [20], [33]])
    _, tokens = rows(build(Contiguous(), split, 12, cover=True))
    assert flat(tokens) == list(range(10, 113)) and {len(t) for t in tokens} == {10, 3}
    _, tokens = rows(build(Contiguous(documents="isolated"), split, 12))
    assert flat(tokens) == list(range(10, 113)) and [len(t) for t in tokens].count(3) == 1
    assert build(Contiguous(), split, 12).count == 10


def test_sentences_of_a_split_that_lists_them_badly():
    split = SentenceSplit([[3, 4], [], [5, 1]])
    expected = Sentences.of(split, "a test")
    assert expected.bounds.tolist() == [0, 3, 7, 12, 13] and expected.documents.tolist() == [0, 2, 4]
    for offsets in ([0, 3, 3, 7, 12, 12], [3, 12], [0, 3, 7, 12, 13]):
        split.sentence_offsets = np.array(offsets)
        found = Sentences.of(split, "a test")
        assert found.bounds.tolist() == expected.bounds.tolist()
        assert found.documents.tolist() == expected.documents.tolist()
    split.sentence_offsets = np.zeros(0, np.int64)  # each document is a sentence
    assert Sentences.of(split, "a test").bounds.tolist() == [0, 7, 13]
    assert Sentences.of(split, "a test", longest=3).bounds.tolist() == [0, 3, 6, 7, 10, 13]


def test_chains_over_many_sentences(monkeypatch):
    monkeypatch.setattr("t5x_like.data.sentence_table._CHUNK", 7)
    steps = np.random.default_rng(0).integers(1, 20, 500)
    hops = itertools.accumulate(range(500), lambda at, _: at + int(steps[min(at, 499)]))
    assert chain(500, lambda begin: begin + steps[begin]).tolist() == [at for at in hops if at < 500]


def test_what_cannot_be_is_refused():
    split = SentenceSplit([[3, 4], [5]])
    for form in (FullSentences(), DocSentences(), Contiguous()):
        with pytest.raises(UserError, match="have room for 0 tokens"):
            build(form, split, 2)
    split.sentence_offsets = None
    for form in (FullSentences(), DocSentences()):
        with pytest.raises(UserError, match="needs to know where sentences begin"):
            build(form, split, 20)
    assert build(Contiguous(), split, 20).count == 1
