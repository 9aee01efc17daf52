"""Layers that families share. Arithmetic that differs between originals is a named argument, never a family check.

Every parameter carries the logical names of its axes (`vocab embed heads mlp relpos_buckets`) from the line that
creates it. Kernels are two-dimensional, [in, out], as in T5X: Adafactor factors and scales by these shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from t5x_like.models.attention import Visible, attend, choose
from t5x_like.models.dropout import Seed, dropout
from t5x_like.models.products import matmul
from t5x_like.models.sharding import constrain, platform

Initializer = Callable[..., Array]
Activation = Literal["relu", "gelu"]

# "gelu" is the tanh approximation, as in T5 1.1 and BERT (flax default, Hugging Face's `gelu_new`); "gelu_exact" is
# x Phi(x) by the error function (ELECTRA, RoBERTa, Hugging Face's `gelu`).
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
}


def fan_in_normal(scale: float = 1.0) -> Initializer:
    """N(0, scale / fan_in)."""
    return nn.initializers.variance_scaling(scale, "fan_in", "normal")


def fan_in_truncated() -> Initializer:
    """Normal cut at two standard deviations, rescaled to variance 1 / fan_in."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str, ...]
) -> Array:
    """A float32 parameter of `module` with the logical names of its axes."""
    return cast(Array, module.param(name, nn.with_logical_partitioning(init, axes), shape))


class RMSNorm(nn.Module):
    """x / rms(x) * scale (Zhang & Sennrich 2019): no mean, no bias; T5's "layer norm".

    Statistics in float32; the result is cast to `dtype` before the scale is applied (t5x/examples/t5/layers.py).
    """

    dtype: jnp.dtype
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:], ("embed",))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return x.astype(self.dtype) * scale.astype(self.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias (Ba et al. 2016), all in float32; returned in `dtype`."""

    dtype: jnp.dtype
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:], ("embed",))
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], ("embed",))
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return (x * scale + bias).astype(self.dtype)


class Dense(nn.Module):
    """x @ kernel (+ bias); the product in `dtype`, returned in `out_dtype` (default `dtype`)."""

    features: int
    axes: tuple[str, str]
    kernel_init: Initializer
    dtype: jnp.dtype
    out_dtype: jnp.dtype | None = None
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        kernel = parameter(self, "kernel", self.kernel_init, (x.shape[-1], self.features), self.axes)
        kernel = kernel.astype(self.dtype)
        y = cast(Array, matmul(x.astype(self.dtype), kernel, self.out_dtype or self.dtype))
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, (self.features,), self.axes[1:])
            y = y + bias.astype(y.dtype)
        return y


class Embedding(nn.Module):
    """A table of vectors: looked up by gather, and usable as the output layer (`attend`)."""

    vocab_size: int
    features: int
    dtype: jnp.dtype
    table_init: Initializer = nn.initializers.normal(1.0)
    axes: tuple[str, str] = ("vocab", "embed")

    def setup(self) -> None:
        self.embedding = parameter(
            self, "embedding", self.table_init, (self.vocab_size, self.features), self.axes
        )

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Rows of the table; ids outside it give NaN rather than a neighbour's row."""
        # Gathered over fsdp first, as other weights are for their products: rows of which a device holds a part would
        # have to be moved whole to the devices of the batch.
        table = constrain(self.embedding, self.axes[0], None)
        return jnp.take(table, tokens, axis=0, mode="fill").astype(self.dtype)

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """x @ tableᵀ, float32 out."""
        table = self.embedding.astype(self.dtype)
        return matmul(x.astype(self.dtype), table.T, jnp.dtype("float32"))


def relative_position_bucket(
    relative: np.ndarray, *, bidirectional: bool, buckets: int = 32, max_distance: int = 128
) -> np.ndarray:
    """T5's bucket of `relative` = key position - query position, any shape of integers (paper section 2.1).

    Half of the buckets are exact distances, the other half grow in log steps to `max_distance`, beyond which all
    fall into the last. Bidirectional: the upper half of the table is for keys after the query. Causal: keys after
    the query (masked anyway) fall into bucket 0.
    """
    if bidirectional:
        buckets //= 2
        offset = np.where(relative > 0, buckets, 0)
        distance = np.abs(relative)
    else:
        offset = np.zeros_like(relative)
        distance = np.maximum(-relative, 0)
    exact = buckets // 2
    steps = np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact) * (buckets - exact)
    far = np.minimum(exact + steps.astype(np.int64), buckets - 1)
    return offset + np.where(distance < exact, distance, far)


class RelativeBias(nn.Module):
    """T5's relative position bias: one table [heads, buckets] for a whole stack, added to every layer's logits."""

    num_heads: int
    bidirectional: bool
    buckets: int = 32
    max_distance: int = 128

    def setup(self) -> None:
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        shape = (self.num_heads, self.buckets)
        self.rel_embedding = parameter(self, "rel_embedding", init, shape, ("heads", "relpos_buckets"))

    def by_distance(self, query_length: int, key_length: int) -> Float[Array, "N W"]:
        """The bias of each distance key - query, from 1 - query_length to key_length - 1."""
        buckets = relative_position_bucket(
            np.arange(1 - query_length, key_length),
            bidirectional=self.bidirectional,
            buckets=self.buckets,
            max_distance=self.max_distance,
        )
        return self.rel_embedding.astype(jnp.float32)[:, buckets]

    def __call__(self, query_length: int, key_length: int) -> Float[Array, "1 N T S"]:
        """The bias matrix. It depends on s - t alone, so it is a row of distances shifted once a query: a
        broadcast and a reshape, whose gradient is dense too (a [T, S] gather scatters its gradient, slowly)."""
        row = self.by_distance(query_length, key_length)
        heads, width = row.shape
        # Rows of width + 1 read as rows of width: each query's row starts one distance earlier than the last.
        row = jnp.pad(row, ((0, 0), (0, 1)))
        tiled = jnp.broadcast_to(row[:, None, :], (heads, query_length, width + 1)).reshape(heads, -1)
        skewed = tiled[:, : query_length * width].reshape(heads, query_length, width)
        return skewed[None, :, :, query_length - 1 :]

    def row(self, position: Int[Array, " B"], length: int) -> Float[Array, "B N 1 S"]:
        """The bias of the single query at `position` (one a batch row) to keys 0..length-1, for decoding."""
        table = self.by_distance(length, length)

        def one(p: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(table, length - 1 - p, length, axis=1)

        return jax.vmap(one)(position)[:, :, None, :]


class Attention(nn.Module):
    """Multi-head attention with kernels [D, N*H] and [N*H, D]; N*H need not be D.

    Attributes:
      features: D of the output.
      query_scale: variance of the query kernel relative to the other kernels'. T5 has no 1/sqrt(H) in its
        logits; 1/H here stands for it (t5x/examples/t5/layers.py).
      logits_scale: factor of the logits: 1 in T5, 1/sqrt(H) elsewhere.
      use_bias: whether the four kernels have biases.
      kernel_init: of all four kernels, in place of fan-in normal and `query_scale`.
      dropout_broadcast: one dropout mask for all queries of a head, else one a pair.
      implementation: as in `attention.choose`.
      remat: forget the probabilities after the forward pass and compute them again for the gradient.
    """

    num_heads: int
    head_dim: int
    features: int
    dtype: jnp.dtype
    query_scale: float = 1.0
    logits_scale: float = 1.0
    use_bias: bool = False
    kernel_init: Initializer | None = None
    dropout_rate: float = 0.0
    dropout_broadcast: bool = True
    implementation: Literal["auto", "einsum", "fused"] = "auto"
    remat: bool = False

    def setup(self) -> None:
        width = self.num_heads * self.head_dim

        def dense(features: int, axes: tuple[str, str], scale: float = 1.0) -> Dense:
            init = fan_in_normal(scale) if self.kernel_init is None else self.kernel_init
            return Dense(features, axes, init, self.dtype, use_bias=self.use_bias)

        self.query = dense(width, ("embed", "heads"), self.query_scale)
        self.key = dense(width, ("embed", "heads"))
        self.value = dense(width, ("embed", "heads"))
        self.out = dense(self.features, ("heads", "embed"))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        source: Float[Array, "B S D"] | None = None,
        *,
        bias: Float[Array, "#B N T S"] | None = None,
        visible: Visible | None = None,
        seed: Seed | None = None,
    ) -> Float[Array, "B T D"]:
        """Attention of `x` to `source` (to itself where None)."""
        key, value = self.keys(x if source is None else source)
        return self.over(x, key, value, bias=bias, visible=visible, seed=seed)

    def keys(self, source: Float[Array, "B S D"]) -> tuple[Float[Array, "B N S H"], Float[Array, "B N S H"]]:
        """Keys and values of `source`: what a decoding cache holds."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def over(
        self,
        x: Float[Array, "B T D"],
        key: Float[Array, "B N S H"],
        value: Float[Array, "B N S H"],
        *,
        bias: Float[Array, "#B N T S"] | None = None,
        visible: Visible | None = None,
        seed: Seed | None = None,
    ) -> Float[Array, "B T D"]:
        """Attention of `x` to keys and values that are already projected."""
        implementation = choose(
            wanted=self.implementation,
            platform=platform(),
            dtype=self.dtype,
            query_length=x.shape[1],
            key_length=key.shape[2],
            head_dim=self.head_dim,
            drops=seed is not None and self.dropout_rate > 0.0,
        )
        core = functools.partial(
            attend,
            dropout_rate=self.dropout_rate,
            dropout_broadcast=self.dropout_broadcast,
            implementation=implementation,
        )
        if self.remat:
            core = jax.checkpoint(core)
        query = self._heads(self.query(x))
        if self.logits_scale != 1.0:
            query = query * np.asarray(self.logits_scale, query.dtype)
        y = core(query, key, value, bias=bias, visible=visible, seed=seed)
        return self.out(y.swapaxes(1, 2).reshape(*x.shape[:2], -1))

    def _heads(self, x: Float[Array, "B T W"]) -> Float[Array, "B N T H"]:
        x = x.reshape(*x.shape[:2], self.num_heads, self.head_dim).swapaxes(1, 2)
        return constrain(x, "batch", "heads", "length", None)


class MLP(nn.Module):
    """activation(x wi) wo, or activation(x wi_0) * (x wi_1) wo when gated (Shazeer 2020, arXiv:2002.05202).

    Dropout falls on the hidden product, one mask for all positions where `dropout_broadcast`. Kernels have biases where
    `use_bias`, and are drawn by `kernel_init` (None: fan-in truncated normal).
    """

    hidden: int
    features: int
    activation: Activation | Literal["gelu_exact"]
    gated: bool
    dtype: jnp.dtype
    dropout_rate: float = 0.0
    dropout_broadcast: bool = True
    use_bias: bool = False
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], seed: Seed | None = None) -> Float[Array, "B T D"]:
        init = fan_in_truncated() if self.kernel_init is None else self.kernel_init

        def dense(name: str) -> Dense:
            return Dense(self.hidden, ("embed", "mlp"), init, self.dtype, use_bias=self.use_bias, name=name)

        y = ACTIVATIONS[self.activation](dense("wi_0" if self.gated else "wi")(x))
        if self.gated:
            y = y * dense("wi_1")(x)
        y = dropout(y, seed, self.dropout_rate, broadcast=1 if self.dropout_broadcast else None)
        y = constrain(y, "batch", "length", "mlp")
        return Dense(self.features, ("mlp", "embed"), init, self.dtype, use_bias=self.use_bias, name="wo")(y)
