"""BERT mini, uncased (11,267,900 parameters with both heads).

Paper: Turc et al. 2019, arXiv:1908.08962, with the recipe of Devlin et al. 2019, arXiv:1810.04805.
Command: python -m t5x_like.train --config=bert/mini --data=DIR --workdir=DIR
Hardware: one GPU; any laptop for `bert/mini:debug`.
Expected: published GLUE average 65.8 (test).
Measured here: parameter counts and parity; never trained to the end in this project.
"""

from __future__ import annotations

from configs.bert import _recipe
from t5x_like.config import Run
from t5x_like.models.bert import bert


def config() -> Run:
    return _recipe.pretrain("bert-mini", bert("mini"))


def debug() -> Run:
    return _recipe.debug(config())
