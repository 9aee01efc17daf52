"""Text in, text out: blanks filled, continuations generated, targets scored, many texts at a time.

Texts of like length go through the model together: rows are padded to a power of two, batches to a fixed number
of rows, so that a whole file needs one compilation for each power of two that occurs in it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from t5x_like.data.tokenizers import Tokenizer
from t5x_like.decoding.base import SpecialIds, Strategy
from t5x_like.decoding.beam import Beam
from t5x_like.decoding.generate import EncoderDecoder, generate, score

BLANK = re.compile(r"<extra_id_(\d+)>")
SHORTEST_BUCKET = 32


class _Ids(NamedTuple):
    """Ids with EOS, and whether they were cut to fit."""

    ids: list[int]
    truncated: bool


class Generated(NamedTuple):
    """`text`: the model's output. `score`: as `Decoded.scores`. `truncated`: the input was cut to fit."""

    text: str
    score: float
    truncated: bool


class Filled(NamedTuple):
    """`text`: the input with its blanks filled. `spans`: what went into each blank, in the order of the text; None
    where the model gave nothing for it, and then the blank still stands in `text`. The rest as `Generated`."""

    text: str
    spans: tuple[str | None, ...]
    score: float
    truncated: bool


class Scored(NamedTuple):
    """`score`: sum of the log-probabilities (nats) of the target's tokens and its EOS, which are `pieces` with
    `token_scores`. `truncated`: inputs or targets were cut to fit."""

    score: float
    pieces: tuple[str, ...]
    token_scores: tuple[float, ...]
    truncated: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextModel:
    """A model with its parameters and its tokenizer.

    Attributes:
      model, params, tokenizer: as they belong together.
      batch_size: rows of one call.
      max_input_length: longest input in tokens, EOS included; what is over is cut off at the end.
    """

    model: EncoderDecoder
    params: Any
    tokenizer: Tokenizer
    batch_size: int = 8
    max_input_length: int = 512

    def generate(
        self, texts: Sequence[str], strategy: Strategy = Beam(), *, seed: int = 0, first_index: int = 0
    ) -> list[Generated]:
        """The best output for each text.

        Args:
          texts: inputs; `<extra_id_i>` in them becomes the sentinel.
          strategy: `Beam` or `Sampling`.
          seed, first_index: text i is sampled with a key of `seed` and `first_index + i`, whatever its batch.
        """
        return [
            Generated(self.tokenizer.decode(ids), score, truncated)
            for ids, score, truncated in self._decode(texts, strategy, seed, first_index)
        ]

    def fill(
        self, texts: Sequence[str], strategy: Strategy = Beam(), *, seed: int = 0, first_index: int = 0
    ) -> list[Filled]:
        """Fills the blanks `<extra_id_0>`, `<extra_id_1>`, ... of each text; arguments as `generate`.

        A span-corruption model answers `<extra_id_0> span <extra_id_1> span ...`; each span goes where its blank
        is, set off by a space where its first piece begins a word.
        """
        out = []
        for text, (ids, value, cut) in zip(
            texts, self._decode(texts, strategy, seed, first_index), strict=True
        ):
            filled, spans = insert_spans(text, split_spans(ids, self.tokenizer), self.tokenizer)
            out.append(Filled(filled, spans, value, cut))
        return out

    def score(self, pairs: Sequence[tuple[str, str]], max_target_length: int = 512) -> list[Scored]:
        """Log-probabilities of targets given inputs, for (inputs, targets) pairs; EOS is scored too."""
        pad, length = self.tokenizer.vocabulary.pad, (self.max_input_length, max_target_length)
        rows = [tuple(map(self._encode, pair, length)) for pair in pairs]
        out: list[Any] = [None] * len(pairs)
        shapes = [tuple(bucket(len(side.ids), most) for side, most in zip(row, length)) for row in rows]
        for shape, chosen in batches(shapes, self.batch_size):
            inputs, targets = (pad_rows([rows[i][k].ids for i in chosen], shape[k], pad) for k in (0, 1))
            log_probs = np.asarray(score(self.model, self.params, inputs, targets, pad=pad), np.float64)
            for i, row in zip(chosen, log_probs):
                source, target = rows[i]
                values = row[: len(target.ids)]
                pieces = tuple(map(self.tokenizer.id_to_piece, target.ids))
                out[i] = Scored(
                    float(values.sum()), pieces, tuple(values.tolist()), source.truncated or target.truncated
                )
        return out

    def _decode(
        self, texts: Sequence[str], strategy: Strategy, seed: int, first_index: int
    ) -> list[tuple[list[int], float, bool]]:
        """Generated ids, score, and whether the input was truncated, for each text."""
        vocabulary = self.tokenizer.vocabulary
        special = SpecialIds(vocabulary.eos, vocabulary.pad, vocabulary.size)
        encoded = [self._encode(text, self.max_input_length) for text in texts]
        shapes = [bucket(len(row.ids), self.max_input_length) for row in encoded]
        out: list[Any] = [None] * len(texts)
        for length, chosen in batches(shapes, self.batch_size):
            inputs = pad_rows([encoded[i].ids for i in chosen], length, vocabulary.pad)
            keys = _row_keys(jax.random.key(seed), np.asarray(chosen) + first_index)
            found = generate(self.model, self.params, inputs, strategy=strategy, ids=special, keys=keys)
            tokens, lengths, scores = (np.asarray(x)[:, 0] for x in found)
            for i, row, stop, value in zip(chosen, tokens, lengths, scores):
                out[i] = (row[:stop].tolist(), float(value), encoded[i].truncated)
        return out

    def _encode(self, text: str, longest: int) -> _Ids:
        ids = list(self.tokenizer.encode(text))
        return _Ids([*ids[: longest - 1], self.tokenizer.vocabulary.eos], len(ids) > longest - 1)


def split_spans(ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> dict[int, list[int]]:
    """Number of a sentinel -> the ids behind it, up to the next sentinel or EOS; the first time counts."""
    number = {index: i for i, index in enumerate(tokenizer.vocabulary.sentinels)}
    spans: dict[int, list[int]] = {}
    current: list[int] = []  # what stands before the first sentinel belongs to no blank
    for index in map(int, ids):
        if index == tokenizer.vocabulary.eos:
            break
        if index in number:
            current = []
            spans.setdefault(number[index], current)
        else:
            current.append(index)
    return spans


def insert_spans(
    text: str, spans: dict[int, list[int]], tokenizer: Tokenizer
) -> tuple[str, tuple[str | None, ...]]:
    """The text with each blank replaced by its span, and the spans in the order of the text."""
    filled, position = "", 0
    chosen: list[str | None] = []
    for match in BLANK.finditer(text):
        filled += text[position : match.start()]
        position = match.end()
        span = spans.get(int(match[1]))
        if span is None:
            filled += match[0]
            chosen.append(None)
            continue
        words = tokenizer.decode(span)
        chosen.append(words)
        if not words or not tokenizer.word_starts[span[0]]:  # the span goes on with the word before it
            filled = filled.rstrip() + words
        else:
            filled += ("" if not filled or filled[-1].isspace() else " ") + words
    filled += text[position:]
    return (filled.lstrip() if BLANK.match(text) else filled), tuple(chosen)


_row_keys: Callable[..., Any] = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))


def bucket(length: int, longest: int) -> int:
    """The length that a row is padded to: a power of two, at least `SHORTEST_BUCKET`, at most `longest`."""
    bucket = SHORTEST_BUCKET
    while bucket < length:
        bucket *= 2
    return min(bucket, longest)


def batches(shapes: Sequence[Any], batch_size: int) -> Iterator[tuple[Any, list[int]]]:
    """(shape, `batch_size` row indices) until every row was given. A short batch repeats its last row: an empty one
    would hold up the search until its maximal length."""
    for shape in sorted(set(shapes)):
        rows = [i for i, own in enumerate(shapes) if own == shape]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            yield shape, batch + batch[-1:] * (batch_size - len(batch))


def pad_rows(rows: Sequence[Sequence[int]], length: int, pad: int) -> Int32[np.ndarray, "B S"]:
    """Rows of ids as an array, padded at their ends."""
    out = np.full((len(rows), length), pad, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
