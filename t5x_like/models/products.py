"""Products of activations with parameters whose gradients are written as compilers like them.

The gradient of a kernel is xᵀ g, or (gᵀ x)ᵀ as JAX writes it. XLA's CPU compiler lays out the transposed factor anew
and computes all that is fused into it (the gradients of an activation, of dropout, of a softmax) in strided order, so
the narrower factor should be the transposed one. A gated MLP with dropout, forward and backward, takes half the time
by this on a CPU. To GPU and TPU compilers both orders are the same.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], out_dtype: DTypeLike
) -> Float[Array, "*B O"]:
    """x @ kernel, accumulated and returned in `out_dtype`; both factors have one dtype.

    Gradients are accumulated in `out_dtype` too, and come in the dtype of the factors.
    """
    return jnp.matmul(x, kernel, preferred_element_type=out_dtype)


def _forward(x: Array, kernel: Array, out_dtype: DTypeLike) -> tuple[Array, tuple[Array, Array]]:
    return matmul(x, kernel, out_dtype), (x, kernel)


def _backward(out_dtype: DTypeLike, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    by_x = jnp.einsum("...o,io->...i", g, kernel, preferred_element_type=out_dtype)
    if kernel.shape[0] <= kernel.shape[1]:
        by_kernel = jnp.einsum("...i,...o->io", x, g, preferred_element_type=out_dtype)
    else:
        by_kernel = jnp.einsum("...o,...i->oi", g, x, preferred_element_type=out_dtype).T
    return by_x.astype(x.dtype), by_kernel.astype(kernel.dtype)


matmul.defvjp(_forward, _backward)


@jax.custom_vjp
def add_to_rows(x: Float[Array, "B *shape"], shared: Float[Array, "1 *shape"]) -> Float[Array, "B *shape"]:
    """x + shared. The gradient of `shared`, a sum over rows, is a product with ones: summing 50 MB over its first
    axis took XLA's CPU compiler 7 % of a step of T5-small, a matrix product next to nothing."""
    return x + shared


def _backward_of_rows(_: None, g: Array) -> tuple[Array, Array]:
    return g, jnp.einsum("b,b...->...", jnp.ones(g.shape[0], g.dtype), g)[None]


add_to_rows.defvjp(lambda x, shared: (x + shared, None), _backward_of_rows)


def pick_rows(x: Float[Array, "B T D"], positions: Int[Array, "B K"]) -> Float[Array, "B K D"]:
    """x[b, positions[b, k]], as a product with one-hot rows: exact, and its gradient is a product too.

    A gather's gradient is a scatter, which XLA runs one row after another on a CPU and which a partitioned batch
    makes it think about; the product costs K/6D of one layer of a Transformer. A position outside gives zeros.
    """
    chosen = jax.nn.one_hot(positions, x.shape[1], dtype=x.dtype)
    return jnp.einsum("bkt,btd->bkd", chosen, x, precision=jax.lax.Precision.HIGHEST)
