"""Results of a fine-tuning: seed by seed, in memory and in a folder that a stopped command goes on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any, Literal

from t5x_like.errors import Exit, UserError
from t5x_like.training import run_dir


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One seed.

    Attributes:
      validation, test: metrics of the checkpoint that was kept; `test` None where there is no labelled test split.
      step: of that checkpoint.
      curve: {"step", "loss" (mean since the last), metrics of the validation split} of every judgement.
    """

    seed: int
    validation: dict[str, float]
    test: dict[str, float] | None
    step: int
    seconds: float
    curve: tuple[dict[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """All seeds of a fine-tuning.

    Attributes:
      metric: by which checkpoints were chosen.
      split: the one that `values` are of: test where it is labelled, else validation.
    """

    task: str
    metric: str
    split: Literal["validation", "test"]
    steps: int
    seeds: tuple[SeedResult, ...]

    def values(self, metric: str | None = None) -> list[float]:
        """A metric (`self.metric`) of the seeds, in their order."""
        name = metric or self.metric
        return [
            (s.test if self.split == "test" and s.test is not None else s.validation)[name]
            for s in self.seeds
        ]

    @property
    def median(self) -> float:
        return statistics.median(self.values())

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (of a sample); 0 for one seed."""
        return statistics.stdev(self.values()) if len(self.seeds) > 1 else 0.0


def agree(folder: Path, asked: dict[str, Any]) -> None:
    """Writes finetune.json, or refuses to mix two fine-tunings in one folder. One that has finished no seed is none:
    what is asked for now takes its place.

    Raises:
      UserError: the folder's differs, with both values of the first difference; or cannot be read.
    """
    path = folder / "finetune.json"
    if not path.is_file() or not any((folder / "seeds").glob("*.json")):
        write(path, asked)
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        begun = None
    if not isinstance(begun, dict):
        raise UserError(
            "damaged: it no longer says what was fine-tuned here",
            where=str(path),
            help="choose another --output, or remove this folder",
            code=Exit.CORRUPT,
        )
    if (found := difference(begun, asked)) is not None:
        name, there, here = found
        raise UserError(
            f"this folder holds a fine-tuning with {name} {there}, not {here}",
            where=str(path),
            help="choose another --output",
        )


def difference(begun: dict[str, Any], asked: dict[str, Any], path: str = "") -> tuple[str, Any, Any] | None:
    """Name and both values of the first entry that differs, inside of what is nested too."""
    for name in dict.fromkeys([*asked, *begun]):
        there, here = begun.get(name), asked.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            if (inside := difference(there, here, f"{path}{name}.")) is not None:
                return inside
            continue
        return path + name, there, here
    return None


def finished(folder: Path) -> dict[int, SeedResult]:
    """The finished seeds, by number; what cannot be read is not finished."""
    found = {}
    for path in (folder / "seeds").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            data = json.loads(path.read_text(encoding="utf-8"))
            test = None if data["test"] is None else _numbers(data["test"])
            curve = tuple(_numbers(point) for point in data["curve"])
            result = SeedResult(
                **{**data, "validation": _numbers(data["validation"]), "test": test, "curve": curve}
            )
            found[result.seed] = result
    return found


def finish(folder: Path, result: SeedResult) -> None:
    """Records a seed as finished: the last thing to be written of it."""
    (folder / "seeds").mkdir(exist_ok=True)
    write(folder / "seeds" / f"{result.seed}.json", dataclasses.asdict(result))


def summary(result: Result) -> dict[str, dict[str, float]]:
    """Metric -> median, least, most and deviation over the seeds."""
    found = {}
    for name in result.seeds[0].validation if result.seeds else ():
        values = result.values(name)
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        found[name] = {
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
            "deviation": deviation,
        }
    return found


def write(path: Path, data: Any) -> None:
    """JSON, whole or not at all."""
    try:
        run_dir.write_atomically(path, json.dumps(finite(data), indent=2, allow_nan=False) + "\n")
    except OSError as e:
        raise UserError(f"cannot write: {e.strerror}", where=str(path), code=Exit.CANNOT_WRITE) from None


def finite(data: Any) -> Any:
    """JSON knows no NaN: a metric of a fine-tuning that diverged is written as null."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _numbers(metrics: dict[str, float | None]) -> dict[str, float]:
    """The way back: null is NaN."""
    return {name: math.nan if value is None else value for name, value in metrics.items()}
