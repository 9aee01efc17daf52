"""The ablations of the ELECTRA paper: objectives, sharing, sizes of the generator, and BERT by the same recipe.

Paper: Clark et al. 2020, arXiv:2003.10555, sections 3.2 and 3.4, figure 3, tables 1 and 5.
Command: python -m t5x_like.train --config=electra/study:replace_mlm --data=DIR --workdir=DIR
         python -m t5x_like.inspect --config=electra/study:electra_15 --data=DIR
Hardware: 16 TPU chips; on a laptop, electra/quickstart with the same overrides.
Expected (GLUE average, paper): ELECTRA 85.0, All-Tokens MLM 84.3, Replace MLM 82.4, ELECTRA 15 % 82.4, BERT 82.2;
sharing none 83.6, embeddings 84.3, all 84.4 (500,000 steps, generator as large as the discriminator); generators a
quarter to a half as wide are best. BERT-Small 75.1 against ELECTRA-Small 79.9.
Measured here: objectives and parameter sharing; these runs were never trained in this project.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from configs.electra import base, small
from t5x_like.config import Run
from t5x_like.data.inputs import ElectraPairs
from t5x_like.models.electra import Electra
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection

Task = Literal["detection", "detection_masked", "replace_mlm", "all_tokens_mlm"]


def _electra(name: str, task: Task = "detection", *, steps: int | None = None, **changes: object) -> Run:
    """ELECTRA base with another task of the discriminator, and other fields of the model."""
    run = base.config()
    assert isinstance(run.model, Electra) and isinstance(run.objective, ReplacedTokenDetection)
    names = task.endswith("mlm")
    model = dataclasses.replace(
        run.model,
        encoder=dataclasses.replace(run.model.encoder, mlm_head=names),
        head="mlm" if names else "detection",
        copy=task == "all_tokens_mlm",
        **changes,
    )
    weight = 1.0 if names else run.objective.detection_weight
    objective = dataclasses.replace(run.objective, task=task, detection_weight=weight)
    return dataclasses.replace(
        run, name=f"electra-study-{name}", model=model, objective=objective, steps=steps or run.steps
    )


def _masked(name: str, run: Run, steps: int) -> Run:
    """Masked language modelling with the encoder, text, optimizer and schedule of an ELECTRA run."""
    assert isinstance(run.model, Electra) and isinstance(run.objective, ReplacedTokenDetection)
    return dataclasses.replace(
        run,
        name=f"electra-study-{name}",
        model=dataclasses.replace(run.model.encoder, mlm_head=True),
        objective=MaskedLM(length=run.objective.length, inputs=ElectraPairs()),
        steps=steps,
    )


def config() -> Run:
    return _electra("electra")


def electra_15() -> Run:
    """The discriminator is asked about the drawn places alone."""
    return _electra("electra-15", "detection_masked")


def replace_mlm() -> Run:
    """The discriminator names the original tokens of the drawn places, which show samples in place of [MASK]."""
    return _electra("replace-mlm", "replace_mlm")


def all_tokens_mlm() -> Run:
    """It names the original token of every place, with a mechanism to copy it."""
    return _electra("all-tokens-mlm", "all_tokens_mlm")


def bert() -> Run:
    """BERT base of table 5, without next sentence prediction."""
    return _masked("bert-base", base.config(), 1_000_000)


def bert_small() -> Run:
    """BERT-Small of table 1: the encoder of ELECTRA small, trained for as many FLOPs."""
    return _masked("bert-small", small.config(), 1_450_000)


def sharing_none() -> Run:
    return _electra("sharing-none", steps=500_000, sharing="none", generator_hidden=1.0)


def sharing_embeddings() -> Run:
    return _electra("sharing-embeddings", steps=500_000, sharing="embeddings", generator_hidden=1.0)


def sharing_all() -> Run:
    return _electra("sharing-all", steps=500_000, sharing="all", generator_hidden=1.0)


def _generator(width: int) -> Run:
    return _electra(f"generator-{width}", steps=500_000, generator_hidden=width / 768)


def generator_64() -> Run:
    return _generator(64)


def generator_128() -> Run:
    return _generator(128)


def generator_256() -> Run:
    return _generator(256)


def generator_512() -> Run:
    return _generator(512)


def generator_768() -> Run:
    return _generator(768)
