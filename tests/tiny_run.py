"""A run small enough to train in a test: a T5 of some thousand parameters on a few sentences."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny_dataset
from jax.experimental.compilation_cache import compilation_cache

from t5x_like import config
from t5x_like.data.batches import Data, Source
from t5x_like.models.t5 import T5
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.partitioning import Mesh
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Constant

MODEL = T5(vocab_size=256, d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=1, activation="relu", gated=False,
           tie_embeddings=True, dropout=0.1, scan_layers=False)  # fmt: skip


def make(data: Path, **changes: Any) -> config.Run:
    """A run of 12 steps that saves every 4 and validates every 6; `changes` replaces fields."""
    if not (data / "manifest.json").exists():
        tiny_dataset.dataset(data, count=200)
    run = config.Run(
        name="tiny",
        model=MODEL,
        objective=SpanCorruption(inputs_length=16),
        data=Data(sources=(Source(path=str(data)),)),
        batch_size=8,
        steps=12,
        schedule=Constant(rate=0.01),
        evaluation=Evaluation(every=6, batches=2),
        checkpoints=Checkpoints(every=4),
        log_every=1,
    )
    run = dataclasses.replace(run, **changes)
    config.validate(run)
    return run


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """Runs that ask for no particular mesh take the first device alone."""
    build = Mesh.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mesh, "build", lambda mesh: build(mesh, jax.devices()[:1] if mesh == Mesh() else None))
        yield


@contextlib.contextmanager
def compiled_programs(folder: Path) -> Iterator[None]:
    """Keeps compiled programs in `folder` meanwhile, however small."""
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.0,
                "jax_persistent_cache_min_entry_size_bytes": -1}  # fmt: skip
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
