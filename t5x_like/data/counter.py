"""Counter-based randomness: a hash of (seed, stream, epoch, example, position) in place of a random stream.

A draw depends on its name alone, so a whole batch is drawn at once, and any host, worker or restart draws the
same. The mixer is the finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators", figure 15), applied once for each part of the name; the draws of one key and salt are SplitMix64's
own sequence from that state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

Keys = np.ndarray
"""uint64 array: one key an example (or any shape)."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def mix(x: np.ndarray) -> Keys:
    """SplitMix64's finaliser, a bijection on uint64; any shape."""
    shape = np.shape(x)
    x = np.atleast_1d(x)  # of scalars, NumPy's in-place operators make new ones, and warn of overflow
    y = x >> np.uint64(30)
    y ^= x
    y *= _MIX1
    shifted = y >> np.uint64(27)  # one scratch array for both shifts: allocation costs more than arithmetic
    y ^= shifted
    y *= _MIX2
    np.right_shift(y, np.uint64(31), out=shifted)
    y ^= shifted
    return y.reshape(shape)[()]


def fold(key: ArrayLike, data: ArrayLike) -> Keys:
    """A new key from `key` and the integers `data` (broadcast): distinct for distinct data."""
    with np.errstate(over="ignore"):
        key = np.asarray(key).astype(np.uint64)
        data = np.asarray(data).astype(np.uint64)
        return mix(key + (data + np.uint64(1)) * _GOLDEN)


def seed_key(seed: int, *names: int | str) -> Keys:
    """A scalar key from an integer seed and a path of names, such as `seed_key(0, "windows", epoch)`."""
    key = mix(np.array(seed & 0xFFFFFFFFFFFFFFFF, np.uint64))
    for name in names:
        if isinstance(name, str):
            for part in name.encode():
                key = fold(key, part)
            name = len(name)
        key = fold(key, np.uint64(name & 0xFFFFFFFFFFFFFFFF))
    return key


def bits(keys: Keys, shape: tuple[int, ...], salt: int) -> Keys:
    """uint64 bits [*keys.shape, *shape], one draw for each position; `salt` tells uses of a key apart."""
    count = int(np.prod(shape, dtype=np.int64))
    positions = np.arange(count, dtype=np.uint64).reshape(shape)
    base = fold(keys, salt)
    return fold(base.reshape(base.shape + (1,) * len(shape)), positions)


def words(keys: Keys, count: int, salt: int) -> np.ndarray:
    """uint32 bits [*keys.shape, count]: both halves of half as many draws of `bits`, low half first."""
    return bits(keys, ((count + 1) // 2,), salt).astype("<u8", copy=False).view("<u4")[..., :count]


def bits_at(keys: ArrayLike, positions: ArrayLike, salt: int) -> Keys:
    """The draws of `bits` at single positions: key and position broadcast against each other."""
    return fold(fold(keys, salt), positions)


def uniform(keys: Keys, shape: tuple[int, ...], salt: int) -> np.ndarray:
    """float64 in [0, 1), [*keys.shape, *shape]."""
    return (bits(keys, shape, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(keys: Keys, shape: tuple[int, ...], salt: int, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """int64 uniform in [low, high), [*keys.shape, *shape]; bounds broadcast against that shape."""
    low = np.asarray(low, np.int64)
    span = np.asarray(high, np.int64) - low
    return low + np.floor(uniform(keys, shape, salt) * span).astype(np.int64)


def uniform_at(keys: ArrayLike, positions: ArrayLike, salt: int) -> np.ndarray:
    """float64 in [0, 1): `bits_at` as a share; key and position broadcast against each other."""
    return (bits_at(keys, positions, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers_at(
    keys: ArrayLike, positions: ArrayLike, salt: int, low: ArrayLike, high: ArrayLike
) -> np.ndarray:
    """int64 uniform in [low, high), one for each position; everything broadcasts."""
    low = np.asarray(low, np.int64)
    span = np.asarray(high, np.int64) - low
    return low + np.floor(uniform_at(keys, positions, salt) * span).astype(np.int64)
