"""Dropout whose bits are a hash of (seed, position), not a random stream.

Threefry bits cost about 38 % of a T5-small step on a CPU; a counter hash is nearly free, gives the same mask on
any mesh (a position's bit depends on its index alone), and is drawn again in the backward pass in place of being
kept. The mixer is MurmurHash3's 32-bit finaliser (Appleby, public domain) with a second seed word xor-ed in half
way, so that 64 bits tell streams apart.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from t5x_like.models.sharding import row_numbers

Seed = UInt32[Array, "2"]
"""64 bits that name a stream of dropout bits. `None` in its place means no dropout."""


def seed_of(rngs: dict[str, jax.Array] | None) -> Seed | None:
    """The seed of one forward pass from `rngs={"dropout": key}`; None where there is no such key."""
    if rngs is None or "dropout" not in rngs:
        return None
    return jax.random.bits(rngs["dropout"], (2,), jnp.uint32)


def fold(seed: Seed | None, data: int | Array) -> Seed | None:
    """A new seed from `seed` and an integer (a layer's index, a site's number); [..., 2] for `data` [...]."""
    if seed is None:
        return None
    step = (jnp.asarray(data).astype(jnp.uint32) + np.uint32(1)) * np.uint32(0x9E3779B9)
    low = _mix(seed[0] + step, seed[1])
    # Without the barrier XLA copies the whole chain of folds into every fused loop that draws a mask, and takes
    # three times as long to compile the step.
    return jax.lax.optimization_barrier(jnp.stack([low, _mix(seed[1] ^ step, low)], axis=-1))


def _mix(x: Array, key: Array) -> Array:
    x = x ^ (x >> 16)
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ key
    x = x ^ (x >> 13)
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def bits(seed: Seed, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """32 random bits an element: a function of (seed, index), equal on any mesh.

    The first dimension (rows of the batch) enters through the key, the others through a 32-bit counter, so a
    row may hold up to 2^32 elements.
    """
    counter = jnp.zeros((1,) * len(shape), jnp.uint32)
    stride = 1
    for axis in range(len(shape) - 1, 0, -1):
        column = tuple(n if a == axis else 1 for a, n in enumerate(shape))
        counter = counter + jax.lax.broadcasted_iota(jnp.uint32, column, axis) * np.uint32(
            stride & 0xFFFFFFFF
        )
        stride *= shape[axis]
    rows = row_numbers(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    key = _mix(rows * np.uint32(0x9E3779B9) + seed[1], seed[0])
    return _mix(counter + seed[0], key)


def keep_mask(seed: Seed, shape: tuple[int, ...], rate: float) -> Array:
    """bool `shape`, true with probability 1 - rate: see `bits`."""
    threshold = np.uint32(min(round(rate * 2.0**32), 2**32 - 1))
    return bits(seed, shape) >= threshold


def dropout(x: Float[Array, "*shape"], seed: Seed | None, rate: float, broadcast: int | None = None) -> Array:
    """`x` with elements zeroed at `rate` and the rest divided by 1 - rate; `x` itself where `seed` is None.

    Args:
      x: any shape, batch first.
      seed: names the mask; None switches dropout off.
      rate: probability of a zero, 0 <= rate < 1.
      broadcast: an axis along which one mask is shared (T5X shares it along the length; the original has
        `broadcast_dims=(-2,)`, t5x/examples/t5/network.py).
    """
    if seed is None or rate == 0.0:
        return x
    shape = list(x.shape)
    if broadcast is not None:
        shape[broadcast] = 1
    return _dropout(x, seed, rate, tuple(shape))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dropout(x: Array, seed: Array, rate: float, shape: tuple[int, ...]) -> Array:
    return jnp.where(keep_mask(seed, shape, rate), x * np.asarray(1.0 / (1.0 - rate), x.dtype), 0)


def _forward(x: Array, seed: Array, rate: float, shape: tuple[int, ...]) -> tuple[Array, Array]:
    return _dropout(x, seed, rate, shape), seed


def _backward(rate: float, shape: tuple[int, ...], seed: Array, cotangent: Array) -> tuple[Array, None]:
    # The map is linear and diagonal, so its transpose is itself: the mask is drawn again, never stored.
    return _dropout(cotangent, seed, rate, shape), None


_dropout.defvjp(_forward, _backward)
