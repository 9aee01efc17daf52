"""A global shuffle without a buffer: a keyed permutation of range(n), computed one index at a time.

A Feistel network over the digits (left, right) of a mixed-radix number with left * right >= n (Black & Rogaway
2002, "Ciphers with arbitrary finite domains", sections 4 and 5), walked along its cycle until it lands inside
range(n). With left = ceil(sqrt(n)) the domain exceeds n by less than left, so that a walk is almost never needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from t5x_like.data import counter

ROUNDS = 6
"""With 4, neighbours are still correlated on domains of a few dozen; from 6 on no test of ours sees them."""


def permute(index: ArrayLike, n: int, keys: ArrayLike) -> np.ndarray:
    """Where the permutation of range(n) named by `keys` sends `index`.

    Args:
      index: integers in [0, n), any shape.
      n: size of the domain, at least 1.
      keys: uint64, broadcast against `index`; each key names one permutation.

    Returns:
      int64 of the broadcast shape. For one key, index -> result is a bijection on range(n).
    """
    if n < 1:
        raise ValueError(f"a permutation of {n} elements")
    shape = np.broadcast_shapes(np.shape(index), np.shape(keys))
    left = math.isqrt(n - 1) + 1
    right = np.uint64(-(-n // left))
    left = np.uint64(left)
    x, keys = np.broadcast_arrays(np.atleast_1d(index).astype(np.uint64), np.asarray(keys, np.uint64))
    rounds = counter.fold(keys, np.arange(ROUNDS).reshape(-1, *[1] * keys.ndim))
    x = _encrypt(x, left, right, rounds)
    while (outside := x >= n).any():  # each walk ends: a cycle through an index inside returns to the inside
        x[outside] = _encrypt(x[outside], left, right, rounds[:, outside])
    return x.astype(np.int64).reshape(shape)


def _encrypt(x: np.ndarray, left: np.uint64, right: np.uint64, rounds: np.ndarray) -> np.ndarray:
    """One pass through the network: a bijection on range(left * right)."""
    a, b = np.divmod(x, right)
    for i in range(0, ROUNDS, 2):
        a = (a + counter.mix(rounds[i] ^ b) % left) % left
        b = (b + counter.mix(rounds[i + 1] ^ a) % right) % right
    return a * right + b
