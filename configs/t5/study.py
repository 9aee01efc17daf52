"""The objectives that the T5 study compares, on its baseline model, and UL2's mixture on the same.

Paper: Raffel et al. 2020, arXiv:1910.10683, section 3.3, tables 4 to 7; Tay et al. 2022, arXiv:2205.05131 (ul2).
Command: python -m t5x_like.train --config=t5/study:prefix_lm --data=DIR --workdir=DIR
         python -m t5x_like.inspect --config=t5/study:mass_style --data=DIR
Hardware: a TPU slice of 16 chips; on a laptop, t5/quickstart with `--set=objective=...`.
Expected (GLUE average, paper): baseline 83.28, prefix LM 80.69, BERT-style 82.96, deshuffling 73.17, MASS-style
82.32, replace spans 83.28, drop tokens 84.44; spans of 2, 3, 5, 10: 83.54, 83.49, 83.40, 82.85.
Measured here: the objectives against the published algorithm; these runs were never trained in this project.
"""

from __future__ import annotations

import dataclasses

from configs.t5 import base
from t5x_like.config import Objective, Run
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers


def _study(name: str, objective: Objective) -> Run:
    """The study's baseline (section 3.1): T5 1.0 base, 2^19 steps of 128 x 512."""
    return dataclasses.replace(
        base.v1_0(), name=f"t5-study-{name}", objective=objective, batch_size=128, steps=2**19
    )


def config() -> Run:
    return _study("spans-3", SpanCorruption())


def spans_2() -> Run:
    return _study("spans-2", SpanCorruption(mean_span_length=2.0))


def spans_5() -> Run:
    return _study("spans-5", SpanCorruption(mean_span_length=5.0))


def spans_10() -> Run:
    return _study("spans-10", SpanCorruption(mean_span_length=10.0))


def replace_spans() -> Run:
    return _study("replace-spans", IidDenoising(style="replace_spans"))


def drop_tokens() -> Run:
    return _study("drop-tokens", IidDenoising(style="drop_tokens"))


def bert_style() -> Run:
    return _study("bert-style", IidDenoising(style="bert"))


def mass_style() -> Run:
    return _study("mass-style", IidDenoising(style="mass"))


def deshuffling() -> Run:
    return _study("deshuffling", Deshuffling())


def prefix_lm() -> Run:
    return _study("prefix-lm", PrefixLM())


def ul2() -> Run:
    """Inputs of 384: its 50 % denoiser with spans of 3 then fits T5's 100 sentinels, three of them mode tokens."""
    return _study("ul2", MixtureOfDenoisers(inputs_length=384))
