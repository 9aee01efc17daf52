"""T5 large (1.0, 737,668,096 parameters) and T5 1.1 large (783,150,080).

Paper: Raffel et al. 2020, arXiv:1910.10683; 1.1 after Shazeer 2020, arXiv:2002.05202.
Command: python -m t5x_like.train --config=t5/large --data=DIR --workdir=DIR      (T5 1.1)
         python -m t5x_like.train --config=t5/large:v1_0 --data=DIR --workdir=DIR (T5 1.0)
Hardware: a TPU slice of 64 chips; any laptop for `t5/large:debug`.
Expected: published GLUE average 86.4 (1.0, test).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.t5 import _recipe
from t5x_like.config import Run
from t5x_like.models.t5 import t5_1_0, t5_1_1


def v1_0() -> Run:
    return _recipe.pretrain("t5-1.0-large", t5_1_0("large"))


def v1_1() -> Run:
    return _recipe.pretrain("t5-1.1-large", t5_1_1("large"))


def config() -> Run:
    return v1_1()


def debug() -> Run:
    return _recipe.debug(config())
