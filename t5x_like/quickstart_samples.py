"""Held-out text for the end of a quickstart: passages with words missing, or with words that do not belong there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t5x_like.data import counter
from t5x_like.data.token_dataset import TokenDataset

MOST = 12
"""Passages."""

LONG, SHORT = 110, 58
"""Tokens of a passage: for T5's quickstart, and for the encoders', whose rows have 64 places."""


class Passage(NamedTuple):
    """Words from the middle of a held-out document; `draws(n)` are numbers in [0, 1) of its own."""

    words: list[str]
    draws: Callable[[int], np.ndarray]


def passages(data: Path, tokens: int, most: int = MOST) -> list[Passage]:
    """`tokens` from the middle of each document of the validation split that is long enough."""
    dataset = TokenDataset.open(str(data))
    split = dataset.split("validation")
    starts, ends = split.document_offsets[:-1], split.document_offsets[1:]
    found: list[Passage] = []
    for number in np.flatnonzero(ends - starts >= tokens + 10)[:most]:
        middle = (starts[number] + ends[number] - tokens) // 2
        ids = split.gather(np.array([middle]), tokens)[0]
        words = list(_words(ids, dataset))[1:-1]  # the first and the last word may be halves
        key = counter.seed_key(0, "quickstart", int(number))
        found.append(Passage(words, lambda n, key=key: counter.uniform(key, (n,), 0).reshape(-1)))
    return found


def _words(ids: np.ndarray, dataset: TokenDataset) -> Iterator[str]:
    """The text of each word; punctuation that starts a word of its own is one."""
    tokenizer = dataset.tokenizer
    begins = tokenizer.word_starts[ids]
    begins[0] = True
    for word in np.split(ids, np.flatnonzero(begins)[1:]):
        text = tokenizer.decode(word).strip()
        if text:
            yield text


def blanks(passage: Passage, spelling: Callable[[int], str], longest: int) -> dict[str, Any] | None:
    """`inputs` with two blanks of up to `longest` words, and what was there as `originals`; None where it is too short.

    Args:
      spelling: of blank number i.
    """
    words, size = passage.words, len(passage.words)
    first, second, *lengths = passage.draws(4)
    spans: list[tuple[int, int]] = []
    for begin, draw, length in ((0.15, first, lengths[0]), (0.55, second, lengths[1])):
        start = next((i for i in range(int((begin + 0.25 * draw) * size), size) if words[i].isalpha()), size)
        spans.append((start, start + 1 + int(length * longest)))
    (first, end), (second, last) = spans
    if end >= second or last + 4 > size:
        return None
    pieces = [*words[:first], spelling(0), *words[end:second], spelling(1), *words[last:]]
    return {
        "inputs": " ".join(pieces),
        "originals": [" ".join(words[first:end]), " ".join(words[second:last])],
    }


def swaps(passage: Passage, others: list[str], share: float = 0.1) -> dict[str, Any] | None:
    """`inputs` with some words replaced by words of `others`, and `swapped`: number of the word -> the original."""
    words = list(passage.words)
    draws = passage.draws(2 * len(words)).reshape(2, -1)
    swapped = {}
    for i in np.flatnonzero(draws[0] < share).tolist():
        other = others[int(draws[1, i] * len(others))]
        if words[i].isalpha() and other != words[i]:
            swapped[str(i)], words[i] = words[i], other
    return {"inputs": " ".join(words), "swapped": swapped} if swapped else None


def sentinel_blanks(data: Path) -> list[dict[str, Any]]:
    """For T5: `<extra_id_0>` and `<extra_id_1>`, each for one or two words."""
    return _kept(blanks(p, lambda i: f"<extra_id_{i}>", longest=2) for p in passages(data, LONG))


def mask_blanks(data: Path) -> list[dict[str, Any]]:
    """For BERT and RoBERTa: two `[MASK]` (`<mask>`), each for a word."""
    tokenizer = TokenDataset.open(str(data)).tokenizer
    assert tokenizer.vocabulary.mask is not None, "prepared with a mask token"
    spelling = tokenizer.id_to_piece(tokenizer.vocabulary.mask)
    return _kept(blanks(p, lambda _: spelling, longest=1) for p in passages(data, SHORT))


def swapped_words(data: Path) -> list[dict[str, Any]]:
    """For ELECTRA: a tenth of the words are words of other passages."""
    found = passages(data, SHORT)
    others = [word for passage in found for word in passage.words if word.isalpha()]
    return _kept(swaps(p, others) for p in found)


def _kept(records: Iterator[dict[str, Any] | None]) -> list[dict[str, Any]]:
    return [record for record in records if record is not None]
