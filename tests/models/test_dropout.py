"""Dropout by counter hash: statistics, streams, gradients, meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5x_like.models.dropout import dropout, fold, keep_mask, seed_of


def seed(number: int = 0) -> jax.Array:
    found = seed_of({"dropout": jax.random.key(number)})
    assert found is not None
    return found


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_independence_of_neighbours(rate: float) -> None:
    """Each within 4.5 standard errors: the rate overall, by row and by column, and pairs along each axis."""
    shape = (64, 8, 32, 32)
    keep = np.asarray(keep_mask(seed(), shape, rate)).astype(np.float64)
    variance = rate * (1 - rate)
    for axes in ((0, 1, 2, 3), (1, 2, 3), (0, 1, 2)):
        means = keep.mean(axes)
        error = (variance / (keep.size / means.size)) ** 0.5
        assert np.abs(means - (1 - rate)).max() < 4.5 * error
    centred = keep - (1 - rate)
    for axis in range(4):
        pairs = centred * np.roll(centred, 1, axis)
        assert abs(pairs.mean()) < 4.5 * variance / keep.size**0.5


def test_streams_are_unrelated() -> None:
    """Masks of different layers, sites, keys and rows agree no more often than chance."""
    root, count = seed(), 1 << 16
    masks = [
        keep_mask(s, (2, count), 0.5)
        for s in (root, fold(root, 0), fold(root, 1), fold(fold(root, 0), 0), seed(1))
    ]
    rows = np.concatenate([np.asarray(mask) for mask in masks]).astype(np.float64) - 0.5
    correlation = rows @ rows.T / count * 4
    assert np.abs(correlation - np.eye(len(rows))).max() < 5 / count**0.5


def test_fold_of_an_array_is_the_fold_of_each() -> None:
    each = jnp.stack([fold(seed(), i) for i in range(5)])
    np.testing.assert_array_equal(fold(seed(), jnp.arange(5)), each)
    assert len(np.unique(each)) == each.size
    assert fold(None, 3) is None
    assert seed_of(None) is None
    assert seed_of({"params": jax.random.key(0)}) is None


def test_values_are_scaled_or_zero() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 6, 8))
    y = dropout(x, seed(), 0.25)
    kept = np.asarray(keep_mask(seed(), x.shape, 0.25))
    np.testing.assert_allclose(y, np.where(kept, x / 0.75, 0), rtol=1e-6)
    assert dropout(x, None, 0.25) is x
    assert dropout(x, seed(), 0.0) is x


def test_one_mask_along_an_axis() -> None:
    y = np.asarray(dropout(jnp.ones((4, 16, 8)), seed(), 0.5, broadcast=1))
    assert (y == y[:, :1]).all()
    assert 0 < (y[:, 0] == 0).mean() < 1
    full = np.asarray(dropout(jnp.ones((4, 16, 8)), seed(), 0.5))
    assert (full != full[:, :1]).any()


@pytest.mark.parametrize("broadcast", [None, 1])
def test_gradient_uses_the_mask_of_the_forward_pass(broadcast: int | None) -> None:
    """Drawn again, not stored: linear, so the gradient is the map itself, under jit, checkpoint and vmap too."""
    x, cotangent = jax.random.normal(jax.random.key(0), (2, 4, 6, 8))

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(dropout(x, seed(), 0.4, broadcast) * cotangent)

    expected = dropout(cotangent, seed(), 0.4, broadcast)
    for g in (jax.jit(jax.grad(f)), jax.jit(jax.grad(jax.checkpoint(f)))):
        np.testing.assert_array_equal(g(x), expected)
    seeds = fold(seed(), jnp.arange(2))
    sums = jax.grad(lambda x, s: jnp.sum(dropout(x, s, 0.4, broadcast)))
    each = jnp.stack([dropout(jnp.ones_like(x), s, 0.4, broadcast) for s in seeds])
    np.testing.assert_array_equal(jax.jit(jax.vmap(sums, in_axes=(None, 0)))(x, seeds), each)


def test_no_mask_is_kept_for_the_gradient() -> None:
    x = jnp.ones((4, 6, 8))
    _, backward = jax.vjp(lambda x: dropout(x, seed(), 0.4), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(backward)) < x.size


@pytest.mark.parametrize("spec", [("data",), (None, None, "data")])
def test_mask_does_not_depend_on_the_mesh(spec: tuple[str | None, ...]) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.ones((8, 16, 24))
    alone = dropout(x, seed(), 0.3)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    spread = jax.jit(lambda x: dropout(x, seed(), 0.3), in_shardings=sharding, out_shardings=sharding)(x)
    np.testing.assert_array_equal(alone, spread)


def test_rows_of_a_batch_do_not_depend_on_its_size() -> None:
    """A row's mask is a function of its index in the global batch and of the row's own shape."""
    np.testing.assert_array_equal(keep_mask(seed(), (8, 5, 6), 0.5)[:3], keep_mask(seed(), (3, 5, 6), 0.5))
