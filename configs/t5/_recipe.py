"""The published recipe that every size of T5 shares, and the overlay that makes any of them run on a laptop."""

from __future__ import annotations

import dataclasses

from t5x_like.config import Run
from t5x_like.models.t5 import T5
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.optimizers import Adafactor
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Rsqrt


def pretrain(name: str, model: T5) -> Run:
    """Pretraining as published: 1M steps of 2048 x 512 tokens (paper section 3.6), span corruption at 15 % in
    spans of 3 (section 3.3.4), Adafactor with 1/sqrt(max(step, 10^4)) (section 3.1.2). Text comes by --data."""
    return Run(
        name=name,
        model=model,
        objective=SpanCorruption(inputs_length=512, noise_density=0.15, mean_span_length=3.0, z_loss=1e-4),
        batch_size=2048,
        steps=1_000_000,
        optimizer=Adafactor(),
        schedule=Rsqrt(),
        evaluation=Evaluation(every=5_000, batches=20),
        checkpoints=Checkpoints(every=5_000, keep_last=3, keep_best=1),
        log_every=100,
    )


def debug(run: Run) -> Run:
    """The same model family, objective and optimizer at a size that a laptop steps through in a blink."""
    model = dataclasses.replace(
        run.model, d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=2
    )
    return dataclasses.replace(
        run,
        name=run.name + "-debug",
        model=model,
        objective=SpanCorruption(inputs_length=64, z_loss=1e-4),
        batch_size=8,
        steps=20,
        log_every=1,
        evaluation=Evaluation(every=10, batches=2),
        checkpoints=Checkpoints(every=10),
    )
