"""T5 1.1 tiny: small enough to learn something on two CPU cores in minutes.

Command: python -m t5x_like.train --config=t5/tiny --data=DIR --workdir=DIR
Hardware: a laptop.
"""

from __future__ import annotations

import dataclasses

from configs.t5 import _recipe
from t5x_like.config import Run
from t5x_like.models.t5 import t5_1_0, t5_1_1
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Rsqrt

SIZE = {
    "vocab_size": 8192,
    "d_model": 256,
    "d_kv": 64,
    "num_heads": 4,
    "d_ff": 512,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "dtype": "float32",
    "scan_layers": False,
}


def _shrink(run: Run) -> Run:
    return dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, **SIZE),
        objective=SpanCorruption(inputs_length=128, z_loss=1e-4),
        batch_size=32,
        steps=5_000,
        schedule=Rsqrt(warmup=1_000),
        evaluation=Evaluation(every=250, batches=10),
        checkpoints=Checkpoints(every=250),
        log_every=10,
    )


def v1_0() -> Run:
    return _shrink(_recipe.pretrain("t5-1.0-tiny", t5_1_0("small")))


def v1_1() -> Run:
    return _shrink(_recipe.pretrain("t5-1.1-tiny", t5_1_1("small")))


def config() -> Run:
    return v1_1()


def debug() -> Run:
    return _recipe.debug(config())
