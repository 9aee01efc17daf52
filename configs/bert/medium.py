"""BERT medium, uncased (41,668,412 parameters with both heads).

Paper: Turc et al. 2019, arXiv:1908.08962, with the recipe of Devlin et al. 2019, arXiv:1810.04805.
Command: python -m t5x_like.train --config=bert/medium --data=DIR --workdir=DIR
Hardware: one TPU v3-8 or one 80 GB GPU; any laptop for `bert/medium:debug`.
Expected: published GLUE average 73.5 (test).
Measured here: parameter counts and parity; never trained to the end in this project.
"""

from __future__ import annotations

from configs.bert import _recipe
from t5x_like.config import Run
from t5x_like.models.bert import bert


def config() -> Run:
    return _recipe.pretrain("bert-medium", bert("medium"))


def debug() -> Run:
    return _recipe.debug(config())
