"""What a run needs apart from its state: opened, checked against each other, and described on disk."""

from __future__ import annotations

import dataclasses

import jax

from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.training import partitioning, start
from t5x_like.training.checkpoints import Record
from t5x_like.training.run import Run, describe, to_json
from t5x_like.training.run_dir import RunDir
from t5x_like.training.step import EvalStep, TrainStep, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run needs apart from its state.

    Attributes:
      rows: of the global batch, that this host feeds.
      validation: None where the run never validates.
      start: the step that the run starts or resumes from.
    """

    mesh: jax.sharding.Mesh
    rows: slice
    batches: Batches
    validation: Batches | None
    train_step: TrainStep
    eval_step: EvalStep
    start: int


def set_up(run: Run, directory: RunDir, record: Record | None) -> Setup:
    """Opens the data and checks all that can be checked before anything is compiled; describes the run on disk."""
    mesh = run.mesh.build()
    partitioning.check_batch(run.batch_size, run.microbatches, mesh)
    batches = Batches(run.data, run.objective, run.batch_size, run.seed)
    run.objective.check(run.model, batches.vocabulary)
    validation = None
    if run.evaluation.every:
        validation = Batches(run.data, run.objective, run.batch_size, run.seed, split="validation")
    if record is not None:
        start.check_data(record, batches, directory)
    try:
        directory.describe(to_json(run), describe(run), [str(d) for d in mesh.devices.flat])
        batches.tokenizer.save(directory.tokenizer)
    except OSError as e:
        raise UserError(
            f"the run directory cannot be written: {e}", where=str(directory.path), code=Exit.CANNOT_WRITE
        ) from None
    return Setup(
        mesh=mesh,
        rows=partitioning.host_rows(run.batch_size, mesh),
        batches=batches,
        validation=validation,
        train_step=make_train_step(
            run.model, run.objective, run.optimizer, run.schedule.over(run.steps), mesh,
            microbatches=run.microbatches, seed=run.seed, clip_global_norm=run.clip_global_norm,
        ),
        eval_step=make_eval_step(run.model, run.objective, mesh),
        start=record.step if record else 0,
    )  # fmt: skip
