"""RoBERTa large (355,412,057 parameters with the head of masked language modelling).

Paper: Liu et al. 2019, arXiv:1907.11692.
Command: python -m t5x_like.train --config=roberta/large --data=DIR --workdir=DIR
Hardware: a TPU slice of 256 chips (1,024 V100 in the paper); any laptop for `roberta/large:debug`.
Expected: MNLI 90.2, SST-2 96.4, CoLA 68.0, RTE 86.6 (dev, paper table 5).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.roberta import _recipe
from t5x_like.config import Run
from t5x_like.models.roberta import roberta


def config() -> Run:
    return _recipe.pretrain("roberta-large", roberta("large"), peak=4e-4, warmup=30_000)


def debug() -> Run:
    return _recipe.debug(config())
