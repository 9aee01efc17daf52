"""The quickstart: a small BERT that learns visibly from the embedded corpus in a few minutes on two CPU cores.

Command: make quickstart FAMILY=bert, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded-wordpiece --model_type=wordpiece \\
             --lowercase --vocab_size=2048
         python -m t5x_like.train --config=bert/quickstart --data=data/embedded-wordpiece --workdir=runs/bert \\
             --cpu_devices=2
Hardware: a laptop CPU.
Expected: validation loss of the hidden tokens 2 nats below their unigram entropy.
Measured here: see docs/families/bert.md.

Two lengths in one run, as published (there 128 and 512): short rows first. A quarter of the tokens is hidden, not 15 %;
the learning rate is 20 times the published one and the memory of the squared gradients shorter (RoBERTa's 0.98), as
suits so small a model and so short a run.
"""

from __future__ import annotations

import dataclasses

from configs.bert import _recipe, tiny
from t5x_like.config import Run
from t5x_like.data.inputs import SegmentPairs
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.training.adam import AdamW
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation, Phase
from t5x_like.training.schedules import Linear

SIZE = {
    **_recipe.SMALL,
    "vocab_size": 2048,
    "hidden_size": 128,
    "num_heads": 2,
    "d_ff": 512,
    "max_positions": 64,
    "scan_layers": False,
    # The published 0.02 suits 768 and wider; sinusoids let attention find neighbours from the first step.
    "stddev": 0.05,
    "position_init": "sinusoid",
    # No dropout: the run ends long before it could learn the text by heart.
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
SHORT, LONG = 24, 64
MASKED = 0.25


def shortened(run: Run, steps: int) -> Run:
    """What makes a small encoder of any family learn from context within minutes. With rows of 64 from the start it
    stays for millions of tokens where all that it uses of a row is the hidden token itself, where that shows."""
    assert isinstance(run.optimizer, AdamW)
    objective = dataclasses.replace(run.objective, length=SHORT, mask_rate=MASKED)
    return dataclasses.replace(
        run,
        objective=objective,
        batch_size=48,
        steps=steps,
        phases=(
            Phase(start=2 * steps // 3, objective=dataclasses.replace(objective, length=LONG), batch_size=18),
        ),
        optimizer=dataclasses.replace(run.optimizer, b2=0.98),
        schedule=Linear(peak=2e-3, warmup=100),
        evaluation=Evaluation(every=steps // 6, batches=40),
        checkpoints=Checkpoints(every=steps // 6),
        log_every=10,
    )


def config() -> Run:
    run = tiny.config()
    return shortened(
        dataclasses.replace(
            run,
            name="bert-quickstart",
            model=dataclasses.replace(run.model, **SIZE),
            objective=MaskedLM(inputs=SegmentPairs(duplicates=2)),
        ),
        steps=3600,
    )
