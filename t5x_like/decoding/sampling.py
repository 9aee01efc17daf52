"""Greedy decoding and sampling, one token at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Key

from t5x_like.decoding.base import Cache, Decoded, LogitsFn, SpecialIds, forbid
from t5x_like.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draws the next token from the model's distribution, warped in this order: forbidden ids, temperature, top-k,
    top-p, min-p. Definitions are those of Hugging Face (`transformers/generation/logits_process.py`).

    Attributes:
      max_length: the most tokens that are generated, EOS included.
      min_length: EOS may not come before this many tokens.
      temperature: divides the logits; 0 takes the likeliest token (no division, no randomness).
      top_k: keeps the k likeliest tokens, and every token as likely as the k-th; None keeps all.
      top_p: keeps the smallest set of likeliest tokens with probability >= top_p, the token that crosses it
        included (GPT-2's sampler leaves that one out); 1 keeps all.
      min_p: drops tokens with less than `min_p` times the probability of the likeliest.
    """

    max_length: int = 128
    min_length: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0

    def check(self) -> None:
        """Raises `UserError` for a setting outside its range."""
        for name, fine, wanted in (
            ("max_length", self.max_length >= 1, "at least 1"),
            ("min_length", 0 <= self.min_length <= self.max_length, "between 0 and max_length"),
            ("temperature", self.temperature >= 0, "0 (greedy) or positive"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or left out"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
        ):
            if not fine:
                raise UserError(
                    f"{name}={getattr(self, name)} cannot be", where=name, help=f"it must be {wanted}"
                )

    def __call__(
        self,
        logits_fn: LogitsFn,
        params: Any,
        cache: Cache,
        first: Int32[Array, "B"],
        ids: SpecialIds,
        keys: Key[Array, "B"] | None = None,
    ) -> Decoded:
        """Decodes each row with its own key, so that a row's text does not depend on the rows beside it.

        `keys` may be None at temperature 0. Stops when every row has ended.
        """
        if self.temperature > 0 and keys is None:
            raise ValueError("sampling needs one key a row")
        batch = first.shape[0]

        def step(state):
            t, token, cache, tokens, lengths, scores, ended = state
            logits, cache = logits_fn(params, cache, token)
            allowed = forbid(logits, t, ids, self.min_length)
            if self.temperature > 0 and keys is not None:
                step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
                token = jax.vmap(jax.random.categorical)(step_keys, self.warp(allowed))
            else:
                token = jnp.argmax(allowed, axis=-1)
            token = jnp.where(ended, ids.pad, token).astype(jnp.int32)
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=-1)[:, 0]
            return (
                t + 1,
                token,
                cache,
                tokens.at[:, t].set(token),
                lengths + ~ended,
                scores + jnp.where(ended, 0.0, log_prob),
                ended | (token == ids.eos),
            )

        state = (
            jnp.int32(0),
            first.astype(jnp.int32),
            cache,
            jnp.full((batch, self.max_length), ids.pad, jnp.int32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, jnp.float32),
            jnp.zeros(batch, bool),
        )
        state = lax.while_loop(lambda s: (s[0] < self.max_length) & ~jnp.all(s[-1]), step, state)
        _, _, _, tokens, lengths, scores, _ = state
        return Decoded(tokens[:, None], lengths[:, None], scores[:, None])

    def warp(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """The logits that are drawn from: temperature (above 0), top-k, top-p, min-p; dropped ids get -inf."""
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            kth = lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < kth, -jnp.inf, logits)
        if self.top_p < 1:
            order = jnp.argsort(-logits, axis=-1)
            sorted_probs = jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1)
            before = jnp.cumsum(sorted_probs, axis=-1) - sorted_probs
            kept = jnp.take_along_axis(before < self.top_p, jnp.argsort(order, axis=-1), axis=-1)
            logits = jnp.where(kept, logits, -jnp.inf)
        if self.min_p > 0:
            likeliest = jnp.max(logits, axis=-1, keepdims=True)
            logits = jnp.where(logits - likeliest < jnp.log(self.min_p), -jnp.inf, logits)
        return logits


def greedy(max_length: int, min_length: int = 0) -> Sampling:
    """The likeliest token at every step; the lowest id among equals."""
    return Sampling(max_length=max_length, min_length=min_length, temperature=0.0)
