"""T5 base (1.0, 222,903,552 parameters) and T5 1.1 base (247,577,856).

Paper: Raffel et al. 2020, arXiv:1910.10683; 1.1 after Shazeer 2020, arXiv:2002.05202.
Command: python -m t5x_like.train --config=t5/base --data=DIR --workdir=DIR      (T5 1.1)
         python -m t5x_like.train --config=t5/base:v1_0 --data=DIR --workdir=DIR (T5 1.0)
Hardware: a TPU slice of 16 chips; any laptop for `t5/base:debug`.
Expected: published GLUE average 82.7 (1.0, test);
    validation loss after 65,536 steps of 128 x 512: 1.942 nats (T5 1.1 base, nanoT5 README).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.t5 import _recipe
from t5x_like.config import Run
from t5x_like.models.t5 import t5_1_0, t5_1_1


def v1_0() -> Run:
    return _recipe.pretrain("t5-1.0-base", t5_1_0("base"))


def v1_1() -> Run:
    return _recipe.pretrain("t5-1.1-base", t5_1_1("base"))


def config() -> Run:
    return v1_1()


def debug() -> Run:
    return _recipe.debug(config())
