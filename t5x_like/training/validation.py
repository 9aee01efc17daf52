"""Validation by teacher forcing: the loss of a held-out split, while a run trains and afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from t5x_like.data.batches import Batches
from t5x_like.failpoints import reach
from t5x_like.objectives.base import Losses
from t5x_like.training import distributed, metrics, partitioning
from t5x_like.training.goodput import Ledger
from t5x_like.training.meter import mean
from t5x_like.training.run import Run
from t5x_like.training.run_dir import RunDir
from t5x_like.training.setup import Stage
from t5x_like.training.step import EvalStep


def validate(
    eval_step: EvalStep, params: Any, batches: Batches, mesh: jax.sharding.Mesh, most: int | None = None,
    beat: Callable[[], object] = lambda: None,
) -> dict[str, float]:  # fmt: skip
    """Means over the first `most` batches of a validation split (None: all of it), and `perplexity`. `beat` is
    called after each batch."""
    rows = partitioning.host_rows(batches.batch_size, mesh)
    steps = range(batches.num_batches if most is None else min(most, batches.num_batches))
    sums: list[Losses] = []
    for step in steps:
        reach("validation.batch")
        sums.append(eval_step(params, partitioning.shard_batch(batches(step, rows), mesh)))
        jax.block_until_ready(sums[-2:-1])
        beat()
    values = mean(jax.device_get(sums), batches.objective.terms)
    return values | {"perplexity": math.exp(min(values.get("cross_entropy", values["loss"]), 700.0))}


class Validator:
    """The validations of one call of `train`.

    Args:
      run: the whole run.
      directory: of the run.
      mesh: the devices.
      ledger: where the seconds are filed.
    """

    def __init__(self, run: Run, directory: RunDir, mesh: jax.sharding.Mesh, ledger: Ledger):
        self._run, self._directory, self._mesh, self._ledger = run, directory, mesh, ledger
        self._eval_step: EvalStep | None = None  # compiled for the stage, when it is first wanted
        self._last: tuple[int, float | None] = (-1, None)

    def turn(self) -> None:
        """Another stage begins."""
        self._eval_step = None

    def due(self, step: int) -> bool:
        """Whether `step` is one to validate before."""
        evaluation, checkpoints = self._run.evaluation, self._run.checkpoints
        saved = step % checkpoints.every == 0 and checkpoints.keep_best > 0
        return evaluation.every > 0 and (step % evaluation.every == 0 or saved)

    def done(self, step: int) -> bool:
        """Whether a validation before `step` is on record; where there are no records, it is taken to be."""
        try:
            records = metrics.read(self._directory.metrics)
        except OSError:
            return True
        return any(x["step"] == step and x.get("kind") == "eval" for x in records)

    def loss(self, step: int) -> float | None:
        """The validation loss before `step`, where this call has taken it."""
        return self._last[1] if self._last[0] == step else None

    def __call__(self, step: int, params: Any, stage: Stage, beat: Callable[[], object]) -> dict[str, float]:
        """Validates before `step`, on a stage that has a validation split: see `validate`."""
        held_out = stage.validation
        assert held_out is not None
        eval_step = self._eval_step
        if eval_step is None:
            with self._ledger.during("compile"):
                batch = partitioning.abstract_batch(held_out.features, held_out.batch_size, self._mesh)
                eval_step = self._eval_step = distributed.compiled(stage.eval_step, params, batch)
        with self._ledger.during("evaluation"):
            values = validate(eval_step, params, held_out, self._mesh, self._run.evaluation.batches, beat)
        self._last = (step, values["loss"])
        return values
