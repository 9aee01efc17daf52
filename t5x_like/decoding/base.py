"""What every way of decoding shares: its input (a function from a token to logits), its output, its special ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key, PyTree

Cache = PyTree[Array]
"""What a model remembers of the tokens so far. Every leaf has the batch as its leading axis, so that beams can be
gathered; a leaf that `LogitsFn` returns untouched (the encoder's keys and values) is never copied."""

LogitsFn = Callable[[Any, Cache, Int32[Array, "B"]], tuple[Float[Array, "B V"], Cache]]
"""(params, cache, token) -> (logits of the next token, cache that has seen the token)."""


class SpecialIds(NamedTuple):
    """The ids that decoding must know.

    Attributes:
      eos: ends a sequence.
      pad: fills the places behind the end.
      size: ids at or above it are rows that only round up the embedding table; they are never produced.
    """

    eos: int = 1
    pad: int = 0
    size: int | None = None


class Decoded(NamedTuple):
    """Sequences, the best first.

    Attributes:
      tokens: [B, K, T] generated ids, EOS included, `pad` behind it. K is 1 except in beam search.
      lengths: [B, K] number of generated tokens, EOS included.
      scores: [B, K] sum of the model's own log-probabilities (before temperature, top-k, top-p and min-p), in
        beam search divided by the length penalty. -inf marks a beam that does not exist.
    """

    tokens: Int32[Array, "B K T"]
    lengths: Int32[Array, "B K"]
    scores: Float[Array, "B K"]


class Strategy(Protocol):
    """A way of decoding: a frozen dataclass with its settings, called with the function to decode from."""

    @property
    def max_length(self) -> int:
        """The most tokens that are generated, EOS included: the length of the cache."""
        ...

    def __call__(
        self,
        logits_fn: LogitsFn,
        params: Any,
        cache: Cache,
        first: Int32[Array, "B"],
        ids: SpecialIds,
        keys: Key[Array, "B"] | None = None,
    ) -> Decoded:
        """Decodes each row after the token `first` (T5: the start id 0); pure, to be called under `jit`."""
        ...


def forbid(
    values: Float[Array, "*rows V"], step: Int32[Array, ""], ids: SpecialIds, min_length: int
) -> Float[Array, "*rows V"]:
    """Logits or log-probabilities with -inf at ids that may not come at generated position `step` (from 0): rows
    of the table beyond the tokenizer, and EOS while fewer than `min_length` tokens stand before it.

    Nothing is renormalised, as in Hugging Face's processors, so that scores stay the model's own.
    """
    token = jnp.arange(values.shape[-1])
    banned = (token == ids.eos) & (step < min_length)
    if ids.size is not None:
        banned |= token >= ids.size
    return jnp.where(banned, -jnp.inf, values)


def gather_rows(tree: PyTree[Array], index: Int32[Array, "B J"]) -> PyTree[Array]:
    """Picks along axis 1 of every leaf: leaf [B, K, ...], index [B, J] in 0..K-1 -> [B, J, ...]."""
    return jax.tree.map(lambda leaf: jax.vmap(lambda row, i: row[i])(leaf, index), tree)
