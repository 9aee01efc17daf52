"""What the RoBERTa paper compares at the size of BERT base: input formats, and fixed against new masks.

Paper: Liu et al. 2019, arXiv:1907.11692, sections 4.1 and 4.2, tables 1 and 2.
Command: python -m t5x_like.train --config=roberta/study:doc_sentences --data=DIR --workdir=DIR
         python -m t5x_like.inspect --config=roberta/study:segment_pairs --data=DIR
Hardware: a TPU slice of 16 chips; on a laptop, bert/quickstart with `--set=objective.inputs=FullSentences`.
Expected (paper, SQuAD 2.0 F1 / MNLI-m / SST-2): segment pairs 78.7/84.0/92.9, sentence pairs 76.2/82.9/92.1, full
sentences 79.1/84.7/92.5, document sentences 79.7/84.7/92.7; fixed masks 78.3/84.3/92.5, new masks 78.7/84.0/92.9.
Measured here: formats and masks against the published builders; these runs were never trained in this project.
"""

from __future__ import annotations

import dataclasses

from configs.roberta import _recipe, base
from t5x_like.config import Run
from t5x_like.data.inputs import DocSentences, FullSentences, InputFormat, SegmentPairs, SentencePairs
from t5x_like.training.schedules import Linear


def _study(name: str, inputs: InputFormat, *, batch_size: int = 256) -> Run:
    """1M steps of 256 rows at learning rate 1e-4, as BERT base, but all at length 512 (section 3)."""
    run = base.config()
    heads = {"pooler": "tanh", "pair_head": True} if inputs.next_sentence else {}
    return dataclasses.replace(
        run,
        name=f"roberta-study-{name}",
        model=dataclasses.replace(run.model, **heads),
        objective=_recipe.masked(512, inputs),
        batch_size=batch_size,
        steps=1_000_000,
        optimizer=dataclasses.replace(run.optimizer, b2=0.999),
        schedule=Linear(peak=1e-4, warmup=10_000),
    )


def segment_pairs() -> Run:
    return _study("segment-pairs", SegmentPairs(double_separator=True))


def sentence_pairs() -> Run:
    """Eight times the rows, which are short: the paper keeps the tokens of a batch about equal."""
    return _study("sentence-pairs", SentencePairs(), batch_size=2048)


def full_sentences() -> Run:
    return _study("full-sentences", FullSentences())


def doc_sentences() -> Run:
    return _study("doc-sentences", DocSentences())


def config() -> Run:
    return full_sentences()


def new_masks() -> Run:
    """Dynamic masking, on BERT's inputs."""
    return dataclasses.replace(segment_pairs(), name="roberta-study-new-masks")


def fixed_masks() -> Run:
    """Static masking: ten masked copies of the text, the same in every epoch (an epoch is ten passes)."""
    run = segment_pairs()
    objective = dataclasses.replace(run.objective, fixed_masks=1)
    return dataclasses.replace(run, name="roberta-study-fixed-masks", objective=objective)
