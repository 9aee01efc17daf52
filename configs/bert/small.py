"""BERT small, uncased (29,058,876 parameters with both heads).

Paper: Turc et al. 2019, arXiv:1908.08962, with the recipe of Devlin et al. 2019, arXiv:1810.04805.
Command: python -m t5x_like.train --config=bert/small --data=DIR --workdir=DIR
Hardware: one GPU; any laptop for `bert/small:debug`.
Expected: published GLUE average 71.2 (test).
Measured here: parameter counts and parity; never trained to the end in this project.
"""

from __future__ import annotations

from configs.bert import _recipe
from t5x_like.config import Run
from t5x_like.models.bert import bert


def config() -> Run:
    return _recipe.pretrain("bert-small", bert("small"))


def debug() -> Run:
    return _recipe.debug(config())
