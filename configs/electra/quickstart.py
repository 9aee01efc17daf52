"""The quickstart: a small ELECTRA that learns visibly from the embedded corpus in a few minutes on two CPU cores.

Command: make quickstart FAMILY=electra, or
         python -m t5x_like.prepare --input=embedded --output=data/embedded-wordpiece --model_type=wordpiece \\
             --lowercase --vocab_size=1024
         python -m t5x_like.train --config=electra/quickstart --data=data/embedded-wordpiece --workdir=runs/electra \\
             --cpu_devices=2
Hardware: a laptop CPU.
Expected: the generator's validation loss 2.5 nats below the unigram entropy of the hidden tokens, and a discriminator
that is past its base rate: two of three alarms right, one replaced token of six found.
Measured here: see docs/families/electra.md.

One network in both roles (`sharing="all"`, paper section 3.2), so that what the generator learns of context
serves detection; rows, optimizer and rates are those of configs/bert/quickstart.py. Detection weighs 10, not 50, so
that it does not drown the generator's gradients in what they share.
"""

from __future__ import annotations

import dataclasses

from configs.bert.quickstart import SIZE, shortened
from configs.electra import small
from t5x_like.config import Run
from t5x_like.models.electra import Electra

VOCABULARY = 1024


def config() -> Run:
    run = small.config()
    assert isinstance(run.model, Electra)
    size = {**SIZE, "vocab_size": VOCABULARY, "embedding_size": 128}
    encoder = dataclasses.replace(run.model.encoder, **size)
    model = dataclasses.replace(run.model, encoder=encoder, generator_hidden=1.0, sharing="all")
    objective = dataclasses.replace(run.objective, detection_weight=10.0)
    run = dataclasses.replace(run, name="electra-quickstart", model=model, objective=objective)
    return shortened(run, steps=3000)
