"""The published recipe that every size of BERT shares, and the overlay that makes any of them run on a laptop."""

from __future__ import annotations

import dataclasses

from t5x_like.config import Run
from t5x_like.data.inputs import SegmentPairs
from t5x_like.models.encoder import Encoder
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.masking import Unit
from t5x_like.training.adam import berts
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation, Phase
from t5x_like.training.schedules import Linear

SMALL = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "d_ff": 128}
"""What `debug` makes of any encoder."""


def masked(length: int, unit: Unit = "token") -> MaskedLM:
    """Masked LM and next sentence prediction as google-research/bert create_pretraining_data.py writes them: ten
    passes over the text, each with pairs and masks of its own, and the same ten again in every epoch."""
    return MaskedLM(length=length, inputs=SegmentPairs(duplicates=10), fixed_masks=1, unit=unit)


def pretrain(name: str, model: Encoder, unit: Unit = "token") -> Run:
    """Pretraining as published (paper A.2): 1M steps of 256 rows, 900,000 of them at length 128 and the last 100,000
    at 512; learning rate 1e-4 after 10,000 steps of warm-up; the code's optimizer, schedule and clipping (google-
    research/bert optimization.py). Text comes by --data."""
    return Run(
        name=name,
        model=model,
        objective=masked(128, unit),
        batch_size=256,
        steps=1_000_000,
        phases=(Phase(start=900_000, objective=masked(512, unit)),),
        optimizer=berts(),
        schedule=Linear(peak=1e-4, warmup=10_000, form="bert"),
        clip_global_norm=1.0,
        evaluation=Evaluation(every=5_000, batches=20),
        checkpoints=Checkpoints(every=5_000, keep_last=3, keep_best=1),
        log_every=100,
    )


def debug(run: Run) -> Run:
    """The same model family, objective, optimizer and phases at a size that a laptop steps through in a blink."""
    return dataclasses.replace(
        run,
        name=run.name + "-debug",
        model=dataclasses.replace(run.model, **SMALL),
        objective=masked(64),
        batch_size=8,
        steps=20,
        phases=(Phase(start=15, objective=masked(128)),),
        schedule=Linear(peak=1e-3, warmup=4, form="bert"),
        log_every=1,
        evaluation=Evaluation(every=10, batches=2),
        checkpoints=Checkpoints(every=10),
    )
