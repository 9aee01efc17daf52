"""The configuration of a run: one frozen tree of the very dataclasses that do the work.

    run = config.load("t5/small:tiny", ["model.num_layers=4", "optimizer=AdamW"])

`t5/small:tiny` is the function `tiny` of configs/t5/small.py, which returns a `Run`; a path to another Python
file (`my/file.py:name`), to a `config.json` or to a run directory works too. Every class that can stand in a run
is named in the annotations below, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect as python_inspect
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from t5x_like import typed
from t5x_like.data.batches import Data
from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.models.t5 import T5
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.loop import Evaluation
from t5x_like.training.optimizers import Adafactor, AdamW, Optax
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Constant, Cosine, Linear, Rsqrt, WarmupStableDecay

Model = T5
Objective = SpanCorruption | IidDenoising | Deshuffling | PrefixLM | LanguageModel | MixtureOfDenoisers
Optimizer = Adafactor | AdamW | Optax
Schedule = Constant | Rsqrt | Cosine | Linear | WarmupStableDecay

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds `configs/`, in a checkout and in an installation alike."""


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


def load(name: str, overrides: Sequence[str] = ()) -> Run:
    """The run that `--config=name` and `--set=...` describe, checked as far as is possible without its data.

    Raises:
      UserError: unknown name or field, wrong type, impossible combination; names the nearest that would work.
    """
    run = _read_json(Path(name)) if _is_json(name) else _call(name)
    for assignment in overrides:
        run = typed.override(run, assignment)
    validate(run)
    return run


def to_json(run: Run) -> str:
    """Plain JSON, every field spelled out."""
    return json.dumps(typed.to_data(run), indent=2) + "\n"


def from_json(text: str, where: str | None = None) -> Run:
    """The inverse of `to_json`; refuses what is outside the schema, and executes nothing."""
    run = typed.from_json(text, Run, where)
    if not isinstance(run, Run):
        raise UserError("a run's configuration is a JSON object", where=where)
    return run


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
        fitting = max(m for m in range(1, run.microbatches) if run.batch_size % m == 0)
        raise UserError(
            f"a batch of {run.batch_size} does not divide into {run.microbatches} microbatches",
            where="microbatches",
            help=f"the nearest below that does: microbatches={fitting}",
        )
    if run.clip_global_norm is not None and run.clip_global_norm <= 0:
        raise UserError("clip_global_norm must be positive, or none", where="clip_global_norm")
    run.model.check()
    run.objective.check(run.model, None)


# ---- finding it ----------------------------------------------------------------------------------


def names() -> list[str]:
    """Every shipped configuration, as `family/file:function`."""
    found = []
    for path in sorted((ROOT / "configs").rglob("*.py")):
        stem = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
        if not path.name.startswith("_"):
            found += [f"{stem}:{f}" for f in _functions(_import_named(stem))]
    return found


def _functions(module: ModuleType) -> dict[str, Callable[[], Run]]:
    """Public functions defined in the module itself that need no argument and return a Run."""
    return {
        n: f
        for n, f in vars(module).items()
        if python_inspect.isfunction(f)
        and f.__module__ == module.__name__
        and not n.startswith("_")
        and "Run" in str(f.__annotations__.get("return", ""))
        and all(p.default is not p.empty for p in python_inspect.signature(f).parameters.values())
    }


def _is_json(name: str) -> bool:
    return name.endswith(".json") or (Path(name) / "config.json").is_file()


def _read_json(path: Path) -> Run:
    path = path / "config.json" if path.is_dir() else path
    try:
        return from_json(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the configuration: {e}", where=str(path), code=Exit.BAD_DATA) from None


def _import_named(stem: str) -> ModuleType:
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module("configs." + stem.replace("/", "."))


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _call(name: str) -> Run:
    stem, _, function = name.partition(":")
    function = function or "config"
    if stem.endswith(".py"):
        if not Path(stem).is_file():
            raise UserError(f"no file {stem}", where=f"--config={name}")
        module = _guarded(lambda: _import_file(Path(stem)), name)
    else:
        shipped = {
            p.relative_to(ROOT / "configs").with_suffix("").as_posix()
            for p in (ROOT / "configs").rglob("*.py")
            if not p.name.startswith("_")
        }
        if stem not in shipped:
            raise UserError(
                f"no configuration {stem!r}",
                where=f"--config={name}",
                help=did_you_mean(stem, shipped) + " A file is named by its path: my/file.py:function",
            )
        module = _guarded(lambda: _import_named(stem), name)
    functions = _functions(module)
    if function not in functions:
        raise UserError(
            f"no configuration {function!r} in {stem}",
            where=f"--config={name}",
            help=did_you_mean(function, functions, prefix=f"{stem}:"),
        )
    return _guarded(functions[function], name)


def _guarded(function: Callable[[], _T], name: str) -> _T:
    """Runs a piece of a configuration file; what it raises is the file's mistake, told with its line."""
    try:
        return function()
    except UserError:
        raise
    except Exception as e:  # a configuration file is the user's code: anything can happen in it
        frames = [
            f
            for f in traceback.extract_tb(e.__traceback__)
            if "configs" in f.filename or f.filename.endswith(name.partition(":")[0])
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else f"--config={name}"
        if isinstance(e, SyntaxError) and e.filename:
            place = f"{e.filename}:{e.lineno}"
        what = str(e).replace("__init__() got an unexpected keyword argument", "has no field")
        raise UserError(f"the configuration does not load: {what}", where=place) from None
