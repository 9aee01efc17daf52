"""Encoder-decoder models on batches of token ids: generation and scoring, each one compiled call."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from t5x_like.decoding.base import Decoded, LogitsFn, SpecialIds, Strategy
from t5x_like.models.stack import unstack_layers


class EncoderDecoder(Protocol):
    """What generation needs of a model (`models.t5.T5` has it); hashable, so that it can be a static argument."""

    def encode(self, params: Any, tokens: Int32[Array, "B S"]) -> Float[Array, "B S D"]: ...

    def init_cache(self, params: Any, encoded: Any, encoder_mask: Any, max_length: int) -> Any: ...

    def apply(self, params: Any, batch: dict[str, Array]) -> Float[Array, "B T V"]: ...

    @property
    def decode_step(self) -> LogitsFn: ...


@functools.partial(jax.jit, static_argnames=("model", "strategy", "ids"))
def generate(
    model: EncoderDecoder,
    params: Any,
    inputs: Int32[Array, "B S"],
    *,
    strategy: Strategy,
    ids: SpecialIds,
    keys: Key[Array, "B"] | None = None,
) -> Decoded:
    """Encodes `inputs` (padded with `ids.pad`) and decodes from the start id, which in T5 is the padding id.

    Compiled once for each shape of `inputs`, model and strategy. `keys`: one a row, for sampling.
    """
    if getattr(model, "scan_layers", False):  # sliced once here, not in every step
        model, params = dataclasses.replace(cast(Any, model), scan_layers=False), unstack_layers(params)
    encoded = model.encode(params, inputs)
    cache = model.init_cache(params, encoded, inputs != ids.pad, strategy.max_length)
    first = jnp.full(inputs.shape[0], ids.pad, jnp.int32)
    return strategy(model.decode_step, params, cache, first, ids, keys)


@functools.partial(jax.jit, static_argnames=("model", "pad"))
def score(
    model: EncoderDecoder,
    params: Any,
    inputs: Int32[Array, "B S"],
    targets: Int32[Array, "B T"],
    *,
    pad: int = 0,
) -> Float[Array, "B T"]:
    """Log-probability of each target token given the inputs and the targets before it; 0 at padding."""
    shifted = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=pad)
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": targets,
    }
    log_probs = jax.nn.log_softmax(model.apply(params, batch))
    chosen = jnp.take_along_axis(log_probs, targets[:, :, None], axis=-1)[:, :, 0]
    return jnp.where(targets != pad, chosen, 0.0)
