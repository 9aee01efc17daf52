"""The run that the faults are injected into: a T5 of some ten thousand parameters on texts of the embedded corpus."""

from __future__ import annotations

import dataclasses
import itertools
import json
import lzma
from importlib import resources
from pathlib import Path
from typing import Any

from t5x_like import config
from t5x_like.data.batches import Data, Source
from t5x_like.data.token_dataset import from_documents
from t5x_like.data.tokenizer_training import Training
from t5x_like.models.t5 import T5
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation, Run
from t5x_like.training.schedules import Constant

STEPS, EVERY = 40, 2
MODEL = T5(
    vocab_size=512, d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=1, activation="relu", gated=False,
    tie_embeddings=True, dropout=0.1, scan_layers=False,
)  # fmt: skip


def make(data: Path, **changes: Any) -> Run:
    """A run of `STEPS` steps that saves every `EVERY` and reports each; `changes` replaces fields.

    Args:
      data: where the token dataset is; it is made there where it is not.
    """
    if not (data / "manifest.json").exists():
        texts = _texts(300)
        tokenizer = Training(vocab_size=500).train(texts)
        from_documents(data, tokenizer, {"train": texts[20:], "validation": texts[:20]})
    run = Run(
        name="faults",
        model=MODEL,
        objective=SpanCorruption(inputs_length=24),
        data=Data(sources=(Source(path=str(data.absolute())),)),
        batch_size=8,
        steps=STEPS,
        schedule=Constant(rate=0.01),
        evaluation=Evaluation(every=10, batches=1),
        checkpoints=Checkpoints(every=EVERY),
        log_every=1,
    )
    run = dataclasses.replace(run, **changes)
    config.validate(run)
    return run


def _texts(count: int) -> list[str]:
    """The first paragraphs of the embedded corpus."""
    packed = resources.files("t5x_like.data") / "corpora" / "public_domain_english.jsonl.xz"
    with packed.open("rb") as raw, lzma.open(raw, "rt", encoding="utf-8") as lines:
        paragraphs = (p for line in lines for p in json.loads(line)["text"].split("\n\n") if len(p) > 200)
        return [" ".join(p.split())[:1000] for p in itertools.islice(paragraphs, count)]
