"""What a run is: one frozen tree of the very dataclasses that do the work.

Every class that can stand in a run is named in the annotations below, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from t5x_like import typed
from t5x_like.data.batches import Data
from t5x_like.errors import Exit, UserError
from t5x_like.models.t5 import T5
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.optimizers import Adafactor, AdamW, Lamb, LayerWise, Optax
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Constant, Cosine, Linear, Rsqrt, WarmupStableDecay

Model = T5
Objective = SpanCorruption | IidDenoising | Deshuffling | PrefixLM | LanguageModel | MixtureOfDenoisers
Optimizer = Adafactor | AdamW | Lamb | LayerWise | Optax
Schedule = Constant | Rsqrt | Cosine | Linear | WarmupStableDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Validation by teacher forcing.

    Attributes:
      every: steps between two validations; 0 validates never. The last step is always validated, and with
        `checkpoints.keep_best` every checkpoint.
      batches: of the validation split, always the same ones.
    """

    every: int = 500
    batches: int = 20

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("batches", 1)):
            if (value := getattr(self, name)) < least:
                what = f"evaluation.{name} is {value}; it must be at least {least}"
                raise UserError(what, where=f"evaluation.{name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that determines a training run; saved as config.json, and started again from that alone.

    Attributes:
      name: for people; printed and written to the metrics.
      batch_size: examples (rows) of one optimizer step, over all devices and microbatches.
      microbatches: gradient accumulation; does not change the update.
      steps: optimizer steps of the whole run.
      seed: of parameters, data order, objectives and dropout.
      clip_global_norm: largest norm of the gradient; None clips nothing (T5's choice).
      log_every: steps between two lines of metrics.jsonl.
      max_nonfinite_steps: updates skipped in a row, because the loss or the gradient was not finite, before
        the run stops.
      init_from: a run directory or a Hugging Face directory whose weights the run starts from.
    """

    name: str
    model: Model
    objective: Objective
    data: Data = Data()
    batch_size: int
    steps: int
    microbatches: int = 1
    seed: int = 0
    optimizer: Optimizer = Adafactor()
    schedule: Schedule = Rsqrt()
    clip_global_norm: float | None = None
    mesh: Mesh = Mesh()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    log_every: int = 10
    max_nonfinite_steps: int = 10
    init_from: str | None = None


def to_json(run: Run) -> str:
    """Plain JSON, every field spelled out."""
    return json.dumps(typed.to_data(run), indent=2) + "\n"


def from_json(text: str, where: str | None = None) -> Run:
    """The inverse of `to_json`; refuses what is outside the schema, and executes nothing."""
    run = typed.from_json(text, Run, where)
    if not isinstance(run, Run):
        raise UserError("a run's configuration is a JSON object", where=where)
    return run


def read_run(path: Path) -> Run:
    """The run of a config.json; an unreadable file is a `UserError` too."""
    try:
        return from_json(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the configuration: {e}", where=str(path), code=Exit.BAD_DATA) from None


def describe(run: Run, *, all_values: bool = False) -> str:
    """The configuration as `path = value` lines: what differs from the defaults, or everything."""
    pairs = [*typed.leaves(run)] if all_values else [*typed.non_defaults(run)]
    return "\n".join(f"{path} = {value}" for path, value in pairs)


def describe_diff(a: Run, b: Run) -> str:
    """`path: value in a -> value in b` lines; empty where the two are equal."""
    return "\n".join(f"{path}: {left} -> {right}" for path, left, right in typed.diff(a, b))


def validate(run: Run) -> None:
    """Raises `UserError` where the run cannot be: types, ranges, objective against model and batch."""
    typed.check(run, Run)
    for field, least in (
        ("batch_size", 1),
        ("steps", 0),
        ("microbatches", 1),
        ("log_every", 1),
        ("max_nonfinite_steps", 1),
    ):
        if getattr(run, field) < least:
            raise UserError(f"{field} is {getattr(run, field)}; it must be at least {least}", where=field)
    if run.batch_size % run.microbatches:
        fitting = max(
            m for m in range(1, min(run.microbatches, run.batch_size + 1)) if run.batch_size % m == 0
        )
        raise UserError(
            f"a batch of {run.batch_size} does not divide into {run.microbatches} microbatches",
            where="microbatches",
            help=f"the nearest below that does: microbatches={fitting}",
        )
    if run.clip_global_norm is not None and run.clip_global_norm <= 0:
        raise UserError("clip_global_norm must be positive, or none", where="clip_global_norm")
    run.model.check()
    run.objective.check(run.model, None)
