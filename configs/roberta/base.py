"""RoBERTa base (124,697,433 parameters with the head of masked language modelling).

Paper: Liu et al. 2019, arXiv:1907.11692.
Command: python -m t5x_like.prepare --input=... --output=DIR --model_type=bytebpe --vocab_size=50265
         python -m t5x_like.train --config=roberta/base --data=DIR --workdir=DIR
         python -m t5x_like.train --config=roberta/base:fairseq --data=DIR --workdir=DIR (fairseq's example)
Hardware: a TPU slice of 64 chips or more; any laptop for `roberta/base:debug`.
Expected: MNLI 87.6, SST-2 94.8, CoLA 63.6, RTE 78.7 (dev, fairseq README).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

import dataclasses

from configs.roberta import _recipe
from t5x_like.config import Run
from t5x_like.models.roberta import roberta
from t5x_like.training.schedules import Linear


def config() -> Run:
    return _recipe.pretrain("roberta-base", roberta("base"), peak=6e-4, warmup=24_000)


def fairseq() -> Run:
    """examples/roberta/config/pretraining/base.yaml of fairseq: 125,000 steps of 2,048 rows."""
    return dataclasses.replace(
        config(),
        name="roberta-base-fairseq",
        batch_size=2048,
        steps=125_000,
        schedule=Linear(peak=5e-4, warmup=10_000),
    )


def debug() -> Run:
    return _recipe.debug(config())
