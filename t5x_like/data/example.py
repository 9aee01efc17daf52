"""The values that pass between the data path and the objectives: vocabulary, windows, features, batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

Batch = dict[str, np.ndarray]
"""Feature name -> array [rows, ...] of static shape. Names are seqio's (`encoder_input_tokens`, ...)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The ids that objectives need; they come from the tokenizer, never from constants.

    Attributes:
      size: number of ids a batch may hold, sentinels included (32100 for T5).
      pad, eos, unk: special ids; `None` where the tokenizer has none. T5: 0, 1, 2.
      bos, mask, cls, sep: likewise.
      sentinels: id of `<extra_id_0>`, `<extra_id_1>`, ... in this order (T5: 32099, 32098, ...).
    """

    size: int
    pad: int = 0
    eos: int = 1
    unk: int | None = 2
    bos: int | None = None
    mask: int | None = None
    cls: int | None = None
    sep: int | None = None
    sentinels: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Feature:
    """Shape of one row of a feature (without the batch axis) and its dtype."""

    shape: tuple[int, ...]
    dtype: Any = np.int32


@dataclasses.dataclass(frozen=True)
class Windows:
    """A batch of token spans, cut from a token dataset.

    Attributes:
      tokens: [B, W] ids, `vocabulary.pad` behind each row's end.
      lengths: [B] number of real tokens of each row, 0..W (0 only in packed slots that are empty).
      vocabulary: the ids of the tokenizer that made the tokens.
      document_starts: [B, W] true at the first token of a document, where known.
      sentence_starts: [B, W] true at the first token of a sentence, where known.
      word_starts: [B, W] true at the first token of a word, where known.
      first_lengths: [B] tokens of segment A, which stands first; the rest of `lengths` is segment B. None: no pairs.
      pair_labels: [B] 0 where segment B is the text that follows A, 1 where it is a random one (BERT's polarity).
    """

    tokens: Int32[np.ndarray, "B W"]
    lengths: Int32[np.ndarray, "B"]
    vocabulary: Vocabulary
    document_starts: Bool[np.ndarray, "B W"] | None = None
    sentence_starts: Bool[np.ndarray, "B W"] | None = None
    word_starts: Bool[np.ndarray, "B W"] | None = None
    first_lengths: Int32[np.ndarray, "B"] | None = None
    pair_labels: Int32[np.ndarray, "B"] | None = None
