"""What an encoder says of a text: which words fill its blanks, and which words look replaced."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5x_like.data.tokenizers import Tokenizer
from t5x_like.decoding.encoder_text import DetectorText, MaskedText, Row

_SPELLINGS = ("[MASK]", "<mask>")
"""A blank may be written in either way, whatever the tokenizer's own is."""

_LIKE_A_MASK = re.compile(r"\[\s*\w{1,12}\s*\]|<\s*\w{1,12}\s*>|_{2,}")


class Blanks(NamedTuple):
    """A text as ids: `masks` are the columns of its blanks, `truncated` says whether it was cut to fit."""

    ids: tuple[int, ...]
    masks: tuple[int, ...]
    truncated: bool


class Candidate(NamedTuple):
    """What may stand in a blank, and its probability there."""

    text: str
    probability: float


class Filled(NamedTuple):
    """`text`: with the best candidate in each blank; `blanks`: the best candidates of each; `score`: log-probability
    of those in `text`, each blank by itself; `truncated`: the model saw a part of the text."""

    text: str
    blanks: tuple[tuple[Candidate, ...], ...]
    score: float
    truncated: bool


class Word(NamedTuple):
    """A word, and the highest probability among its tokens that they were replaced."""

    text: str
    probability: float


class Detected(NamedTuple):
    """`tokens` as the tokenizer spells them, with the probability that each was replaced; the same for `words`;
    `truncated`: what was over is missing."""

    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]
    words: tuple[Word, ...]
    truncated: bool


def blank_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """What marks a blank in a text. Raises `ValueError` where the tokenizer has no mask."""
    mask = tokenizer.vocabulary.mask
    if mask is None:
        raise ValueError("the tokenizer has no mask token")
    return re.compile("|".join(map(re.escape, {*_SPELLINGS, tokenizer.id_to_piece(mask)})))


def find_blanks(text: str, tokenizer: Tokenizer, room: int) -> Blanks:
    """The ids of a text with blanks, as many around the blanks as have `room`.

    Raises:
      ValueError: says in a few words why the text cannot be filled.
    """
    pattern, mask = blank_pattern(tokenizer), tokenizer.vocabulary.mask
    assert mask is not None
    parts = pattern.split(text)
    if len(parts) == 1:
        own = tokenizer.id_to_piece(mask)
        found = _LIKE_A_MASK.search(text)
        if found:
            raise ValueError(f"no blank: {found[0]} is no mask; write {own} where a word is missing")
        raise ValueError(f"no blank: write {own} where a word is missing")
    ids: list[int] = []
    masks: list[int] = []
    for i, part in enumerate(parts):
        if i:
            masks.append(len(ids))
            ids.append(mask)
        # The space in front of a blank belongs to what fills it.
        ids += tokenizer.encode(part.rstrip() if i < len(parts) - 1 else part)
    if masks[-1] - masks[0] >= room:
        raise ValueError(
            f"its blanks lie {masks[-1] - masks[0] + 1} tokens apart; the model takes {room} at a time"
        )
    start = 0 if masks[-1] < room else min(masks[0], (masks[0] + masks[-1] + 1 - room) // 2)
    kept = ids[start : start + room]
    return Blanks(tuple(kept), tuple(m - start for m in masks), len(kept) < len(ids))


def fill(model: MaskedText, texts: Sequence[str], top: int = 5) -> list[Filled]:
    """The likeliest words for each blank of each text, every blank judged with all others hidden.

    Args:
      texts: with blanks, such as `find_blanks` takes.
      top: candidates a blank.
    """
    tokenizer = model.tokenizer
    found = [find_blanks(text, tokenizer, model.room()) for text in texts]
    special = [i for i in _special(tokenizer) if i is not None]

    def best(_: int, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        allowed = log_probs.copy()
        allowed[:, special] = -np.inf
        ids = np.argsort(-allowed, axis=1, kind="stable")[:, :top]
        return ids, np.take_along_axis(log_probs, ids, axis=1)

    rows = [Row(blanks.ids, len(blanks.ids)) for blanks in found]
    chosen = model.at(rows, [blanks.masks for blanks in found], best)
    out = []
    for text, blanks, (ids, log_probs) in zip(texts, found, chosen, strict=True):
        candidates = tuple(
            tuple(Candidate(_spelt(i, tokenizer), float(np.exp(p))) for i, p in zip(row, values, strict=True))
            for row, values in zip(ids.tolist(), log_probs.tolist(), strict=True)
        )
        filled = _insert(text, ids[:, 0].tolist(), tokenizer)
        out.append(Filled(filled, candidates, float(log_probs[:, 0].sum()), blanks.truncated))
    return out


def detect(model: DetectorText, texts: Sequence[str]) -> list[Detected]:
    """How likely it is that each token, and each word, of each text was put in the place of another."""
    tokenizer, room = model.tokenizer, model.room()
    encoded = [tokenizer.encode(text) for text in texts]
    rows = [Row(tuple(ids[:room]), len(ids[:room])) for ids in encoded]
    return [
        Detected(
            tuple(map(tokenizer.id_to_piece, row.ids)),
            tuple(map(float, found)),
            tuple(_words(row.ids, found, tokenizer)),
            len(ids) > room,
        )
        for ids, row, found in zip(encoded, rows, model.replaced(rows), strict=True)
    ]


def _words(ids: Sequence[int], values: np.ndarray, tokenizer: Tokenizer) -> list[Word]:
    starts = [0, *(i for i in range(1, len(ids)) if tokenizer.word_starts[ids[i]]), len(ids)]
    return [
        Word(tokenizer.decode(ids[a:b]).strip() or _spelt(ids[a], tokenizer), float(np.max(values[a:b])))
        for a, b in itertools.pairwise(starts)
        if b > a
    ]


def _special(tokenizer: Tokenizer) -> tuple[int | None, ...]:
    """Ids that stand for no text, and so fill no blank."""
    v = tokenizer.vocabulary
    return v.pad, v.bos, v.eos, v.unk, v.cls, v.sep, v.mask


def _spelt(index: int, tokenizer: Tokenizer) -> str:
    return tokenizer.piece_text(index).strip() or tokenizer.id_to_piece(index)


def _insert(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text with its blanks replaced; a piece that goes on with a word is joined to it."""
    parts = blank_pattern(tokenizer).split(text)
    filled = parts[0]
    for index, part in zip(ids, parts[1:], strict=True):
        piece = _spelt(index, tokenizer)
        if not tokenizer.word_starts[index]:
            filled = filled.rstrip() + piece
        else:
            filled += (" " if filled and filled[-1].isalnum() else "") + piece
        filled += part
    return filled
