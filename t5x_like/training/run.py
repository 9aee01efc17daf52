"""What a run is: one frozen tree of the very dataclasses that do the work.

Every class that can stand in a run is named in the annotations below, and nowhere else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from t5x_like import typed
from t5x_like.data.batches import Data
from t5x_like.errors import Exit, UserError
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.t5 import T5
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.optimizers import Adafactor, AdamW, Lamb, LayerWise, Optax
from t5x_like.training.partitioning import Mesh
from t5x_like.training.recovery import Recovery
from t5x_like.training.schedules import Constant, Cosine, Linear, Rsqrt, WarmupStableDecay

Model = T5 | Encoder | Electra
Objective = (
    SpanCorruption
    | IidDenoising
    | Deshuffling
    | PrefixLM
    | LanguageModel
    | MixtureOfDenoisers
    | MaskedLM
    | ReplacedTokenDetection
)
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
class Phase:
    """A stretch of a run in which a step sees something else, such as BERT's last tenth at length 512.

    Model, optimizer state, learning rate and the count of steps go on as if nothing had happened. What is None stays
    as it was before.

    Attributes:
      start: the first step of the phase; it lasts until the next one, or to the end.
      objective: with another length, as a rule.
      batch_size, microbatches: as in `Run`.
    """

    start: int
    objective: Objective | None = None
    batch_size: int | None = None
    microbatches: int | None = None


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
        the run stops, or is rolled back.
      recovery: what to do when the run goes wrong.
      init_from: a run directory or a Hugging Face directory whose weights the run starts from.
      phases: what changes on the way, and when; validation changes with it.
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
    recovery: Recovery = Recovery()
    init_from: str | None = None
    phases: tuple[Phase, ...] = ()

    def at(self, step: int) -> Run:
        """The run without phases that `step` belongs to; a step behind the last belongs to the last."""
        now = dataclasses.replace(self, phases=())
        for phase in self.phases:
            if phase.start <= min(step, self.steps - 1):
                fields = ("objective", "batch_size", "microbatches")
                given = {name: value for name in fields if (value := getattr(phase, name)) is not None}
                now = dataclasses.replace(now, **given)
        return now

    def stages(self) -> list[tuple[int, int, Run]]:
        """(first step, end, `at` there) of each stretch between two changes; phases behind the end never come."""
        starts = [0, *(phase.start for phase in self.phases if phase.start < self.steps)]
        return [
            (start, stop, self.at(start))
            for start, stop in zip(starts, [*starts[1:], self.steps], strict=True)
        ]


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
    """Raises `UserError` where the run cannot be: types, ranges, objective against model and batch, in any phase."""
    typed.check(run, Run)
    for field, least in (("steps", 0), ("log_every", 1), ("max_nonfinite_steps", 1)):
        if getattr(run, field) < least:
            raise UserError(f"{field} is {getattr(run, field)}; it must be at least {least}", where=field)
    if run.clip_global_norm is not None and run.clip_global_norm <= 0:
        raise UserError("clip_global_norm must be positive, or none", where="clip_global_norm")
    run.model.check()
    _validate_stage(dataclasses.replace(run, phases=()), "")
    for number, phase in enumerate(run.phases):
        where, least = f"phases.{number}.", 1 + (run.phases[number - 1].start if number else 0)
        if phase.start < least:
            raise UserError(
                f"phase {number} starts at step {phase.start}; it must be step {least} or later",
                where=f"{where}start",
                help="phases stand in the order in which they come",
            )
        # As long as it takes: a phase that this run is too short for must be possible too.
        _validate_stage(dataclasses.replace(run, steps=phase.start + 1).at(phase.start), where)


def _validate_stage(run: Run, prefix: str) -> None:
    """What one stretch of a run asks for; `prefix`: of the fields' paths, such as `phases.0.`."""
    for field in ("batch_size", "microbatches"):
        if getattr(run, field) < 1:
            raise UserError(f"{field} is {getattr(run, field)}; it must be at least 1", where=prefix + field)
    if run.batch_size % run.microbatches:
        fitting = max(
            m for m in range(1, min(run.microbatches, run.batch_size + 1)) if run.batch_size % m == 0
        )
        raise UserError(
            f"a batch of {run.batch_size} does not divide into {run.microbatches} microbatches",
            where=f"{prefix}microbatches",
            help=f"the nearest below that does: {prefix}microbatches={fitting}",
        )
    with located(prefix):
        run.objective.check(run.model, None)


@contextlib.contextmanager
def located(prefix: str) -> Iterator[None]:
    """Puts `prefix` before the field that a mistake is said to be in, where that is one of a phase's."""
    try:
        yield
    except UserError as e:
        if prefix and e.where and e.where.split(".")[0] in typed.fields(Phase):
            raise UserError(e.what, where=prefix + e.where, help=e.help, code=e.code) from None
        raise
