"""The published recipe that every size of ELECTRA shares, and the overlay that makes any of them run on a laptop."""

from __future__ import annotations

import dataclasses

from configs.bert._recipe import SMALL
from t5x_like.config import Run
from t5x_like.models.electra import Electra
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.training.adam import berts
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Linear


def pretrain(
    name: str,
    model: Electra,
    *,
    length: int,
    batch_size: int,
    peak: float,
    steps: int,
    mask_rate: float = 0.15,
) -> Run:
    """Pretraining as published (paper, table 6; configure_pretraining.py of google-research/electra): BERT's
    optimizer, the product of a ramp of 10,000 steps and a falling line, clipping at 1. Text comes by --data."""
    return Run(
        name=name,
        model=model,
        objective=ReplacedTokenDetection(length=length, mask_rate=mask_rate),
        batch_size=batch_size,
        steps=steps,
        optimizer=berts(),
        schedule=Linear(peak=peak, warmup=10_000, form="electra"),
        clip_global_norm=1.0,
        evaluation=Evaluation(every=5_000, batches=20),
        checkpoints=Checkpoints(every=5_000, keep_last=3, keep_best=1),
        log_every=100,
    )


def debug(run: Run) -> Run:
    """The same model family, objective and optimizer at a size that a laptop steps through in a blink."""
    assert isinstance(run.model, Electra)
    encoder = dataclasses.replace(run.model.encoder, **SMALL, embedding_size=32)
    return dataclasses.replace(
        run,
        name=run.name + "-debug",
        model=dataclasses.replace(run.model, encoder=encoder),
        objective=dataclasses.replace(run.objective, length=64),
        batch_size=8,
        steps=20,
        schedule=Linear(peak=1e-3, warmup=4, form="electra"),
        log_every=1,
        evaluation=Evaluation(every=10, batches=2),
        checkpoints=Checkpoints(every=10),
    )
