"""ELECTRA small (paper: 14,196,219 parameters, generator a quarter as wide; released: 23,122,875, generator as wide).

Paper: Clark et al. 2020, arXiv:2003.10555.
Command: python -m t5x_like.prepare --input=... --output=DIR --model_type=wordpiece --lowercase --vocab_size=30522
         python -m t5x_like.train --config=electra/small --data=DIR --workdir=DIR
         python -m t5x_like.train --config=electra/small:released --data=DIR --workdir=DIR
Hardware: one V100 for 4 days (paper); any laptop for `electra/small:debug`.
Expected: GLUE average 79.9 (dev, paper table 1), 79.0 at half of the steps.
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.electra import _recipe
from t5x_like.config import Run
from t5x_like.models.electra import Electra, electra


def _small(name: str, model: Electra) -> Run:
    return _recipe.pretrain(name, model, length=128, batch_size=128, peak=5e-4, steps=1_000_000)


def config() -> Run:
    return _small("electra-small", electra("small-paper"))


def released() -> Run:
    """The size of the released small++, by the recipe of the paper; its own training was longer, on more text."""
    return _small("electra-small-released", electra("small"))


def debug() -> Run:
    return _recipe.debug(config())
