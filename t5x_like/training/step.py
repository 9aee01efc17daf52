"""The train step and the evaluation step: pure, jitted functions over a mesh.

    state, sums = train_step(state, batch)        # state is donated
    sums = eval_step(params, batch)

`sums` maps a name to (sum, weight), both on the device: add them up over steps, divide once when they are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t5x_like.objectives.base import Losses, Objective
from t5x_like.training import partitioners
from t5x_like.training import state as states
from t5x_like.training.layout import DEFAULT, Layout
from t5x_like.training.optimizers import Optimizer
from t5x_like.training.partitioning import replicated
from t5x_like.training.schedules import Schedule
from t5x_like.training.state import Model, TrainState

DeviceBatch = dict[str, jax.Array]
Weights = dict[str, Float[Array, ""]]
EvalStep = Callable[[Any, DeviceBatch], Losses]


class TrainStep(Protocol):
    """What `make_train_step` returns."""

    def __call__(self, state: TrainState, batch: DeviceBatch, /) -> tuple[TrainState, Losses]: ...

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Ahead of time, from `jax.ShapeDtypeStruct`s with shardings (`state.abstract`)."""
        ...


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: Optimizer,
    schedule: Schedule,
    mesh: jax.sharding.Mesh,
    *,
    microbatches: int = 1,
    seed: int = 0,
    clip_global_norm: float | None = None,
    layout: Layout = DEFAULT,
    partitioner: partitioners.Kind = "jit",
) -> TrainStep:
    """A jitted `(state, batch) -> (state, sums)`; it donates the state and can be lowered ahead of time.

    The loss that is minimised is the sum of factor * (sum / weight over the whole batch) of `objective.terms`:
    losses, weights and gradients are summed over microbatches, rows and devices, so that none of these changes the
    update. Where the loss or the gradient is not finite (a term has no weight), parameters and optimizer state stay
    as they were, and `step` and `skipped` go up.

    Args:
      model, objective, optimizer, schedule: of the run; the schedule knows its length (`schedule.over`).
      mesh: from `partitioning.Mesh.build`.
      microbatches: parts of the batch that are worked on one after the other; memory for time.
      seed: of dropout: the masks of a step are a function of (seed, step, microbatch).
      clip_global_norm: gradients are scaled down to this norm (Pascanu et al. 2013); None clips nothing.
      layout: logical axis names -> mesh axes.
      partitioner: how the step is split over the mesh; losses and updates are the same.

    Returns:
      The step. Its sums hold those of `objective.loss`, and with weight 1 a step `grad_norm` (of the mean loss,
      before clipping), `learning_rate`, and `nonfinite` (1 where the update was skipped). A skipped step adds
      (0, 0) to all but the last, so that one bad batch does not spoil the mean of a hundred.
    """
    transformation = optimizer.build(schedule, model.logical_axes())
    terms, (one, *several) = objective.terms, objective.terms
    split = partitioners.make(partitioner, mesh, layout)
    wanted = states.abstract(model, optimizer, schedule, mesh, layout)
    placed = jax.tree.map(lambda leaf: leaf.sharding, wanted)

    def gradients(params: Any, batch: DeviceBatch, key: Array, weights: Weights | None) -> tuple[Any, Losses]:
        """Gradient of the terms' sums over the rows of `batch`, laid out as the parameters are, and all sums.

        One term alone is divided by its weight when all sums are there. Several differ in their weights, so each
        is divided here: by `weights`, those of the whole batch, or where `batch` is the whole by its own.
        """

        def total(params: Any) -> tuple[Float[Array, ""], Losses]:
            losses = objective.loss(model, params, batch, {"dropout": key})
            if not several:
                return terms[one] * losses[one][0], losses
            whole = weights or split.total({name: losses[name][1] for name in terms})
            divided = [f * losses[n][0] / jax.lax.stop_gradient(whole[n]) for n, f in terms.items()]
            return jnp.sum(jnp.stack(divided)), losses

        grads, losses = jax.grad(total, has_aux=True)(params)
        return split.lay_out(grads, placed.params), losses

    def accumulated(params: Any, batch: DeviceBatch, key: Array) -> tuple[Any, Losses]:
        if microbatches == 1:
            return gradients(params, batch, jax.random.fold_in(key, 0), None)
        weights = None
        if several:
            # Weights depend on the batch alone: of this forward pass XLA keeps no more than their sums.
            losses = objective.loss(model, params, batch, None)
            weights = split.total({name: losses[name][1] for name in terms})

        def add(sums: Any, item: tuple[Any, Array]) -> tuple[Any, None]:
            part, index = item
            found = gradients(params, part, jax.random.fold_in(key, index), weights)
            return jax.tree.map(jnp.add, sums, found), None

        parts = {name: split.microbatches(rows, microbatches) for name, rows in batch.items()}
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradients, params, first, key, weights)
        )
        return jax.lax.scan(add, zeros, (parts, jnp.arange(microbatches)))[0]

    def train_step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Losses]:
        with split.tracing():
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            grads, losses = split.total(accumulated(state.params, batch, key))
        with jax.named_scope("optimizer"):
            loss = sum(losses[name][0] for name in terms)
            divisor = 1.0 if several else losses[one][1]
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))) / divisor
            finite = jnp.isfinite(loss) & jnp.isfinite(norm)
            scale = 1.0 / divisor
            if clip_global_norm is not None:
                scale *= jnp.minimum(1.0, clip_global_norm / norm)

            def update(params: Any, opt_state: Any) -> tuple[Any, Any]:
                mean = jax.tree.map(lambda g: g * scale, grads)
                updates, opt_state = transformation.update(mean, opt_state, params)
                return jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates), opt_state

            # A branch, not a `where` on every array: that cost three times the AdamW update on CPU.
            params, opt_state = jax.lax.cond(
                finite, update, lambda *unchanged: unchanged, state.params, state.opt_state
            )
        rate = schedule(state.step - state.skipped)
        sums = {**losses, "grad_norm": (norm, jnp.ones(())), "learning_rate": (rate, jnp.ones(()))}
        sums = jax.tree.map(lambda x: jnp.where(finite, x, 0), sums)
        sums["nonfinite"] = (1.0 - finite.astype(jnp.float32), jnp.ones(()))
        skipped = state.skipped + (~finite).astype(jnp.int32)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state, skipped=skipped), sums

    return split.wrap(train_step, placed, (placed, replicated(mesh)), donate=[0])


def make_eval_step(
    model: Model,
    objective: Objective,
    mesh: jax.sharding.Mesh,
    *,
    layout: Layout = DEFAULT,
    partitioner: partitioners.Kind = "jit",
) -> EvalStep:
    """A jitted `(params, batch) -> sums` by teacher forcing, without dropout; nothing is donated."""

    split = partitioners.make(partitioner, mesh, layout)

    def eval_step(params: Any, batch: DeviceBatch) -> Losses:
        with split.tracing():
            return split.total(objective.loss(model, params, batch, None))

    return split.wrap(eval_step, None, replicated(mesh))
