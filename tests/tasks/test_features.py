"""Rows of tokens: truncation, first pieces, choices; windows of contexts, characters to places and back."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_tasks

from t5x_like.errors import UserError
from t5x_like.tasks import features, spans
from t5x_like.tasks.examples import Example
from t5x_like.tasks.features import Featurizer

TOKENIZER = tiny_tasks.tokenizer()


def pieces(row) -> str:
    return " ".join(TOKENIZER.id_to_piece(int(i)) for i in row)


def featurizer(task, length=16, **change) -> Featurizer:
    return Featurizer(task=task, tokenizer=TOKENIZER, length=length, **change)


def test_truncation_takes_from_the_longer():
    def popped(a: int, b: int, room: int) -> tuple[int, int]:
        while a + b > room:
            a, b = (a - 1, b) if a > b else (a, b - 1)
        return a, b

    sizes = [(a, b, room) for a in range(12) for b in range(12) for room in range(1, 14)]
    a, b, room = map(np.array, zip(*sizes))
    kept = np.stack(features.truncate(a, b, room), 1)
    assert kept.tolist() == [list(popped(*size)) for size in sizes]


def test_pairs():
    rows = featurizer(tiny_tasks.PAIR)(
        [Example("0", ("the film was good", "bad town"), 1), Example("1", ("the " * 20, "story " * 20), 0)]
    )
    tokens, types = rows.arrays["encoder_input_tokens"], rows.arrays["encoder_token_types"]
    assert pieces(tokens[0]).startswith("[CLS] the film was good [SEP] bad town [SEP] [PAD]")
    assert types[0].tolist() == [0] * 6 + [1] * 3 + [0] * 7
    assert pieces(tokens[1]) == f"[CLS] {'the ' * 7}[SEP] {'story ' * 6}[SEP]"
    assert rows.arrays["labels"].tolist() == [1, 0] and rows.truncated == 1


def test_rows_are_as_long_as_they_need_to_be():
    rows = featurizer(tiny_tasks.CLASSIFICATION, 64)([Example("0", ("the film",), 1)])
    assert rows.arrays["encoder_input_tokens"].shape == (1, 8)


def test_an_empty_text_is_an_unknown_word():
    rows = featurizer(tiny_tasks.CLASSIFICATION)([Example("0", ("",), 1)])
    assert pieces(rows.arrays["encoder_input_tokens"][0][:4]) == "[CLS] [UNK] [SEP] [PAD]"


def test_tags_stand_on_first_pieces():
    words = ("metal", "films", "the", *["was"] * 9)
    example = Example("0", words, tuple(range(len(words))))
    rows = featurizer(tiny_tasks.TAGGING, 10)([example])
    assert pieces(rows.arrays["encoder_input_tokens"][0]) == "[CLS] met ##al film ##s the was was was [SEP]"
    assert rows.arrays["labels"][0].tolist() == [-1, 0, -1, 1, -1, 2, 3, 4, 5, -1]
    assert rows.first_pieces[0].tolist() == [1, 3, 5, 6, 7, 8]


def test_choices():
    task = tiny_tasks.CHOICE
    rows = featurizer(task)([Example("0", ("the film", "good", "bad", "dull"), 2)])
    assert rows.arrays["encoder_input_tokens"].shape == (1, 3, 8)
    assert pieces(rows.arrays["encoder_input_tokens"][0, 2]) == "[CLS] the film [SEP] dull [SEP] [PAD] [PAD]"


# ---- spans ---------------------------------------------------------------------------------------


def test_pieces_know_their_characters():
    text = "Films, metal  zebra."
    found = spans.Tokenized(TOKENIZER)(text)
    shown = [text[a:b] for a, b in zip(found.start, found.stop)]
    assert pieces(found.ids) == "film ##s , met ##al [UNK] ."
    # An unknown piece spells nothing that can be counted: it and its neighbours stand for their whole word.
    assert shown == ["Film", "s", ",", "met", "al", "zebra.", "zebra."]


def long_example(city: str = "oslo", at: int = 30, length: int = 50) -> Example:
    words = [tiny_tasks.FILLER[i % 15] for i in range(length)]
    words[at] = city
    context = " ".join(words)
    return Example("0", ("where is it?", context), True, (city,), (context.index(city),))


def test_windows_cover_the_context_and_find_the_answer():
    example = long_example()
    rows = featurizer(tiny_tasks.SPAN, 20, stride=5)([example])
    assert rows.windows is not None
    width = 20 - 3 - 4
    assert rows.windows.offset.tolist() == [*range(0, 50 - width, 5), 40][: rows.count]
    covered, found = set(), 0
    for row in range(rows.count):
        columns = rows.windows.columns[row]
        covered |= set((columns[columns >= 0] + rows.windows.offset[row]).tolist())
        first, last = rows.arrays["labels"][row]
        tokens = rows.arrays["encoder_input_tokens"][row]
        inside = rows.windows.offset[row] <= 30 < rows.windows.offset[row] + width
        assert (first > 0) == inside
        if inside:
            found += 1
            assert pieces(tokens[first : last + 1]) == "oslo"
        assert pieces(tokens).startswith("[CLS] where is it ? [SEP]")
    assert covered == set(range(50)) and found > 1


@pytest.mark.parametrize("length", [6, 8, 20, 64, 128, 256, 383, 384, 512])
def test_windows_overlap_at_every_length(length):
    example = long_example(at=700, length=1000)
    example = example._replace(texts=(f"{'where ' * 80}?", example.texts[1]))
    made = featurizer(tiny_tasks.SPAN, length)
    made.check()
    windows = made([example]).windows
    assert windows is not None
    stops = windows.offset + [len(c) for c in windows.contexts]
    assert (windows.offset[1:] < stops[:-1]).all() and stops[-1] == 1000
    if length >= 384:
        assert windows.offset[1] == 128 and len(windows.questions[0]) == 64


@pytest.mark.parametrize(
    "change, told",
    [
        ({"stride": 49}, "stride is 49, and a window of a context 46 tokens"),
        ({"stride": 46}, "windows must overlap"),
        ({"question_length": 61}, "question_length is 61, and a row of 64 has room for 61"),
    ],
)
def test_windows_that_cannot_be(change, told):
    with pytest.raises(UserError, match=told):
        featurizer(tiny_tasks.SPAN, 64, **change).check()
    featurizer(tiny_tasks.SPAN, 64, stride=45).check()
    featurizer(tiny_tasks.SPAN, 64, question_length=60).check()


def test_search_is_the_best_of_all_spans():
    examples = [long_example(), long_example("rome", 3, 8)]
    rows = featurizer(tiny_tasks.SPAN, 20, stride=5)(examples)
    assert rows.windows is not None
    logits = (
        np.random.default_rng(0)
        .normal(size=(*rows.arrays["encoder_input_tokens"].shape, 2))
        .astype(np.float32)
    )
    found = spans.search(rows.windows, examples, logits, longest=3)
    for number, example in enumerate(examples):
        best = (-np.inf, "")
        for row in np.flatnonzero(rows.windows.example == number):
            columns = rows.windows.columns[row]
            for start in np.flatnonzero(columns >= 0):
                token = columns[start] + rows.windows.offset[row]
                if not most_context(rows.windows, number, row, token):
                    continue
                for stop in range(start, min(start + 3, len(columns))):
                    if columns[stop] < 0:
                        break
                    score = float(logits[row, start, 0]) + float(logits[row, stop, 1])
                    end = columns[stop] + rows.windows.offset[row]
                    p = rows.windows.pieces[number]
                    best = max(best, (score, example.texts[1][p.start[token] : p.stop[end]]))
        assert found[number][0].score == pytest.approx(best[0]) and found[number][0].text == best[1]


def most_context(windows, number, row, token) -> bool:
    """run_squad.py's rule, one window at a time."""
    best = (-np.inf, -1)
    for other in np.flatnonzero(windows.example == number):
        start, length = windows.offset[other], len(windows.contexts[other])
        if start <= token < start + length:
            score = min(token - start, start + length - 1 - token) + 0.01 * length
            best = max(best, (score, -int(other)))  # the first of equals
    return -best[1] == row


def test_questions_without_answer():
    examples = [long_example("rome", 3, 8)]
    rows = featurizer(tiny_tasks.SPAN, 20)(examples)
    assert rows.windows is not None
    logits = np.zeros((1, rows.arrays["encoder_input_tokens"].shape[1], 2), np.float32)
    logits[0, 0] = 1.0  # [CLS]: 2 in sum, and 0 for every span
    assert spans.search(rows.windows, examples, logits, null_threshold=1.5)[0][0].text == ""
    assert spans.search(rows.windows, examples, logits, null_threshold=2.5)[0][0].text != ""
    assert spans.search(rows.windows, examples, logits)[0][0].text != ""
