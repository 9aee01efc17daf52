"""The quickstart: a small BERT that learns visibly from the embedded corpus in about two minutes on two CPU cores.

Command: make quickstart FAMILY=bert, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded-wordpiece --model_type=wordpiece \\
             --lowercase --vocab_size=4096
         python -m t5x_like.train --config=bert/quickstart --data=data/embedded-wordpiece --workdir=runs/bert \\
             --cpu_devices=2
Hardware: a laptop CPU.
Expected: validation loss of the hidden tokens visibly below their unigram entropy.
Measured here: see docs/families/bert.md.
"""

from __future__ import annotations

import dataclasses

from configs.bert import _recipe, tiny
from t5x_like.config import Run
from t5x_like.data.inputs import SegmentPairs
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Linear

SIZE = {
    **_recipe.SMALL,
    "vocab_size": 4096,
    "hidden_size": 128,
    "num_heads": 4,
    "d_ff": 512,
    "max_positions": 64,
    "scan_layers": False,
    # The published 0.02 suits 768 and wider. At 128 attention then starts almost even, and the loss stays at the
    # unigram entropy for all of a run this short; so it does where every place is a stranger to its neighbours.
    "stddev": 0.1,
    "position_init": "sinusoid",
}


def config() -> Run:
    run = tiny.config()
    return dataclasses.replace(
        run,
        name="bert-quickstart",
        # No dropout: the run ends long before it could learn the text by heart.
        model=dataclasses.replace(run.model, **SIZE, dropout=0.0, attention_dropout=0.0),
        objective=MaskedLM(length=64, inputs=SegmentPairs(duplicates=2)),
        batch_size=32,
        steps=1200,
        phases=(),
        schedule=Linear(peak=5e-4, warmup=60),
        evaluation=Evaluation(every=300, batches=20),
        checkpoints=Checkpoints(every=300),
        log_every=10,
    )
