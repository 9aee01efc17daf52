"""What is planned: the steps between two changes of a run, their batch, and the bytes that its state takes a device."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax

from t5x_like.data.batches import batch_features
from t5x_like.data.example import Feature, Vocabulary
from t5x_like.training import partitioning, state
from t5x_like.training.layout import Layout
from t5x_like.training.meter import step_flops, token_slots
from t5x_like.training.run import Run, located

AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
SECONDS_A_DAY = 86400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of a run in which every step does the same.

    Attributes:
      run: as it is there (`Run.at`).
      start, stop: steps.
      features: of its batch.
    """

    run: Run
    start: int
    stop: int
    features: dict[str, Feature]

    @property
    def flops(self) -> float:
        """Of the matrix products of one step, by formula, recomputation left out."""
        return step_flops(self.run.model, self.features, self.run.batch_size)

    @property
    def tokens(self) -> int:
        """Places for tokens in one step, padding included."""
        return token_slots(self.features, self.run.batch_size)

    def replace(self, run: Run) -> Stage:
        """The same stretch of a run with other settings."""
        return dataclasses.replace(self, run=run, features=_features(run))


def stages(run: Run) -> tuple[Stage, ...]:
    """Those of a run, in order."""
    return tuple(
        Stage(run=now, start=start, stop=stop, features=_features(now)) for start, stop, now in run.stages()
    )


def _features(run: Run) -> dict[str, Feature]:
    """Without a tokenizer: the shapes of a batch depend on the objective alone."""
    unknown = Vocabulary(size=1 << 20, bos=3, mask=4, cls=5, sep=6)
    return batch_features(run.data, run.objective, unknown)


def check(run: Run, mesh: AnyMesh) -> None:
    """Raises `UserError` where a batch of some stage, its lengths or the vocabulary do not divide over the mesh, as
    training would."""
    partitioning.check_vocabulary(run.model.vocab_size, mesh, run.mesh.layout())  # type: ignore[arg-type]
    for number, (_, _, now) in enumerate(run.stages()):
        with located(f"phases.{number - 1}." if number else ""):
            partitioning.check_batch(now.batch_size, now.microbatches, mesh)  # type: ignore[arg-type]
            partitioning.check_lengths(_features(now), mesh)  # type: ignore[arg-type]


def state_bytes(run: Run, mesh: AnyMesh) -> dict[str, int]:
    """Bytes a device of the train state: {"parameters": ..., "optimizer": ...}."""
    schedule, layout = run.schedule.over(run.steps), run.mesh.layout()
    return dict(_state_bytes(run.model, run.optimizer, schedule, mesh, layout))


@functools.lru_cache(maxsize=1024)
def _state_bytes(model: Any, optimizer: Any, schedule: Any, mesh: AnyMesh, layout: Layout) -> dict[str, int]:
    placed = state.abstract(model, optimizer, schedule, mesh, layout)  # type: ignore[arg-type]
    return {"parameters": _shard_bytes(placed.params), "optimizer": _shard_bytes(placed.opt_state)}


def _shard_bytes(tree: Any) -> int:
    """Bytes of one device's shards of `jax.ShapeDtypeStruct`s."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
