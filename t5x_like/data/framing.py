"""Special ids around one segment or two, as encoders of the BERT lineage read them. NumPy over whole batches.

one segment             [CLS] A [SEP]
two                     [CLS] A [SEP] B [SEP]
with double_separator   <s> A </s> </s> B </s>       (RoBERTa; fairseq, roberta/hub_interface.py `encode`)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from t5x_like.data.example import Vocabulary
from t5x_like.errors import Exit, UserError


class Framed(NamedTuple):
    """Rows of T places; those behind a row's end hold padding.

    Attributes:
      tokens: ids.
      token_types: 0 up to and including the separator behind A, 1 from there to the end, 0 for padding.
      lengths: places used, special ids counted; 0 for an empty window.
      is_special: true at [CLS] and [SEP] (not at padding).
      source: the column of the window that a place shows; -1 for special ids and padding.
    """

    tokens: Int32[np.ndarray, "B T"]
    token_types: Int32[np.ndarray, "B T"]
    lengths: Int64[np.ndarray, "B"]
    is_special: Bool[np.ndarray, "B T"]
    source: Int64[np.ndarray, "B T"]


def num_special(pair: bool, double_separator: bool = False) -> int:
    """Special ids of a row."""
    return 2 + (1 + double_separator if pair else 0)


def frame(
    tokens: Int32[np.ndarray, "B W"],
    lengths: np.ndarray,
    first_lengths: np.ndarray | None,
    length: int,
    vocabulary: Vocabulary,
    *,
    double_separator: bool = False,
) -> Framed:
    """Puts special ids around windows.

    Args:
      tokens: segment A, and behind it, without a gap, segment B.
      lengths: [B] tokens of both together.
      first_lengths: [B] tokens of A; None, or equal to `lengths`: there is no B.
      length: T; every row must fit (`num_special`).

    Raises:
      UserError: the vocabulary has no [CLS] or no [SEP].
    """
    check(vocabulary)
    assert vocabulary.cls is not None and vocabulary.sep is not None
    lengths = np.asarray(lengths, np.int64)
    first = lengths if first_lengths is None else np.asarray(first_lengths, np.int64)
    pair, separators = first < lengths, 1 + double_separator
    used = np.where(lengths > 0, lengths + 1 + np.where(pair, 1 + separators, 1), 0)
    if used.max(initial=0) > length:
        raise ValueError(f"a window takes {used.max()} places of {length}")
    place = np.arange(length, dtype=np.int32)
    real = place < used.astype(np.int32)[:, None]
    second = (place > np.where(pair, first + separators, length).astype(np.int32)[:, None]) & real
    inside = place < (used - 1).astype(np.int32)[:, None]
    inside[:, 0] = False
    for separator in range(separators):
        inside[pair, first[pair] + 1 + separator] = False
    # Segment A stands one place to the right of where it is in the window, B by the separators further.
    shown = np.empty((len(tokens), length), np.int32)
    _put(shown, tokens, 1)
    _put(shown, tokens, 1 + separators, second)
    np.copyto(shown, np.int32(vocabulary.sep), where=~inside)
    np.copyto(shown, np.int32(vocabulary.pad), where=~real)
    shown[used > 0, 0] = vocabulary.cls
    source = place - 1 - second * np.int64(separators)
    np.copyto(source, -1, where=~inside)
    return Framed(shown, second.astype(np.int32), used, real & ~inside, source)


def _put(row: np.ndarray, tokens: np.ndarray, shift: int, where: np.ndarray | None = None) -> None:
    """Copies `tokens` [B, W] into `row` [B, T], `shift` places to the right."""
    width = max(0, min(tokens.shape[1], row.shape[1] - shift))
    at = slice(shift, shift + width)
    np.copyto(row[:, at], tokens[:, :width], where=True if where is None else where[:, at])


def check(vocabulary: Vocabulary) -> None:
    """Raises `UserError` where the tokenizer lacks the ids that frame a row."""
    missing = [
        name for name, index in (("[CLS]", vocabulary.cls), ("[SEP]", vocabulary.sep)) if index is None
    ]
    if missing:
        raise UserError(
            f"the tokenizer has no {' and no '.join(missing)}, which an encoder's rows begin and end with",
            where="data.sources",
            help="prepare the text again with --model_type=wordpiece or --model_type=bytebpe",
            code=Exit.BAD_DATA,
        )
