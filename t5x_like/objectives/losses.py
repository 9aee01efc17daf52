"""Losses over a vocabulary, in float32 and as sums, whatever the type of the logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.objectives.base import Losses


def softmax_losses(
    logits: Float[Array, "*B V"],
    targets: Int[Array, "*B"],
    weights: Float[Array, "*B"],
    *,
    z_loss: float = 0.0,
    t5x_label_smoothing: float = 0.0,
) -> Losses:
    """Cross entropy as `logsumexp(logits) - logits[target]`, with T5's two companions.

    Args:
      weights: of each target; places of weight 0 change nothing.
      z_loss: factor of `logsumexp(logits)^2` (t5x/losses.py; 1e-4 for T5).
      t5x_label_smoothing: s of T5X's definition: the target has probability 1 - s, each *other* id s / (V - 1), and
        the entropy of that distribution is subtracted, so that the least possible loss is 0. (Mesh TensorFlow
        spreads s over all V ids, the target included, and subtracts nothing; UniLM over all but pad and target.)
        V counts every column of the logits, padding rows of the table included.

    Returns: (sum, weight) of
      loss: cross entropy (smoothed) + z-loss: what is minimised.
      cross_entropy: nats a target, never smoothed.
      z_loss: the part of `loss` that it is.
      accuracy: targets whose logit is the largest (ties count).
    """
    logits = logits.astype(jnp.float32)
    weights = weights.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A comparison that XLA fuses into the sum: no one-hot in memory, and unlike a gather it leaves logits that are
    # sharded over V where they are and has no scatter as its gradient.
    is_target = jnp.arange(logits.shape[-1], dtype=targets.dtype) == targets[..., None]
    at_target = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    nll = log_z - at_target
    loss = nll
    if t5x_label_smoothing:
        loss = _smoothed(nll, log_z, logits, t5x_label_smoothing)
    z = z_loss * jnp.square(log_z)
    right = at_target >= jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    weight = jnp.sum(weights)
    sums = {"loss": loss + z, "cross_entropy": nll, "z_loss": z, "accuracy": right.astype(jnp.float32)}
    return {name: (jnp.sum(value * weights), weight) for name, value in sums.items()}


def _smoothed(
    nll: Float[Array, "*B"], log_z: Float[Array, "*B"], logits: Float[Array, "*B V"], smoothing: float
) -> Float[Array, "*B"]:
    """Cross entropy against the smoothed target, less that target's entropy."""
    others = logits.shape[-1] - 1
    confidence, rest = 1.0 - smoothing, smoothing / others
    everything = (others + 1) * log_z - jnp.sum(logits, axis=-1)  # negative log-likelihood summed over V
    entropy = -(confidence * jnp.log(confidence) + smoothing * jnp.log(rest))
    return (confidence - rest) * nll + rest * everything - entropy
