"""Random parameters and batches for tests, drawn by NumPy: no compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.models.t5 import T5, Params


def params(model: T5, seed: int = 0) -> Params:
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
