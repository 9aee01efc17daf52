"""Labelled tasks that a two-layer encoder learns in seconds, one of each kind, and a tokenizer for them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x_like.data.huggingface_tokenizer import HuggingFaceTokenizer
from t5x_like.data.wordpiece import from_pieces
from t5x_like.models.encoder import Encoder
from t5x_like.tasks.definitions import Task

WORDS = "the film was a long story about some people who met in town and went home"
FILLER = tuple(WORDS.split())
GOOD, BAD, CITIES, NAMES = (
    ["good", "great", "lovely"],
    ["bad", "awful", "dull"],
    ["rome", "oslo", "lima"],
    ["anna", "john", "mary"],
)
ENCODER = Encoder(
    vocab_size=128, hidden_size=32, num_layers=2, num_heads=2, d_ff=64, max_positions=64, scan_layers=False,
    mlm_head=False, pair_head=False, stddev=0.1,
)  # fmt: skip

CLASSIFICATION = Task(
    name="mood",
    kind="classification",
    text=("text",),
    labels=("negative", "positive"),
    metrics=("accuracy", "matthews"),
)
PAIR = Task(name="pair", kind="classification", text=("first", "second"), metrics=("accuracy",))
REGRESSION = Task(name="count", kind="regression", text=("text",), metrics=("pearson", "mse"))
TAGGING = Task(
    name="people",
    kind="tagging",
    text=("tokens",),
    label="tags",
    labels=("O", "B-PER", "I-PER"),
    metrics=("f1", "accuracy"),
)
SPAN = Task(
    name="where", kind="span", text=("question", "context"), label="answers", metrics=("f1", "exact_match")
)
CHOICE = Task(
    name="which", kind="choice", text=("premise",), choices=("one", "two", "three"), metrics=("accuracy",)
)
TASKS = (CLASSIFICATION, PAIR, REGRESSION, TAGGING, SPAN, CHOICE)


def params(model: Any, seed: int = 0) -> Any:
    """Parameters as a fresh model has them, drawn by NumPy: no compilation."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("scale", "bias"):
            return np.full(leaf.shape, path[-1].key == "scale", leaf.dtype)
        return (0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree.map_with_path(draw, model.abstract_params())


@functools.cache
def tokenizer() -> HuggingFaceTokenizer:
    """Lower-case WordPiece; `met##al` and its like are two pieces."""
    words = [*FILLER, *GOOD, *BAD, *CITIES, *NAMES, "where", "is", "it", "?", ".", ","]
    return from_pieces(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words), "##al", "##s"], lowercase=True
    )


def rows(task: Task, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Examples as JSON lines have them."""
    rng = np.random.default_rng(seed)

    def text(*words: str, length: int = 7) -> str:
        chosen = [*rng.choice(FILLER, length), *words]
        return " ".join(chosen[i] for i in rng.permutation(len(chosen)))

    for number in range(count):
        side = int(rng.integers(2))
        mood = str(rng.choice((BAD, GOOD)[side]))
        if task is CLASSIFICATION:
            yield {"text": text(mood), "label": side}
        elif task is PAIR:
            yield {"first": text(), "second": text(mood), "label": ("no", "yes")[side]}
        elif task is REGRESSION:
            times = int(rng.integers(4))
            yield {"text": text(*["good"] * times), "label": times - 1.5}
        elif task is TAGGING:
            name = str(rng.choice(NAMES))
            words = text(name).split()
            yield {"tokens": words, "tags": ["B-PER" if w == name else "O" for w in words]}
        elif task is SPAN:
            city = str(rng.choice(CITIES))
            context = text(city, length=12)
            start = context.index(city)
            yield {
                "id": f"q{number}",
                "question": "where is it?",
                "context": context,
                "answers": [city],
                "answer_start": [start],
            }
        else:
            right = int(rng.integers(3))
            yield {
                "premise": text(length=3),
                **{
                    name: text(str(rng.choice(GOOD if i == right else BAD)), length=3)
                    for i, name in enumerate(task.choices)
                },
                "label": right,
            }


def write(folder: Path, task: Task, train: int = 256, test: int = 64) -> Path:
    """train.jsonl and test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train, 0), ("test", test, 1)):
        lines = [json.dumps(row) + "\n" for row in rows(task, count, seed)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder
