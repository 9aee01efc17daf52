"""Counts the starts of a run, and stops one that does not get on: run before each start of training.

  python -m launch.guard --workdir=runs/a --same=3 --starts=100

Ends with 0 to go on. Ends with 70 where the run has begun --same times at the step it stands at now, or --starts times
in all: a person should look. WORKDIR.starts.jsonl beside the run directory remembers; delete it to begin counting anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError
from t5x_like.training.run_dir import utc_now

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory", flag_values=FLAGS)
_SAME = flags.DEFINE_integer("same", 3, "most starts at one step", lower_bound=1, flag_values=FLAGS)
_STARTS = flags.DEFINE_integer("starts", 100, "most starts in all", lower_bound=1, flag_values=FLAGS)


def last_step(workdir: Path) -> int:
    """The last step that the run's metrics speak of; 0 where there are none yet. A torn last line is passed over."""
    try:
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return max((_step(line) for line in lines[-100:]), default=0)


def _step(line: str) -> int:
    try:
        step = json.loads(line).get("step", 0)
    except (ValueError, AttributeError):
        return 0
    return step if isinstance(step, int) else 0


def starts(workdir: Path) -> list[dict[str, Any]]:
    """Those that are remembered: {"time": ..., "step": ...}."""
    try:
        lines = _memory(workdir).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [{"step": _step(line)} for line in lines if line.strip()]


def _memory(workdir: Path) -> Path:
    return workdir.with_name(workdir.name + ".starts.jsonl")


def record(workdir: Path, *, same: int, most: int) -> str:
    """Remembers a start; returns a line about it.

    Raises:
      UserError: too many at this step, or in all.
    """
    step, before = last_step(workdir), starts(workdir)
    here = 0
    for start in reversed(before):
        if start["step"] != step:
            break
        here += 1
    if here >= same or len(before) >= most:
        reason = (
            f"begun {here} times at step {step} and never got further"
            if here >= same
            else f"begun {len(before)} times"
        )
        raise UserError(
            f"this run has been {reason}: it is not begun again",
            where=str(workdir),
            help=f"see its log; then delete {_memory(workdir)} and start it once more",
            code=Exit.INTERNAL,
        )
    try:
        _memory(workdir).parent.mkdir(parents=True, exist_ok=True)
        with _memory(workdir).open("a", encoding="utf-8") as f:
            f.write(json.dumps({"time": utc_now(), "step": step}) + "\n")
    except OSError as e:
        raise UserError(
            f"the starts of the run cannot be counted: {e}",
            where=str(_memory(workdir)),
            code=Exit.CANNOT_WRITE,
        ) from None
    return f"start {len(before) + 1}, at step {step}"


def main(argv: list[str]) -> int:
    del argv
    if not _WORKDIR.value:
        raise UserError("which run?", where="--workdir", help="--workdir=runs/a")
    print(record(Path(_WORKDIR.value), same=_SAME.value, most=_STARTS.value), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
