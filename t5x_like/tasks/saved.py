"""A fine-tuned model on disk: what it takes to predict with it, and to go on from it.

DIR/model/task.json           the task, the model and how rows are made, as plain JSON
DIR/model/model.safetensors   parameters under their paths
DIR/model/tokenizer/
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x_like import typed
from t5x_like.data.tokenizer_base import Tokenizer
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError
from t5x_like.hub import safetensors
from t5x_like.models.heads import EncoderWithHead
from t5x_like.models.t5 import T5
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.features import Featurizer
from t5x_like.tasks.fitting import EncoderFitting, Fitting
from t5x_like.tasks.text_fitting import TextFitting
from t5x_like.training.checkpoint_reader import paths

FOLDER = "model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows of tokens are made: see `Featurizer` and `TextFitting`."""

    task: Task
    model: EncoderWithHead | T5
    length: int
    double_separator: bool = False
    null_threshold: float | None = None
    target_length: int = 0
    batch_size: int = 32
    stride: int | None = None
    question_length: int | None = None

    def fitting(self, tokenizer: Tokenizer) -> Fitting:
        """The model and the task, joined."""
        if isinstance(self.model, T5):
            return TextFitting(
                task=self.task,
                model=self.model,
                tokenizer=tokenizer,
                length=self.length,
                target_length=self.target_length,
            )
        featurizer = Featurizer(
            task=self.task,
            tokenizer=tokenizer,
            length=self.length,
            double_separator=self.double_separator,
            stride=self.stride,
            question_length=self.question_length,
        )
        return EncoderFitting(
            task=self.task, model=self.model, featurizer=featurizer, null_threshold=self.null_threshold
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """A fine-tuned model, read back."""

    layout: Layout
    params: Any
    tokenizer: Tokenizer

    @property
    def model(self) -> EncoderWithHead | T5:
        return self.layout.model


def is_saved(folder: Path) -> bool:
    """Whether `folder` is the output of a fine-tuning."""
    return (folder / FOLDER / "task.json").is_file()


def save(folder: Path, layout: Layout, params: Any, tokenizer: Tokenizer) -> None:
    """Writes FOLDER/model, whole or not at all; one that is there is replaced."""
    made, target, old = (folder / name for name in (f".{FOLDER}.new", FOLDER, f".{FOLDER}.old"))
    try:
        for stale in (made, old):
            shutil.rmtree(stale, ignore_errors=True)
        made.mkdir(parents=True)
        arrays = {path: np.asarray(leaf) for path, leaf in paths(params).items()}
        safetensors.write(made, arrays)
        tokenizer.save(made / "tokenizer")
        (made / "task.json").write_text(json.dumps(typed.to_data(layout), indent=2) + "\n", encoding="utf-8")
        if target.exists():
            target.rename(old)
        made.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        raise UserError(
            f"the fine-tuned model cannot be written: {e.strerror}", where=str(target), code=Exit.CANNOT_WRITE
        ) from None


def load(folder: str | Path) -> Saved:
    """What `save` wrote.

    Raises:
      UserError: nothing there, or files that do not belong together.
    """
    inside = Path(folder) / FOLDER
    if not is_saved(Path(folder)):
        raise UserError(
            "there is no fine-tuned model here",
            where=str(folder),
            help="name the --output of a t5x_like.finetune that finished a seed",
            code=Exit.BAD_DATA,
        )
    path = inside / "task.json"
    layout = typed.from_json(path.read_text(encoding="utf-8"), Layout, where=str(path))
    weights = safetensors.Weights(inside)
    abstract = layout.model.abstract_params()
    wanted = paths(abstract)
    if differing := sorted(wanted.keys() ^ weights.names()):
        raise UserError(
            f"the weights are not those of task.json: {safetensors.listed(differing)} differ",
            where=str(inside),
            code=Exit.CORRUPT,
        )
    leaves = []
    for name, expected in wanted.items():
        array = weights.read(name)
        if array.shape != expected.shape:
            raise UserError(
                f"{name} has the shape {list(array.shape)}, and task.json says {list(expected.shape)}",
                where=str(inside),
                code=Exit.CORRUPT,
            )
        leaves.append(array)
    params = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
    return Saved(layout=layout, params=params, tokenizer=load_tokenizer(inside / "tokenizer"))
