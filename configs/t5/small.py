"""T5 small (1.0, 60,506,624 parameters) and T5 1.1 small (76,961,152).

Paper: Raffel et al. 2020, arXiv:1910.10683; 1.1 after Shazeer 2020, arXiv:2002.05202.
Command: python -m t5x_like.train --config=t5/small --data=DIR --workdir=DIR      (T5 1.1)
         python -m t5x_like.train --config=t5/small:v1_0 --data=DIR --workdir=DIR (T5 1.0)
Hardware: one TPU v3-8 or one 80 GB GPU; any laptop for `t5/small:debug`.
Expected: published GLUE average 77.4 (1.0, test).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.t5 import _recipe
from configs.t5 import tiny as tiny_config
from t5x_like.config import Run
from t5x_like.models.t5 import t5_1_0, t5_1_1


def v1_0() -> Run:
    return _recipe.pretrain("t5-1.0-small", t5_1_0("small"))


def v1_1() -> Run:
    return _recipe.pretrain("t5-1.1-small", t5_1_1("small"))


def config() -> Run:
    return v1_1()


def debug() -> Run:
    return _recipe.debug(config())


def tiny() -> Run:
    """The recipe of `small` at a size that trains on a laptop: see configs/t5/tiny.py."""
    return tiny_config.config()
