"""A BERT and an ELECTRA of some thousand random parameters, as run directories, and their tokenizer."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import tiny_dataset

from t5x_like import config
from t5x_like.data.huggingface_tokenizer import HuggingFaceTokenizer
from t5x_like.data.inputs import ElectraPairs, SegmentPairs
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.models.electra import ELECTRA as SMALL
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.training import partitioning, state
from t5x_like.training.checkpoints import Checkpoints, Record, Store
from t5x_like.training.optimizers import AdamW
from t5x_like.training.run import Evaluation
from t5x_like.training.run_dir import RunDir
from t5x_like.training.schedules import Constant

LENGTH = 48
SIZE = {"vocab_size": 128, "hidden_size": 64, "num_layers": 1, "num_heads": 1, "d_ff": 32, "max_positions": 64,
        "scan_layers": False, "stddev": 0.2}  # fmt: skip
BERT = config.Run(
    name="tiny-bert",
    model=Encoder(**SIZE),
    objective=MaskedLM(length=LENGTH, inputs=SegmentPairs(duplicates=1)),
    batch_size=8,
    steps=4,
    optimizer=AdamW(),
    schedule=Constant(rate=0.01),
    evaluation=Evaluation(every=2, batches=2),
    checkpoints=Checkpoints(every=2),
)
ELECTRA = dataclasses.replace(
    BERT,
    name="tiny-electra",
    model=Electra(encoder=dataclasses.replace(SMALL, **SIZE, embedding_size=16), generator_hidden=1.0),
    objective=ReplacedTokenDetection(length=LENGTH, inputs=ElectraPairs()),
)
RECORD = Record(step=2, tokens=1120, validation_loss=6.0011, data="d" * 32, tokenizer="e" * 32)


def documents(count: int, seed: int = 0) -> list[str]:
    """Texts of two sentences (and a few of one), so that there is something to pair."""
    return [text.replace(" ", "\n", 1) for text in tiny_dataset.documents(count, seed)]


@functools.cache
def tokenizer() -> HuggingFaceTokenizer:
    """WordPiece, uncased."""
    texts = tiny_dataset.documents(300) + tiny_dataset.WORDS
    return WordPieceTraining(vocab_size=120, lowercase=True).train(texts)


def run_directory(path: Path, run: config.Run) -> Path:
    """Writes the run with a checkpoint of random parameters, and returns its directory."""
    directory = RunDir(path)
    directory.checkpoints.mkdir(parents=True)
    directory.describe(config.to_json(run), config.describe(run), [])
    tokenizer().save(directory.tokenizer)
    mesh = partitioning.Mesh().build(jax.devices()[:1])
    store = Store(directory.checkpoints)
    store.save(RECORD, state.create(run.model, run.optimizer, run.schedule, mesh, seed=0))
    store.wait()
    return path
