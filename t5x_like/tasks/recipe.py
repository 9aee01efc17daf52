"""How a model is fine-tuned: the settings, what they may be, and the published optimizers and schedules behind them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from t5x_like import typed
from t5x_like.errors import UserError
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import Style
from t5x_like.tasks.pretrained import Pretrained
from t5x_like.training.adafactor import Adafactor
from t5x_like.training.adam import AdamW, berts
from t5x_like.training.layerwise import LayerWise
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Constant, Linear

MOST_SEEDS = 1000
MOST_ROWS = 2**20
"""Of a batch."""
MOST_STEPS = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune:
    """How a model is fine-tuned.

    Attributes:
      init: a run directory, a Hugging Face directory, or the output of an earlier fine-tuning. None: `finetune` is
        given the model.
      checkpoint: of a run: latest, best or a step.
      task: one of `definitions.names()`, or a .json file that describes one.
      data: folder of the task's files.
      epochs: over the training split.
      batch_size: examples of a step (of a span task: windows).
      learning_rate: the highest; None: 1e-3 for T5, 3e-4 for encoders up to 256 wide, 1e-4 for ELECTRA, else 5e-5.
      warmup: share of the steps until then.
      layer_decay: factor from layer to layer downwards; None: 0.8 for ELECTRA, 1 for all others.
      weight_decay: of kernels and tables.
      dropout: in the encoder and in the head; None: the encoder's own, and 0.1 in the head.
      clip_global_norm: largest norm of a gradient; None clips nothing.
      length: most tokens of a row; shorter where no text needs it.
      seeds: one fine-tuning each.
      evaluate_every: steps between two judgements; None: once an epoch. The last step is always judged.
      metric: what selects checkpoints; None: the task's first.
      keep: the checkpoint that is judged on the test split and saved.
      held_out: share of the training file that is taken for validation where there is no file for that.
      both_orders: train on pairs in both orders (ELECTRA on MRPC and STS-B).
      head: None: that of the model's family.
      null_threshold: of questions that may have no answer (SQuAD 2.0), see `spans.search`.
      stride, question_length: of span tasks, in tokens: how far apart windows of a context begin, and how much of a
        question is kept; None: 128 and 64 from a length of 384 on, in shorter rows so that windows overlap.
      max_examples: of the training split; None takes all.
      mesh: devices.
    """

    init: str | None = None
    checkpoint: str = "latest"
    task: str = "rotten_tomatoes"
    data: str = ""
    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float | None = None
    warmup: float = 0.1
    layer_decay: float | None = None
    weight_decay: float = 0.01
    dropout: float | None = 0.1
    clip_global_norm: float | None = 1.0
    length: int = 128
    seeds: tuple[int, ...] = (0,)
    evaluate_every: int | None = None
    metric: str | None = None
    keep: Literal["best", "last"] = "best"
    held_out: float = 0.1
    both_orders: bool = False
    head: Style | None = None
    null_threshold: float = 0.0
    stride: int | None = None
    question_length: int | None = None
    max_examples: int | None = None
    mesh: Mesh = Mesh()


def check(config: FineTune) -> None:
    """Raises `UserError` where a value cannot be."""
    typed.check(config, FineTune)
    for name, fine, wanted in (
        ("epochs", config.epochs > 0, "positive"),
        ("batch_size", 1 <= config.batch_size <= MOST_ROWS, f"1 to {MOST_ROWS:,}"),
        ("learning_rate", config.learning_rate is None or config.learning_rate > 0, "positive"),
        ("warmup", 0 <= config.warmup <= 1, "a share of the steps, 0 to 1"),
        ("layer_decay", config.layer_decay is None or 0 < config.layer_decay <= 1, "above 0 and at most 1"),
        ("weight_decay", config.weight_decay >= 0, "0 or more"),
        ("dropout", config.dropout is None or 0 <= config.dropout < 1, "in [0, 1)"),
        (
            "clip_global_norm",
            config.clip_global_norm is None or config.clip_global_norm > 0,
            "positive, or none",
        ),
        ("length", config.length >= 4, "at least 4"),
        ("seeds", 1 <= len(config.seeds) <= MOST_SEEDS, f"1 to {MOST_SEEDS} numbers"),
        ("evaluate_every", config.evaluate_every is None or config.evaluate_every >= 1, "at least 1"),
        ("stride", config.stride is None or config.stride >= 1, "at least 1"),
        ("question_length", config.question_length is None or config.question_length >= 1, "at least 1"),
        ("held_out", 0 < config.held_out < 1, "a share, above 0 and below 1"),
        ("max_examples", config.max_examples is None or config.max_examples >= 2, "at least 2"),
    ):
        if not fine:
            raise UserError(f"{name} is {getattr(config, name)}; it must be {wanted}", where=name)
    if len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0 or max(config.seeds) >= 2**31:
        raise UserError(
            f"seeds are {config.seeds}; each may come once, and each is 0 to {2**31 - 1}", where="seeds"
        )


def steps_of(config: FineTune, rows: int) -> int:
    """Steps of a fine-tuning on so many rows; raises `UserError` for more than are counted."""
    steps = max(1, round(rows * config.epochs / config.batch_size))
    if steps > MOST_STEPS:
        raise UserError(
            f"epochs is {config.epochs:g}: over {rows:,} rows these are {steps:.3g} steps; at most {MOST_STEPS:,} are "
            "counted",
            where="epochs",
        )
    return steps


def recipe(
    config: FineTune, start: Pretrained, steps: int
) -> tuple[AdamW | LayerWise | Adafactor, Linear | Constant]:
    """Optimizer and learning rate: Adafactor at a constant rate for T5; else BERT's AdamW with a linear warm-up and
    decay in the form of the family's code, and the family's decay from layer to layer."""
    rate = config.learning_rate
    if not isinstance(start.model, Encoder):
        return Adafactor(), Constant(rate=rate or 1e-3)
    style = config.head or start.style
    electra = style.startswith("electra")
    if rate is None:
        rate = 3e-4 if start.model.hidden_size <= 256 else 1e-4 if electra else 5e-5
    adam = dataclasses.replace(berts(), weight_decay=config.weight_decay)
    decay = config.layer_decay if config.layer_decay is not None else 0.8 if electra else 1.0
    form: Any = {"bert": "bert", "roberta": "shifted"}.get(style, "electra")
    schedule = Linear(peak=rate, warmup=round(steps * config.warmup), steps=steps, form=form)
    return (adam if decay == 1.0 else LayerWise(optimizer=adam, decay=decay)), schedule
