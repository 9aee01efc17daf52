"""What state a run directory is in: its checkpoints, what is left over, who works in it. Changes nothing.

  python -m t5x_like.doctor --workdir=runs/a             sizes of the files of every checkpoint
  python -m t5x_like.doctor --workdir=runs/a --verify    every byte of them

Exit code 0 where a run could go on from its newest checkpoint, 76 where none is intact, 65 where there is no run or
its config.json cannot be read.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, printable

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory", flag_values=FLAGS)
_VERIFY = flags.DEFINE_bool("verify", False, "read every byte of every checkpoint", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    """Reads the flags, prints the table."""
    del argv
    if _WORKDIR.value is None:
        raise UserError("which run?", where="--workdir", help="--workdir=runs/NAME")
    from t5x_like.training.pins import unpinned
    from t5x_like.training.run import read_run
    from t5x_like.training.run_dir import RunDir, holder

    directory = RunDir(_WORKDIR.value)
    if not directory.config.is_file():
        raise UserError(
            "this is not a run directory: it has no config.json", where=_WORKDIR.value, code=Exit.BAD_DATA,
            help="name the --workdir of a t5x_like.train run",
        )  # fmt: skip
    states = examine(directory.checkpoints, verify=_VERIFY.value)
    for line in report(directory.checkpoints, states):
        print(printable(line))
    last = directory.events()[-1:]
    for event in last:
        told = f"last event: {event.get('event')} at {event.get('time')}, step {event.get('step', '?')}"
        print(printable(told))
    with contextlib.suppress(OSError), unpinned(directory.path / "lock") as free:
        if not free:
            print(printable(f"at work: {holder(directory.path)}"))
    read_run(directory.config)  # raises where a run cannot go on
    return int(Exit.CORRUPT if states and not any(not trouble for _, _, trouble in states) else Exit.DONE)


def examine(folder: Path, *, verify: bool) -> list[tuple[int, str, str]]:
    """(step, when it was saved and its validation loss, what is wrong with it or an empty text), oldest first."""
    from t5x_like.training.checkpoint_reader import Reader

    store = Reader(folder, verify="full" if verify else "size")
    found = []
    for step in store.steps():
        record, trouble = store.look(step)
        facts = ""
        if record is not None:
            at = datetime.datetime.fromtimestamp(record.saved, datetime.UTC)
            loss = "" if record.validation_loss is None else f"  validation {record.validation_loss:.4g}"
            size = sum(size for size, _ in record.files.values()) / 1e6
            facts = f"{at:%Y-%m-%dT%H:%M:%SZ}  {size:.1f} MB{loss}"
        found.append((step, facts, trouble))
    return found


def report(folder: Path, states: list[tuple[int, str, str]]) -> list[str]:
    """The table, and what else lies among the checkpoints."""
    from t5x_like.training.checkpoint_reader import is_of_step

    lines = [f"{step:>9}  {trouble or 'intact'}  {facts}".rstrip() for step, facts, trouble in states]
    if not lines:
        lines = ["no checkpoint"]
    for path in sorted(folder.glob("*")):
        kind, _, _ = path.name.partition("-")
        what = {
            "saving": "a save that is under way, or was when the run was killed: the next start removes it",
            "deleting": "a removal that was interrupted: the next start completes it",
            "unusable": "set aside as damaged; yours to delete",
        }.get(kind)
        if what is None and not is_of_step(path):
            what = "not of a run: ignored"
        if what:
            lines.append(f"{path.name}: {what}")
    return lines


if __name__ == "__main__":
    cli.run(main, FLAGS)
