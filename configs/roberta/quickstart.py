"""The quickstart: a small RoBERTa that learns visibly from the embedded corpus in a few minutes on two CPU cores.

Command: make quickstart FAMILY=roberta, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded-bytes --model_type=bytebpe --vocab_size=2048
         python -m t5x_like.train --config=roberta/quickstart --data=data/embedded-bytes --workdir=runs/roberta \\
             --cpu_devices=2
Hardware: a laptop CPU.
Expected: validation loss of the hidden tokens 2 nats below their unigram entropy.
Measured here: see docs/families/roberta.md.
"""

from __future__ import annotations

import dataclasses

from configs.bert import quickstart as bert_quickstart
from configs.roberta import base
from t5x_like.config import Run
from t5x_like.models.encoder import Encoder


def config() -> Run:
    run = base.config()
    assert isinstance(run.model, Encoder)
    size = {**bert_quickstart.SIZE, "max_positions": bert_quickstart.LONG + run.model.position_offset}
    model = dataclasses.replace(run.model, **size)
    return bert_quickstart.shortened(
        dataclasses.replace(run, name="roberta-quickstart", model=model), steps=3600
    )
