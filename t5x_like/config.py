"""The configuration of a run: one frozen tree of the very dataclasses that do the work.

    run = config.load("t5/small:tiny", ["model.num_layers=4", "optimizer=AdamW"])

`t5/small:tiny` is the function `tiny` of configs/t5/small.py, which returns a `Run`; a path to another Python
file (`my/file.py:name`), to a `config.json` or to a run directory works too.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect as python_inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from t5x_like import typed
from t5x_like.errors import UserError, did_you_mean
from t5x_like.training.run import (
    Objective,
    Run,
    describe,
    describe_diff,
    from_json,
    read_run,
    to_json,
    validate,
)

__all__ = [
    "ROOT", "Objective", "Run", "describe", "describe_diff", "from_json", "load", "load_as", "names", "to_json",
    "validate",
]  # fmt: skip

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds `configs/`, in a checkout and in an installation alike."""


def load(name: str, overrides: Sequence[str] = ()) -> Run:
    """The run that `--config=name` and `--set=...` describe, checked as far as is possible without its data.

    Raises:
      UserError: unknown name or field, wrong type, impossible combination; names the nearest that would work.
    """
    run = (
        read_run(Path(name) / "config.json" if Path(name).is_dir() else Path(name))
        if _is_json(name)
        else _call(name)
    )
    for assignment in overrides:
        run = typed.override(run, assignment)
    validate(run)
    return run


def load_as(name: str, kind: type[_T], overrides: Sequence[str] = ()) -> _T:
    """What a configuration file describes other than a run: `load_as("race/bert_vs_electra", Race)`.

    Raises:
      UserError: as `load`; the caller checks the values.
    """
    if name.endswith(".json"):
        found = typed.from_json(_text(Path(name)), kind, where=name)
    else:
        found = _call(name, kind.__name__)
    for assignment in overrides:
        found = typed.override(found, assignment)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise UserError(f"cannot read this file: {reason}", where=str(path)) from None


# ---- finding it ----------------------------------------------------------------------------------


def names() -> list[str]:
    """Every shipped configuration, as `family/file:function`."""
    found = []
    for path in sorted((ROOT / "configs").rglob("*.py")):
        stem = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
        if not path.name.startswith("_"):
            found += [f"{stem}:{f}" for f in _functions(_import_named(stem))]
    return found


def _functions(module: ModuleType, kind: str = "Run") -> dict[str, Callable[[], Any]]:
    """Public functions defined in the module itself that need no argument and return a Run, or another `kind`."""
    return {
        n: f
        for n, f in vars(module).items()
        if python_inspect.isfunction(f)
        and f.__module__ == module.__name__
        and not n.startswith("_")
        and _name(f.__annotations__.get("return", "")) == kind
        and all(p.default is not p.empty for p in python_inspect.signature(f).parameters.values())
    }


def _name(annotation: Any) -> str:
    """Of a class, or of an annotation that is still text (`config.Run`)."""
    return getattr(annotation, "__name__", str(annotation)).rpartition(".")[2]


def _is_json(name: str) -> bool:
    return name.endswith(".json") or (Path(name) / "config.json").is_file()


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


def _call(name: str, kind: str = "Run") -> Any:
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
            alike = {found for found in shipped if found.endswith(f"/{stem}")}
            raise UserError(
                f"no configuration {stem!r}",
                where=f"--config={name}",
                help=(f"did you mean {min(alike)}?" if alike else did_you_mean(stem, shipped))
                + " (a file is named by its path: my/file.py:function)",
            )
        module = _guarded(lambda: _import_named(stem), name)
    functions = _functions(module, kind)
    if function not in functions:
        mute = getattr(module, function, None)
        if python_inspect.isfunction(mute) and "return" not in mute.__annotations__:
            help = f"it has to say what it returns: def {function}() -> {kind}"
        elif functions:
            help = did_you_mean(function, functions, prefix=f"{stem}:")
        else:
            help = f"{stem} describes something else than a {kind}"
        raise UserError(
            f"no function {function!r} that returns a {kind} in {stem}", where=f"--config={name}", help=help
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
