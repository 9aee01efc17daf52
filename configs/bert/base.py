"""BERT base (uncased 110,106,428, cased 108,932,934 parameters with both heads).

Paper: Devlin et al. 2019, arXiv:1810.04805.
Command: python -m t5x_like.prepare --input=... --output=DIR --model_type=wordpiece --lowercase --vocab_size=30522
         python -m t5x_like.train --config=bert/base --data=DIR --workdir=DIR
         python -m t5x_like.train --config=bert/base:cased --data=DIR --workdir=DIR
         python -m t5x_like.train --config=bert/base:whole_words --data=DIR --workdir=DIR
Hardware: 16 TPU chips for 4 days (4 Cloud TPUs in the paper); any laptop for `bert/base:debug`.
Expected: MNLI-m 84.4, SQuAD 1.1 F1 88.5 (dev, paper table 5).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.bert import _recipe
from t5x_like.config import Run
from t5x_like.models.bert import bert


def config() -> Run:
    return _recipe.pretrain("bert-base-uncased", bert("base-uncased"))


def cased() -> Run:
    return _recipe.pretrain("bert-base-cased", bert("base-cased"))


def whole_words() -> Run:
    """Whole-word masking, in both phases (google-research/bert README, May 2019)."""
    return _recipe.pretrain("bert-base-uncased-whole-words", bert("base-uncased"), unit="word")


def debug() -> Run:
    return _recipe.debug(config())
