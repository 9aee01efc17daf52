"""Products with gradients of their own: equal to what JAX derives, in value and in gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.models.products import add_to_rows, matmul


def compare(ours, theirs, *arguments, rtol):
    """Values, and gradients of a sum weighted differently at every place."""

    def weighted(f):
        def total(*arguments):
            y = f(*arguments).astype(jnp.float32)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)), y

        return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))

    got, wanted = weighted(ours)(*arguments), weighted(theirs)(*arguments)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("inner, outer", [(5, 9), (9, 5)])
@pytest.mark.parametrize(
    "dtype, out", [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]
)
def test_matmul(inner, outer, dtype, out):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 3, inner), dtype)
    kernel = jax.random.normal(keys[1], (inner, outer), dtype)
    compare(
        lambda x, k: matmul(x, k, jnp.dtype(out)),
        lambda x, k: jnp.matmul(x, k, preferred_element_type=out),
        x,
        kernel,
        rtol=1e-6 if dtype == "float32" else 2e-2,
    )


def test_add_to_rows():
    keys = jax.random.split(jax.random.key(1))
    x, shared = jax.random.normal(keys[0], (6, 2, 3, 4)), jax.random.normal(keys[1], (1, 2, 3, 4))
    compare(add_to_rows, jnp.add, x, shared, rtol=1e-6)
