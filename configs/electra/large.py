"""ELECTRA large (354,655,291 parameters; the discriminator alone 335,142,913): 400,000 and 1,750,000 steps.

Paper: Clark et al. 2020, arXiv:2003.10555.
Command: python -m t5x_like.train --config=electra/large --data=DIR --workdir=DIR          (400K)
         python -m t5x_like.train --config=electra/large:longer --data=DIR --workdir=DIR   (1.75M)
Hardware: a TPU slice of 128 chips or more; any laptop for `electra/large:debug`.
Expected: GLUE average 89.0 (400K) and 89.5 (1.75M) (dev, paper table 2).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

import dataclasses

from configs.electra import _recipe
from t5x_like.config import Run
from t5x_like.models.electra import electra


def config() -> Run:
    return _recipe.pretrain(
        "electra-large-400k",
        electra("large"),
        length=512,
        batch_size=2048,
        peak=2e-4,
        steps=400_000,
        mask_rate=0.25,
    )


def longer() -> Run:
    return dataclasses.replace(config(), name="electra-large-1750k", steps=1_750_000)


def debug() -> Run:
    return _recipe.debug(config())
