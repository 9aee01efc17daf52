"""A tiny recurrent model, in JAX and in NumPy, whose next token depends on the whole history; EOS is 1, pad 0."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from t5x_like.decoding.base import SpecialIds

WIDTH = 5


def make(vocabulary: int, seed: int, eos_bias: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = {
        "embed": rng.normal(size=(vocabulary, WIDTH)),
        "recur": rng.normal(size=(WIDTH, WIDTH)),
        "out": 2 * rng.normal(size=(WIDTH, vocabulary)),
        "bias": np.where(np.arange(vocabulary) == 1, eos_bias, 0.0),
    }
    return {k: v.astype(np.float32) for k, v in params.items()}


def cache(rows: int, seed: int = 0) -> dict:
    """`state` is what the history made; `source` is given once and never changes."""
    rng = np.random.default_rng(seed)
    source = jnp.asarray(rng.normal(size=(rows, WIDTH)), jnp.float32)
    return {"state": jnp.zeros((rows, WIDTH)), "source": source}


def logits_fn(params, cache, token):
    state = jnp.tanh(cache["state"] @ params["recur"] + params["embed"][token] + cache["source"])
    return state @ params["out"] + params["bias"], {"state": state, "source": cache["source"]}


class Reference:
    """The same model for one row, by full recomputation in float64."""

    def __init__(self, params, source, ids: SpecialIds, first: int = 0):
        self.params = {k: v.astype(np.float64) for k, v in params.items()}
        self.source, self.first, self.ids = np.asarray(source, np.float64), first, ids
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def log_probs(self, history: list[int]) -> np.ndarray:
        if tuple(history) not in self._known:
            self._known[tuple(history)] = self._log_probs(history)
        return self._known[tuple(history)].copy()

    def _log_probs(self, history: list[int]) -> np.ndarray:
        p, state = self.params, np.zeros(WIDTH)
        for token in [self.first, *history]:
            state = np.tanh(state @ p["recur"] + p["embed"][token] + self.source)
        logits = state @ p["out"] + p["bias"]
        return logits - np.log(np.exp(logits).sum())

    def allowed(self, history: list[int], min_length: int = 0) -> np.ndarray:
        values = self.log_probs(history)
        if self.ids.size is not None:
            values[self.ids.size :] = -np.inf
        if len(history) < min_length:
            values[self.ids.eos] = -np.inf
        return values

    def log_prob(self, tokens: list[int]) -> float:
        return sum(self.log_probs(tokens[:i])[t] for i, t in enumerate(tokens))
