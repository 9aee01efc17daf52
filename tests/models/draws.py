"""Random parameters and batches for tests, drawn by NumPy: no compilation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.models.t5 import T5, Params

LIGHT: dict[str, bool | str | int] = {"xla_backend_optimization_level": 0}
"""`compiler_options` of a step that a test runs once: half the time to compile."""


def params(model: Any, seed: int = 0) -> Params:
    """Parameters of the model's shapes and of sensible size; equal for equal layers, scanned or unrolled."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = leaf.shape[-2] if path[-1].key == "kernel" else 1
        return jnp.asarray(rng.normal(size=leaf.shape) * fan_in**-0.5, leaf.dtype)

    return jax.tree.map_with_path(draw, model.abstract_params())


def batch(
    model: T5, rows: int = 3, source: int = 12, target: int = 9, seed: int = 0
) -> dict[str, np.ndarray]:
    """A batch without padding; targets are the inputs moved by one."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, model.vocab_size, (rows, target)).astype(np.int32)
    return {
        "encoder_input_tokens": rng.integers(1, model.vocab_size, (rows, source)).astype(np.int32),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
    }


def encoder_batch(
    model: Any, rows: int = 3, length: int = 12, picked: int = 4, seed: int = 0
) -> dict[str, np.ndarray]:
    """Two segments a row, no padding in the first row, more in each that follows; `picked` real places a row."""
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(model.vocab_size), [model.pad_id])
    real = np.arange(length) < (length - 2 * np.arange(rows))[:, None].clip(1)
    tokens = np.where(real, rng.choice(others, (rows, length)), model.pad_id)
    first = rng.integers(1, length, (rows, 1))
    return {
        "encoder_input_tokens": tokens.astype(np.int32),
        "encoder_token_types": ((np.arange(length) >= first) & real).astype(np.int32),
        "masked_positions": rng.integers(0, real.sum(1, keepdims=True), (rows, picked)).astype(np.int32),
    }
