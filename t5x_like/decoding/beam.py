"""Beam search with the length penalties and stopping rules of Hugging Face and of T5X."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from t5x_like.decoding.base import Cache, Decoded, LogitsFn, SpecialIds, forbid, gather_rows
from t5x_like.errors import UserError

MOST_BEAMS = 1024


class _State(NamedTuple):
    step: Int32[Array, ""]
    cache: Cache  # leaves [B*K, ...]
    live_tokens: Int32[Array, "B K T"]
    live_scores: Float[Array, "B K"]  # log-probabilities, best first
    done_tokens: Int32[Array, "B K T"]
    done_scores: Float[Array, "B K"]  # divided by the penalty, best first, -inf where nothing has ended yet
    done_lengths: Int32[Array, "B K"]
    open: Bool[Array, "B"]  # whether the row can still improve


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
    """Keeps the `num_beams` likeliest prefixes; of each step's 2·K candidates those that end go to the finished set.

    The two origins differ in more than the penalty (length = generated tokens, EOS included):

    - `hf` (`transformers/generation/utils.py`, `_beam_search`, 5.23): score = log p / length**alpha. Only a
      candidate among the best K may finish. What still lives at `max_length` counts as finished. A row is closed
      when the best live score, divided by the penalty at the *present* length, does not exceed its worst finished
      one (`early_stopping=False`), or already when K sequences have finished (`early_stopping=True`).
    - `gnmt` (Wu et al. 2016, eq. 14; `t5x/decoding.py`, `beam_search`): score = log p / ((5 + length) / 6)**alpha.
      Any of the 2K candidates may finish. A row is closed when its worst finished score exceeds the best live
      one divided by the penalty at `max_length`: from there on nothing can improve. Where nothing has finished,
      the live sequences are returned with their plain log-probabilities.

    Attributes:
      num_beams: K.
      max_length: the most tokens that are generated, EOS included (Hugging Face's `max_new_tokens`).
      min_length: EOS may not come before this many tokens.
      penalty: the origin, as above.
      alpha: exponent of the penalty; 0 scores by the sum of log-probabilities. T5 published 0.6 with `gnmt`.
      early_stopping: only for `hf`.
    """

    num_beams: int = 4
    max_length: int = 128
    min_length: int = 0
    penalty: Literal["hf", "gnmt"] = "gnmt"
    alpha: float = 0.6
    early_stopping: bool = False

    def check(self) -> None:
        """Raises `UserError` for a setting outside its range."""
        if not 1 <= self.num_beams <= MOST_BEAMS:
            raise UserError(
                f"num_beams={self.num_beams} cannot be",
                where="num_beams",
                help=f"1 to {MOST_BEAMS}; 4 is usual",
            )
        if not math.isfinite(self.alpha):
            raise UserError(f"alpha={self.alpha} cannot be", where="alpha", help="0.6 is usual")
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise UserError(
                f"min_length={self.min_length} and max_length={self.max_length} cannot be",
                where="max_length",
                help="0 <= min_length <= max_length, and max_length at least 1",
            )
        if self.penalty not in ("hf", "gnmt"):
            raise UserError(f"unknown penalty {self.penalty!r}", where="penalty", help="choose hf or gnmt")
        if self.early_stopping and self.penalty == "gnmt":
            raise UserError(
                "early_stopping belongs to the rules of Hugging Face",
                where="early_stopping",
                help="set penalty=hf",
            )

    def normaliser(self, length: Int32[Array, ""] | int) -> Float[Array, ""]:
        """What a log-probability of a sequence of `length` generated tokens is divided by."""
        length = jnp.asarray(length, jnp.float32)
        return (length if self.penalty == "hf" else (5.0 + length) / 6.0) ** self.alpha

    def __call__(
        self,
        logits_fn: LogitsFn,
        params: Any,
        cache: Cache,
        first: Int32[Array, "B"],
        ids: SpecialIds,
        keys: Key[Array, "B"] | None = None,
    ) -> Decoded:
        """The K best sequences of each row (`keys` is not used). A row's result does not depend on other rows."""
        del keys
        batch, beams = first.shape[0], self.num_beams
        empty = jnp.full((batch, beams, self.max_length), ids.pad, jnp.int32)
        nothing = jnp.full((batch, beams), -jnp.inf)
        state = _State(
            step=jnp.int32(0),
            cache=jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), cache),
            live_tokens=empty,
            live_scores=nothing.at[:, 0].set(0.0),  # all beams are the same prefix at first: let one live
            done_tokens=empty,
            done_scores=nothing,
            done_lengths=jnp.zeros((batch, beams), jnp.int32),
            open=jnp.ones(batch, bool),
        )

        def advance(state: _State) -> _State:
            last = state.live_tokens[:, :, state.step - 1]
            token = jnp.where(state.step == 0, first[:, None], last).reshape(-1).astype(jnp.int32)
            return self._advance(state, *logits_fn(params, state.cache, token), ids)

        state = lax.while_loop(lambda s: (s.step < self.max_length) & jnp.any(s.open), advance, state)
        found = jnp.any(state.done_scores > -jnp.inf, axis=1, keepdims=True)
        return Decoded(
            tokens=jnp.where(found[:, :, None], state.done_tokens, state.live_tokens),
            lengths=jnp.where(found, state.done_lengths, state.step),
            scores=jnp.where(found, state.done_scores, state.live_scores),
        )

    def _advance(self, state: _State, logits: Float[Array, "B*K V"], cache: Cache, ids: SpecialIds) -> _State:
        """One step: 2K candidates from the logits; who has ended, who lives on, which rows are closed."""
        batch, beams, _ = state.live_tokens.shape
        vocabulary = logits.shape[-1]
        log_probs = forbid(jax.nn.log_softmax(logits), state.step, ids, self.min_length)
        totals = state.live_scores[:, :, None] + log_probs.reshape(batch, beams, vocabulary)
        # Each beam brings at most one EOS, so 2K candidates always hold K that live on.
        scores, flat = lax.top_k(totals.reshape(batch, -1), 2 * beams)
        parent, token = flat // vocabulary, (flat % vocabulary).astype(jnp.int32)
        tokens = gather_rows(state.live_tokens, parent).at[:, :, state.step].set(token)
        length = state.step + 1

        ends = token == ids.eos
        may_finish = ends & state.open[:, None]
        if self.penalty == "hf":
            ends |= length == self.max_length
            may_finish = ends & state.open[:, None] & (jnp.arange(flat.shape[1]) < beams)
        finished = jnp.where(may_finish, scores / self.normaliser(length), -jnp.inf)
        done_scores, best = lax.top_k(jnp.concatenate([state.done_scores, finished], axis=1), beams)
        done_tokens, done_lengths = gather_rows(
            (
                jnp.concatenate([state.done_tokens, tokens], axis=1),
                jnp.concatenate([state.done_lengths, jnp.broadcast_to(length, flat.shape)], axis=1),
            ),
            best,
        )

        live_scores, alive = lax.top_k(jnp.where(ends, -jnp.inf, scores), beams)
        live_tokens, parent = gather_rows((tokens, parent), alive)
        row = (jnp.arange(batch)[:, None] * beams + parent).reshape(-1)
        # A leaf that came back as it went in holds the same rows for all beams of an example: no copy needed.
        cache = jax.tree.map(lambda old, new: new if new is old else new[row], state.cache, cache)

        best_live, worst_done = live_scores[:, 0], done_scores[:, -1]
        if self.penalty == "hf":
            still_open = best_live / self.normaliser(length) > worst_done
            if self.early_stopping:
                still_open &= worst_done == -jnp.inf
        else:
            still_open = best_live / self.normaliser(self.max_length) >= worst_done
        return _State(
            length,
            cache,
            live_tokens,
            live_scores,
            done_tokens,
            done_scores,
            done_lengths,
            state.open & still_open,
        )
