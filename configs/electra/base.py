"""ELECTRA base (119,386,427 parameters; the discriminator alone 109,483,009).

Paper: Clark et al. 2020, arXiv:2003.10555.
Command: python -m t5x_like.train --config=electra/base --data=DIR --workdir=DIR
Hardware: 16 TPU chips; any laptop for `electra/base:debug`.
Expected: GLUE average 85.1 (dev, paper table 1); SQuAD 1.1 84.5 EM / 90.8 F1.
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.electra import _recipe
from t5x_like.config import Run
from t5x_like.models.electra import electra


def config() -> Run:
    return _recipe.pretrain(
        "electra-base", electra("base"), length=512, batch_size=256, peak=2e-4, steps=766_000
    )


def debug() -> Run:
    return _recipe.debug(config())
