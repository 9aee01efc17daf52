"""What a run needs apart from its state: opened, checked against each other, and described on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from t5x_like.data import changes
from t5x_like.data.batches import Batches, Skips
from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach
from t5x_like.training import parameters, partitioning, start
from t5x_like.training.checkpoints import Record
from t5x_like.training.meter import step_flops
from t5x_like.training.run import Run, describe, located, to_json
from t5x_like.training.run_dir import RunDir, write_atomically
from t5x_like.training.step import EvalStep, TrainStep, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What the steps between two changes of a run need apart from its state.

    Attributes:
      run: as it is there (`Run.at`).
      start, stop: steps.
      rows: of the global batch, that this host feeds.
      validation: None where the run never validates.
    """

    run: Run
    start: int
    stop: int
    rows: slice
    batches: Batches
    validation: Batches | None
    train_step: TrainStep
    eval_step: EvalStep

    @property
    def flops(self) -> float:
        """Of the matrix products of one step."""
        return step_flops(self.run.model, self.batches.features, self.run.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """All stages of a run, in order, the step that it starts or resumes from, the table of its parameters, and what
    changed in the data since."""

    mesh: jax.sharding.Mesh
    stages: tuple[Stage, ...]
    start: int
    parameters: str
    changed: tuple[str, ...] = ()

    @property
    def ahead(self) -> tuple[Stage, ...]:
        """The stages that are not over: at least the last."""
        return tuple(stage for stage in self.stages if stage.stop > self.start) or self.stages[-1:]


def set_up(
    run: Run,
    directory: RunDir,
    record: Record | None,
    skips: Skips = (),
    *,
    allow_data_change: bool = False,
    strict: bool = False,
) -> Setup:
    """Opens the data and checks all that can be checked before anything is compiled; describes the run on disk.
    `skips`: the training batches that are left out."""
    mesh = run.mesh.build()
    stages = tuple(_stage(run, number, mesh, skips, *span) for number, span in enumerate(run.stages()))
    batches = stages[0].batches
    table = parameters.table(run.model.logical_axes(), run.model.abstract_params(), mesh, run.mesh.layout())
    changed = []
    if record is not None:
        changed = start.check_data(record, batches, directory, allow=allow_data_change)
        if strict:
            start.check_arithmetic(run, mesh, directory)
    if changed:
        directory.event("data_changed", step=record.step if record else 0, told=changed)
    try:
        directory.describe(to_json(run), describe(run), [str(d) for d in mesh.devices.flat], dict(mesh.shape))
        directory.write_data(changes.describe(batches))
        if directory.writes:
            batches.tokenizer.save(directory.tokenizer)
            write_atomically(directory.parameters, table + "\n")
    except OSError as e:
        raise UserError(
            f"the run directory cannot be written: {e}", where=str(directory.path), code=Exit.CANNOT_WRITE
        ) from None
    reach("run.described")
    begins = record.step if record else 0
    return Setup(mesh=mesh, stages=stages, start=begins, parameters=table, changed=tuple(changed))


def _stage(
    run: Run, number: int, mesh: jax.sharding.Mesh, skips: Skips, begins: int, ends: int, now: Run
) -> Stage:
    how: Any = {"layout": run.mesh.layout(), "partitioner": run.mesh.partitioner}
    with located(f"phases.{number - 1}." if number else ""):
        partitioning.check_batch(now.batch_size, now.microbatches, mesh)
        partitioning.check_vocabulary(now.model.vocab_size, mesh, run.mesh.layout())
        batches = Batches(now.data, now.objective, now.batch_size, now.seed, skips=skips)
        now.objective.check(now.model, batches.vocabulary)
        partitioning.check_lengths(batches.features, mesh)
        validation = None
        if now.evaluation.every:
            validation = Batches(now.data, now.objective, now.batch_size, now.seed, split="validation")
    return Stage(
        run=now,
        start=begins,
        stop=ends,
        rows=partitioning.host_rows(now.batch_size, mesh),
        batches=batches,
        validation=validation,
        train_step=make_train_step(
            now.model, now.objective, now.optimizer, now.schedule.over(run.steps), mesh,
            microbatches=now.microbatches, seed=now.seed, clip_global_norm=now.clip_global_norm, **how,
        ),
        eval_step=make_eval_step(now.model, now.objective, mesh, **how),
    )  # fmt: skip
