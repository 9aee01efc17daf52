"""Metric writers: JSON lines always, TensorBoard event files beside them. None of them can stop a run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, Protocol

from t5x_like.training.run_dir import RunDir


class Writer(Protocol):
    """Takes the scalars of one step. May raise anything: `Metrics` keeps it away from the training."""

    def write(self, step: int, kind: str, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line: {"step": 10, "kind": "train", "loss": 9.1, ...}.

    Lines that could not be written (a full disk) are kept and written with the next ones.
    """

    MOST_KEPT = 100_000

    def __init__(self, path: Path):
        self.path = path
        self._pending: list[str] = []

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._pending.append(json.dumps({"step": step, "kind": kind, **plain}) + "\n")
        del self._pending[: -self.MOST_KEPT]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(self._pending))
        self._pending.clear()

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files under tb/, by tensorboardX (no TensorFlow). What lies behind `start` is hidden from the curves."""

    def __init__(self, folder: Path, start: int):
        from tensorboardX import SummaryWriter  # 0.3 s to import; only a process that trains pays it

        self._writer = SummaryWriter(str(folder), purge_step=start or None)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Metrics:
    """All writers of a run; the first failure of each is told once, and none is passed on.

    Args:
      directory: of the run.
      start: step that the run starts or resumes from. Lines of metrics.jsonl behind it are from steps that are
        about to be done again, and are removed.
    """

    def __init__(self, directory: RunDir, start: int):
        self._warned: set[str] = set()
        self._writers: list[Writer] = []
        if not directory.writes:
            return
        self._writers.append(JsonLines(directory.metrics))
        self._guard("metrics.jsonl", forget_after, directory.metrics, start)
        board = self._guard("TensorBoard", TensorBoard, directory.tensorboard, start)
        if board is not None:
            self._writers.append(board)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Hands the scalars of a step to every writer. `kind`: `train` or `eval`."""
        for writer in self._writers:
            self._guard(type(writer).__name__, writer.write, step, kind, values)

    def close(self) -> None:
        for writer in self._writers:
            self._guard(type(writer).__name__, writer.close)

    def _guard(self, name: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as e:  # whatever ails a writer, the training goes on
            if name not in self._warned:
                self._warned.add(name)
                print(
                    f"warning: metrics are not being written by {name}: {e} (training goes on)",
                    file=sys.stderr,
                )
            return None


def forget_after(path: Path, step: int) -> None:
    """Drops the lines of metrics.jsonl whose step is behind `step`, and a last line that was cut off."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
    if len(kept) < len(lines):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl in order; one that was cut off by a kill is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [json.loads(line) for line in lines if _step_of(line) is not None]


def _step_of(line: str) -> int | None:
    """The step of a line; None where it is cut off, or is none of ours."""
    try:
        value = json.loads(line) if line.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return None
    step = value.get("step")
    return step if type(step) is int else None
