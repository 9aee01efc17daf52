"""The published recipe that both sizes of RoBERTa share, and the overlay that makes them run on a laptop."""

from __future__ import annotations

import dataclasses

from configs.bert._recipe import SMALL
from t5x_like.config import Run
from t5x_like.data.inputs import FullSentences, InputFormat
from t5x_like.models.encoder import Encoder
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.training.adam import robertas
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Linear


def masked(length: int, inputs: InputFormat) -> MaskedLM:
    """Masking as in fairseq data/mask_tokens_dataset.py: new masks in every epoch, <s> and </s> can be hidden,
    random ids are those of text (and <mask>)."""
    return MaskedLM(
        length=length, inputs=inputs, rounding="random", mask_specials=True, random_ids="ordinary"
    )


def pretrain(name: str, model: Encoder, *, peak: float, warmup: int) -> Run:
    """Pretraining as published (paper, table 9): 500,000 steps of 8,192 rows of 512, full sentences; fairseq's Adam,
    no clipping, linear decay to 0. Text comes by --data."""
    return Run(
        name=name,
        model=model,
        objective=masked(512, FullSentences()),
        batch_size=8192,
        steps=500_000,
        optimizer=robertas(),
        schedule=Linear(peak=peak, warmup=warmup),
        evaluation=Evaluation(every=5_000, batches=20),
        checkpoints=Checkpoints(every=5_000, keep_last=3, keep_best=1),
        log_every=100,
    )


def debug(run: Run) -> Run:
    """The same model family, objective and optimizer at a size that a laptop steps through in a blink."""
    return dataclasses.replace(
        run,
        name=run.name + "-debug",
        model=dataclasses.replace(run.model, **SMALL),
        objective=dataclasses.replace(run.objective, length=64),
        batch_size=8,
        steps=20,
        schedule=Linear(peak=1e-3, warmup=4),
        log_every=1,
        evaluation=Evaluation(every=10, batches=2),
        checkpoints=Checkpoints(every=10),
    )
