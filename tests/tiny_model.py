"""A run directory with one checkpoint of a small random T5, made without training: what infer and export need."""

from __future__ import annotations

from pathlib import Path

import jax
import tiny_dataset

from t5x_like import config
from t5x_like.models.t5 import T5
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training import partitioning, state
from t5x_like.training.checkpoints import Record, Store
from t5x_like.training.run_dir import RunDir

RUN = config.Run(
    name="tiny",
    model=T5(vocab_size=256, d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=1, tie_embeddings=True),
    objective=SpanCorruption(inputs_length=64, targets_length=16),
    batch_size=8,
    steps=10,
)
RECORD = Record(step=2, tokens=1120, validation_loss=6.0011, data="d" * 32, tokenizer="e" * 32)


def run_directory(path: Path) -> Path:
    """Writes the run and returns its directory."""
    directory = RunDir(path)
    directory.checkpoints.mkdir(parents=True)
    directory.describe(config.to_json(RUN), config.describe(RUN), [])
    tiny_dataset.tokenizer().save(directory.tokenizer)
    mesh = partitioning.Mesh().build(jax.devices()[:1])
    store = Store(directory.checkpoints)
    store.save(RECORD, state.create(RUN.model, RUN.optimizer, RUN.schedule, mesh, seed=0))
    store.wait()
    return path
