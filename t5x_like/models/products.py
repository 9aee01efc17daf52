"""Matrix products of activations with kernels, and their gradients in the order that compilers like.

JAX's own rule writes the gradient of a kernel as (gᵀ x)ᵀ. XLA's CPU compiler then lays out g transposed, and computes
everything that is fused into g (the gradient of an activation, of dropout, of a softmax) once more, in strided order,
for every product that g takes part in. As xᵀ g only x is transposed, which is smaller here and shared by the
projections of one input: forward and backward of a gated MLP with dropout take half the time on a CPU. To GPU and TPU
compilers the two are the same.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


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
    by_kernel = jnp.einsum("...i,...o->io", x, g, preferred_element_type=out_dtype)
    return by_x.astype(x.dtype), by_kernel.astype(kernel.dtype)


matmul.defvjp(_forward, _backward)
