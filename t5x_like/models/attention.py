"""Attention through one interface: bias, mask, segment ids and dropout in; the platform's best kernel inside.

Nothing is scaled here: a family that divides by sqrt(H) scales its queries (T5 does not: the factor lives in its
initialiser). Layout is [B, N, T, H] for queries and [B, N, S, H] for keys and values, the one that batched matrix
products want on CPU and that the TPU kernel takes as it is.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from t5x_like.errors import UserError
from t5x_like.models import sharding
from t5x_like.models.dropout import Seed, dropout
from t5x_like.models.products import add_to_rows

Implementation = Literal["einsum", "xla", "cudnn", "flash"]
"""einsum: ours, any argument. xla: `jax.nn.dot_product_attention` without a fused kernel, for comparison.
cudnn: its fused kernel on NVIDIA GPUs. flash: the Pallas kernel on TPUs."""

MASKED = -1e10
"""Logit of a pair that may not attend. Finite, so that a row with no visible key gives numbers, not NaN."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visible:
    """Which keys a query may attend to: the conjunction of what is given. Nothing given hides nothing.

    Attributes:
      mask: [B or 1, N or 1, T or 1, S], true where attention is allowed (causal, prefix, padding).
      segments: ids of queries [B, T] and keys [B, S]: a query sees keys of its own id, and never id 0 (padding).
    """

    mask: Bool[Array, "#B #N #T S"] | None = None
    segments: tuple[Int[Array, "B T"], Int[Array, "B S"]] | None = None

    def combined(self) -> Bool[Array, "#B #N #T S"] | None:
        """One boolean array of all that is given, or None."""
        if self.segments is None:
            return self.mask
        query, key = self.segments
        together = (query[:, None, :, None] == key[:, None, None, :]) & (key != 0)[:, None, None, :]
        return together if self.mask is None else together & self.mask


jax.tree_util.register_dataclass(Visible, data_fields=["mask", "segments"], meta_fields=[])


def attend(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B N S H"],
    value: Float[Array, "B N S H"],
    *,
    bias: Float[Array, "#B N T S"] | None = None,
    visible: Visible | None = None,
    seed: Seed | None = None,
    dropout_rate: float = 0.0,
    dropout_broadcast: bool = True,
    implementation: Implementation = "einsum",
) -> Float[Array, "B N T H"]:
    """softmax(query keyᵀ + bias, masked) value; softmax in float32, the rest in the dtype of `query`.

    Args:
      query, key, value: unscaled projections.
      bias: added to the logits (relative positions), float32.
      visible: who may see whom.
      seed, dropout_rate: dropout on the probabilities; `seed=None` for none.
      dropout_broadcast: one mask for all queries of a row and head (t5x/examples/t5/layers.py), else one a pair.
      implementation: only "einsum" has dropout; `choose` picks one.
    """
    mask = visible.combined() if visible is not None else None
    if implementation == "einsum":
        logits = jnp.einsum("bnth,bnsh->bnts", query, key, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = add_to_rows(logits, bias) if bias.shape[0] == 1 else logits + bias
        if mask is not None:
            logits = jnp.where(mask, logits, MASKED)
        weights = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
        weights = dropout(weights, seed, dropout_rate, broadcast=2 if dropout_broadcast else None)
        return jnp.einsum("bnts,bnsh->bnth", weights, value)
    if seed is not None and dropout_rate > 0.0:
        raise ValueError(f"attention {implementation!r} has no dropout on the probabilities")
    if implementation == "flash":
        return _flash(query, key, value, bias, mask)
    out = jax.nn.dot_product_attention(
        query.swapaxes(1, 2),
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        bias=_full_length(bias, query, key, query.dtype),
        mask=_full_length(mask, query, key, np.bool_),
        scale=1.0,
        implementation=implementation,
    )
    return out.swapaxes(1, 2)


def choose(
    *,
    wanted: Literal["auto", "einsum", "fused"],
    platform: str,
    dtype: jnp.dtype,
    query_length: int,
    key_length: int,
    head_dim: int,
    drops: bool,
) -> Implementation:
    """The implementation for one attention call.

    "auto" takes the platform's fused kernel where it fits the call and einsum elsewhere; "fused" raises
    `UserError` with the reason where it does not fit, so that nobody times the wrong thing.
    """
    if wanted == "einsum" or query_length == 1:  # one query (a decoding step) leaves nothing to fuse
        return "einsum"
    obstacle = fused_obstacle(platform=platform, dtype=dtype, drops=drops, head_dim=head_dim)
    if obstacle is None and platform == "tpu" and (query_length % 128 or key_length % 128):
        obstacle = f"the TPU kernel needs lengths divisible by 128, not {query_length} and {key_length}"
    if obstacle is None and platform == "gpu" and (query_length % 2 or key_length % 2):
        obstacle = f"cuDNN with a trained bias needs even lengths, not {query_length} and {key_length}"
    if obstacle is None:
        return "flash" if platform == "tpu" else "cudnn"
    if wanted == "fused":
        raise UserError(
            f"attention 'fused' cannot run: {obstacle}",
            where="model.attention",
            help="'auto' takes the fused kernel where it fits and einsum elsewhere",
        )
    return "einsum"


def fused_obstacle(*, platform: str, dtype: jnp.dtype, drops: bool, head_dim: int) -> str | None:
    """Why this platform has no fused attention for such a model, or None where it has.

    Limits of `jax.nn.dot_product_attention(implementation="cudnn")` and of
    `jax.experimental.pallas.ops.tpu.flash_attention` as of jax 0.10.
    """
    if platform not in ("gpu", "tpu"):
        return f"there is no fused attention on {platform}"
    if drops:
        return "the fused kernels have no dropout on attention probabilities"
    if platform == "gpu" and dtype != jnp.bfloat16:
        return f"cuDNN attention needs bfloat16, not {jnp.dtype(dtype).name}"
    if platform == "gpu" and (head_dim % 8 or head_dim > 128):
        return f"cuDNN attention needs a head size divisible by 8 and at most 128, not {head_dim}"
    return None


def _full_length(x: Array | None, query: Array, key: Array, dtype: jnp.dtype | type) -> Array | None:
    """cuDNN takes a bias or mask of length 1 in batch and heads, but never in T and S."""
    if x is None:
        return None
    return jnp.broadcast_to(x.astype(dtype), (*x.shape[:2], query.shape[2], key.shape[2]))


def _flash(query: Array, key: Array, value: Array, bias: Array | None, mask: Array | None) -> Array:
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas  # only TPU builds carry it whole

    shape = (*query.shape[:3], key.shape[2])
    added = (
        jnp.zeros(shape, jnp.float32) if bias is None else jnp.broadcast_to(bias, shape).astype(jnp.float32)
    )
    if mask is not None:
        added = jnp.where(mask, added, MASKED)

    def kernel(query: Array, key: Array, value: Array, added: Array) -> Array:
        return pallas.flash_attention(query, key, value, ab=added, sm_scale=1.0)

    held = sharding.active()
    if held is None or held[0].size == 1:
        return kernel(query, key, value, added)
    # XLA cannot split a kernel by itself: each device runs it on its own rows and heads.
    mesh, rules = held
    whole = sharding.partition_spec(("batch", "heads", None, None), query.shape, mesh, rules)
    queries = sharding.partition_spec(("batch", "heads", "length", None), query.shape, mesh, rules)
    if NamedSharding(mesh, queries).shard_shape(query.shape)[2] % 128:  # too short a stretch for the kernel
        queries = whole
    on_each = jax.shard_map(
        kernel, mesh=mesh, in_specs=(queries, whole, whole, queries), out_specs=queries, check_vma=False
    )
    return on_each(query, key, value, added)
