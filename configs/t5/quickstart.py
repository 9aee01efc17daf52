"""The quickstart: a T5 1.1 that learns visibly from the embedded corpus in about two minutes on two CPU cores.

Command: make quickstart, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded --vocab_size=4096
         python -m t5x_like.train --config=t5/quickstart --data=data/embedded --workdir=runs/quickstart --cpu_devices=2
Hardware: a laptop CPU.
Expected: validation loss more than 1.0 nat per target token below the unigram entropy of the same targets.
Measured here: see docs/families/t5.md.
"""

from __future__ import annotations

import dataclasses

from configs.t5 import tiny
from t5x_like.config import Run
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Linear


def config() -> Run:
    run = tiny.config()
    model = dataclasses.replace(
        run.model, vocab_size=4096, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_decoder_layers=2
    )
    return dataclasses.replace(
        run,
        name="t5-quickstart",
        model=model,
        batch_size=16,
        steps=800,
        # A ramp and a decay to 0, where T5 has neither: a run this short ends before T5's schedule begins to fall.
        schedule=Linear(peak=0.03, warmup=20),
        evaluation=Evaluation(every=200, batches=20),
        checkpoints=Checkpoints(every=200),
    )
