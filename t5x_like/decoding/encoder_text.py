"""Encoders on texts of any length: what stands at a hidden place, and which tokens look replaced.

Rows of like length go through the model together, as in `text.py`: padded to a power of two, in batches of a fixed
number of rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from t5x_like.data import framing
from t5x_like.data.framing import Framed
from t5x_like.data.tokenizers import Tokenizer
from t5x_like.decoding.text import batches, bucket

T = TypeVar("T")


class MaskedLanguageModel(Protocol):
    """What filling needs of a model (`models.encoder.Encoder` has it); hashable."""

    def encode(
        self, params: Any, tokens: Int32[Array, "B T"], token_types: Int32[Array, "B T"]
    ) -> Float[Array, "B T D"]: ...

    def mlm_logits(self, params: Any, hidden: Float[Array, "B K D"]) -> Float[Array, "B K V"]: ...


class Discriminator(Protocol):
    """What detection needs of a model (`models.electra.Electra` has it); hashable."""

    def discriminate(
        self, params: Any, tokens: Int32[Array, "B T"], token_types: Int32[Array, "B T"]
    ) -> Float[Array, "B T D"]: ...

    def detection_logits(self, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T"]: ...


class Row(NamedTuple):
    """Ids of segment A and behind them those of segment B, of which there may be none; `first`: tokens of A."""

    ids: tuple[int, ...]
    first: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderText:
    """A model with its parameters and its tokenizer.

    Attributes:
      params, tokenizer: as they belong together.
      max_length: places of the longest row, special ids included.
      batch_size: rows of one call.
      double_separator: RoBERTa's way to set off segment B.
    """

    params: Any
    tokenizer: Tokenizer
    max_length: int
    batch_size: int = 16
    double_separator: bool = False

    def room(self, *, pair: bool = False) -> int:
        """Tokens that a row may have besides its special ids."""
        return self.max_length - framing.num_special(pair, self.double_separator)

    def _framed(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], Framed]]:
        """Batches: which rows they hold, and these with their special ids."""
        vocabulary = self.tokenizer.vocabulary
        specials = [framing.num_special(len(row.ids) > row.first, self.double_separator) for row in rows]
        shapes = [bucket(len(row.ids) + n, self.max_length) for row, n in zip(rows, specials, strict=True)]
        for length, chosen in batches(shapes, self.batch_size):
            tokens = np.full((len(chosen), length), vocabulary.pad, np.int32)
            for i, number in enumerate(chosen):
                tokens[i, : len(rows[number].ids)] = rows[number].ids
            lengths, first = np.array([(len(rows[i].ids), rows[i].first) for i in chosen]).T
            yield (
                chosen,
                framing.frame(
                    tokens, lengths, first, length, vocabulary, double_separator=self.double_separator
                ),
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedText(EncoderText):
    """An encoder with a masked-language-modelling head."""

    model: MaskedLanguageModel

    def at(
        self,
        rows: Sequence[Row],
        columns: Sequence[Sequence[int]],
        reduce: Callable[[int, Float32[np.ndarray, "K V"]], T],
    ) -> list[T]:
        """What `reduce` makes of each row and of the log-probabilities of all ids at the row's `columns` (counted in
        its `ids`). Reduced batch by batch, because a vocabulary's worth of numbers for every place is much."""
        most = 1
        while most < max(map(len, columns), default=1):
            most *= 2
        out: list[Any] = [None] * len(rows)
        for chosen, framed in self._framed(rows):
            places = np.zeros((len(chosen), most), np.int32)
            for i, number in enumerate(chosen):
                for k, column in enumerate(columns[number]):
                    places[i, k] = np.argmax(framed.source[i] == column)
            found = np.asarray(_log_probs(self.model, self.params, framed.tokens, framed.token_types, places))
            for number, row in zip(chosen, found):
                out[number] = reduce(number, row[: len(columns[number]), : self.tokenizer.vocabulary.size])
        return out


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorText(EncoderText):
    """An encoder that tells replaced tokens."""

    model: Discriminator

    def replaced(self, rows: Sequence[Row]) -> list[Float32[np.ndarray, "n"]]:
        """The probability that each of a row's `ids` was replaced."""
        out: list[Any] = [None] * len(rows)
        for chosen, framed in self._framed(rows):
            found = np.asarray(_detect(self.model, self.params, framed.tokens, framed.token_types))
            for number, row, source in zip(chosen, found, framed.source):
                out[number] = row[source >= 0]
        return out


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(
    model: MaskedLanguageModel,
    params: Any,
    tokens: Int32[Array, "B T"],
    token_types: Int32[Array, "B T"],
    places: Int32[Array, "B K"],
) -> Float[Array, "B K V"]:
    hidden = model.encode(params, tokens, token_types)
    at_places = jax.numpy.take_along_axis(hidden, places[:, :, None], axis=1)
    return jax.nn.log_softmax(model.mlm_logits(params, at_places).astype(jax.numpy.float32))


@functools.partial(jax.jit, static_argnums=0)
def _detect(
    model: Discriminator, params: Any, tokens: Int32[Array, "B T"], token_types: Int32[Array, "B T"]
) -> Float[Array, "B T"]:
    return jax.nn.sigmoid(model.detection_logits(params, model.discriminate(params, tokens, token_types)))
