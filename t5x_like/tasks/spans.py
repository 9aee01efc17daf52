"""Extractive answers: contexts in overlapping windows, characters to places and back, the best span.

Source: google-research/bert run_squad.py. A context is cut at white space into words, and each word into pieces, so
that every piece knows its characters. Where the pieces of a word spell as many characters as it has, each knows its
own; else (accents, unknown words) each stands for the whole word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from t5x_like.data.tokenizer_base import Tokenizer
from t5x_like.tasks.examples import Example

N_BEST = 20
LONGEST_ANSWER = 30
_WORD = re.compile(r"\S+")


class Pieces(NamedTuple):
    """Ids of a text, and the characters [start, stop) that each stands for."""

    ids: Int32[np.ndarray, "n"]
    start: Int64[np.ndarray, "n"]
    stop: Int64[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of contexts beside their questions; M rows.

    Attributes:
      questions, contexts: ids of the question, and of the piece of the context, of a row.
      offset: first token of the context that a row shows.
      example: the example of a row.
      pieces: of each example's whole context.
      columns: [M, T] token of the window's part of the context that a place shows, -1 for all others.
    """

    questions: Sequence[np.ndarray]
    contexts: Sequence[np.ndarray]
    offset: Int64[np.ndarray, "M"]
    example: Int64[np.ndarray, "M"]
    pieces: Sequence[Pieces]
    columns: Int64[np.ndarray, "M T"] = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.int64))


class Answer(NamedTuple):
    """`text` of the context, "" for none; `score`: sum of the two logits."""

    text: str
    score: float


class Tokenized:
    """Texts as pieces that know their characters; words are remembered, as they come again and again."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._words: dict[str, tuple[list[int], list[int]]] = {}

    def __call__(self, text: str) -> Pieces:
        ids: list[int] = []
        starts: list[int] = []
        stops: list[int] = []
        for match in _WORD.finditer(text):
            first = match.start()
            pieces, ends = self._word((" " if first else "") + match[0], match[0])
            ids += pieces
            if ends and ends[-1] == len(match[0]):
                starts += [first, *(first + end for end in ends[:-1])]
                stops += [first + end for end in ends]
            else:
                starts += [first] * len(pieces)
                stops += [match.end()] * len(pieces)
        return Pieces(np.array(ids, np.int32), np.array(starts, np.int64), np.array(stops, np.int64))

    def _word(self, shown: str, word: str) -> tuple[list[int], list[int]]:
        """Ids, and where each ends in the word by the lengths of what the pieces spell."""
        if shown not in self._words:
            ids = self._tokenizer.encode(shown)
            lengths = [len(self._tokenizer.piece_text(i).removeprefix(" ")) for i in ids]
            told = all(lengths) and sum(lengths) == len(word)
            self._words[shown] = ids, np.cumsum(lengths).tolist() if told else []
        return self._words[shown]


def cut(
    tokenizer: Tokenizer, examples: Sequence[Example], room: int, stride: int, question_length: int
) -> Windows:
    """Windows of `room` tokens less the question's, `stride` apart, until the context is shown to its end."""
    tokenized = Tokenized(tokenizer)
    of_context: dict[str, Pieces] = {}
    questions, contexts, offsets, owners, pieces = [], [], [], [], []
    for number, example in enumerate(examples):
        question = np.asarray(tokenizer.encode(example.texts[0])[:question_length], np.int32)
        text = example.texts[1]
        whole = of_context[text] if text in of_context else of_context.setdefault(text, tokenized(text))
        pieces.append(whole)
        width = room - len(question)
        for offset in range(0, max(len(whole.ids), 1), min(stride, width)):
            questions.append(question)
            contexts.append(whole.ids[offset : offset + width])
            offsets.append(offset)
            owners.append(number)
            if offset + width >= len(whole.ids):
                break
    return Windows(
        questions=questions,
        contexts=contexts,
        offset=np.array(offsets, np.int64),
        example=np.array(owners, np.int64),
        pieces=pieces,
    )


def place(
    windows: Windows, examples: Sequence[Example], columns: Int64[np.ndarray, "M T"]
) -> Int32[np.ndarray, "M 2"]:
    """First and last place of each row's answer (the first accepted one); 0, 0 where it is not wholly in the row, or
    where there is none: the answer of such a row is [CLS]."""
    out = np.zeros((len(windows.example), 2), np.int32)
    for row, number in enumerate(windows.example):
        example, pieces = examples[number], windows.pieces[number]
        if not example.answers or not example.answers[0]:
            continue
        begin = example.starts[0]
        end = begin + len(example.answers[0])
        touched = np.flatnonzero((pieces.stop > begin) & (pieces.start < end))
        if not len(touched):
            continue
        shown = columns[row] + np.where(columns[row] >= 0, windows.offset[row], -1)
        first, last = (np.flatnonzero((shown == t) & (columns[row] >= 0)) for t in (touched[0], touched[-1]))
        if len(first) and len(last):
            out[row] = first[0], last[0]
    return out


def search(
    windows: Windows,
    examples: Sequence[Example],
    logits: Float32[np.ndarray, "M T 2"],
    *,
    null_threshold: float | None = None,
    n_best: int = N_BEST,
    longest: int = LONGEST_ANSWER,
) -> list[list[Answer]]:
    """The best answers of each example, the best first; never an empty list.

    Args:
      logits: of first and last place, for every row.
      null_threshold: None: every question has an answer (SQuAD 1.1). Else "" is an answer too, scored by the lowest
        sum at [CLS] of all its rows, and it is the first where it exceeds the best span by more than this.
      longest: most tokens of an answer.
    """
    found: list[list[Answer]] = [[] for _ in examples]
    nothing = np.full(len(examples), np.inf)
    for row, number in enumerate(windows.example):
        nothing[number] = min(nothing[number], float(logits[row, 0].sum()))
        places = np.flatnonzero(windows.columns[row] >= 0)
        if not len(places):
            continue
        tokens = windows.columns[row, places] + windows.offset[row]
        usable = _most_context(windows, row, number, tokens)
        opens, closes = logits[row, places].astype(np.float64).T
        width = min(longest, len(places))
        ends = np.arange(len(places))[:, None] + np.arange(width)
        inside = np.where(ends < len(places), closes[np.minimum(ends, len(places) - 1)], -np.inf)
        scores = opens[:, None] + inside
        scores[~usable] = -np.inf
        best = np.argsort(-scores, axis=None, kind="stable")[:n_best]
        pieces, text = windows.pieces[number], examples[number].texts[1]
        begin, extra = np.unravel_index(best, scores.shape)
        left, right = (
            pieces.start[tokens[begin]],
            pieces.stop[np.minimum(tokens[begin] + extra, len(pieces.ids) - 1)],
        )
        for first, last, score in zip(left.tolist(), right.tolist(), scores[begin, extra].tolist()):
            if np.isfinite(score):
                found[number].append(Answer(text[first:last], score))
    for number, answers in enumerate(found):
        answers.sort(key=lambda answer: -answer.score)
        kept = {answer.text: answer for answer in reversed(answers)}  # of equal texts the best
        best = sorted(kept.values(), key=lambda answer: -answer.score)[:n_best]
        if null_threshold is not None:
            empty = Answer("", float(nothing[number]))
            first = not best or empty.score - best[0].score > null_threshold
            best = [empty, *best] if first else [*best, empty]
        found[number] = best or [Answer("", 0.0)]
    return found


def _most_context(windows: Windows, row: int, number: int, tokens: np.ndarray) -> np.ndarray:
    """Of a token that several windows show, the window counts in which it has the most context on its poorer side;
    an answer may only begin there (run_squad.py `_check_is_max_context`)."""
    rows = np.flatnonzero(windows.example == number)
    if len(rows) == 1:
        return np.ones(len(tokens), bool)
    starts = windows.offset[rows]
    stops = starts + np.array([len(windows.contexts[r]) for r in rows.tolist()])
    left, right = tokens[:, None] - starts, stops - 1 - tokens[:, None]
    lengths = stops - starts
    scores = np.minimum(left, right) + 0.01 * lengths
    scores = np.where((left >= 0) & (right >= 0), scores, -np.inf)
    return rows[np.argmax(scores, axis=1)] == row
