"""BERT large (uncased 336,226,108, cased 334,661,958 parameters with both heads).

Paper: Devlin et al. 2019, arXiv:1810.04805.
Command: python -m t5x_like.prepare --input=... --output=DIR --model_type=wordpiece --lowercase --vocab_size=30522
         python -m t5x_like.train --config=bert/large --data=DIR --workdir=DIR
         python -m t5x_like.train --config=bert/large:cased --data=DIR --workdir=DIR
         python -m t5x_like.train --config=bert/large:whole_words --data=DIR --workdir=DIR
Hardware: 64 TPU chips for 4 days (16 Cloud TPUs in the paper); any laptop for `bert/large:debug`.
Expected: MNLI 86.6, SST-2 93.2, CoLA 60.6, RTE 70.4 (dev, as quoted in the RoBERTa paper).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

from configs.bert import _recipe
from t5x_like.config import Run
from t5x_like.models.bert import bert


def config() -> Run:
    return _recipe.pretrain("bert-large-uncased", bert("large-uncased"))


def cased() -> Run:
    return _recipe.pretrain("bert-large-cased", bert("large-cased"))


def whole_words() -> Run:
    """Whole-word masking, in both phases (google-research/bert README, May 2019)."""
    return _recipe.pretrain("bert-large-uncased-whole-words", bert("large-uncased"), unit="word")


def debug() -> Run:
    return _recipe.debug(config())
