"""The quickstart: a small ELECTRA that learns visibly from the embedded corpus in about two minutes on two CPU cores.

Command: make quickstart FAMILY=electra, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded-wordpiece --model_type=wordpiece \\
             --lowercase --vocab_size=4096
         python -m t5x_like.train --config=electra/quickstart --data=data/embedded-wordpiece --workdir=runs/electra \\
             --cpu_devices=2
Hardware: a laptop CPU.
Expected: the generator's validation loss visibly below the unigram entropy of the hidden tokens, and a detector better
than the one that takes every token for original.
Measured here: see docs/families/electra.md.
"""

from __future__ import annotations

import dataclasses

from configs.bert.quickstart import SIZE
from configs.electra import small
from t5x_like.config import Run
from t5x_like.models.electra import Electra
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Linear


def config() -> Run:
    run = small.config()
    assert isinstance(run.model, Electra)
    encoder = dataclasses.replace(
        run.model.encoder, **SIZE, embedding_size=128, dropout=0.0, attention_dropout=0.0
    )
    return dataclasses.replace(
        run,
        name="electra-quickstart",
        model=dataclasses.replace(run.model, encoder=encoder, generator_hidden=0.5),
        objective=ReplacedTokenDetection(length=64),
        batch_size=32,
        steps=1200,
        schedule=Linear(peak=5e-4, warmup=60),
        evaluation=Evaluation(every=300, batches=20),
        checkpoints=Checkpoints(every=300),
        log_every=10,
    )
