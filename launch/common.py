"""What the launchers share: commands shown before they run, quoting, the flags of training, and words for mistakes."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from t5x_like import cli
from t5x_like import train as program
from t5x_like.errors import Exit, UserError, nearest

RETRY = int(Exit.INTERRUPTED)
"""What training leaves with when the same command goes on where it stopped."""

HOPELESS = (Exit.USAGE, Exit.BAD_DATA, Exit.INTERNAL, Exit.CANNOT_WRITE, Exit.CORRUPT, Exit.LOCKED)
"""What training leaves with when the same command would stop again: 70 also where a run has begun again and again at
one step (`recovery.starts`), so that no launcher has to look for crash loops."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


class Shell:
    """Runs programs, each shown as it could be typed; with `dry_run` it only shows them."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def show(self, command: Sequence[str]) -> None:
        print("$ " + shlex.join(command), flush=True)

    def run(self, command: Sequence[str]) -> int:
        """The exit code; 0 in a dry run."""
        self.show(command)
        if self.dry_run:
            return 0
        return self._call(command).returncode

    def must(self, command: Sequence[str]) -> None:
        """Raises `UserError` where the program fails."""
        code = self.run(command)
        if code:
            raise UserError(
                f"{command[0]} failed with exit code {code}",
                where=shlex.join(command)[:200],
                code=Exit.IO_ERROR,
            )

    def ask(self, command: Sequence[str], answer: str = "") -> str | None:
        """What the program prints, without the space around it; None where it fails; `answer` in a dry run."""
        self.show(command)
        if self.dry_run:
            return answer
        done = self._call(command, stdout=subprocess.PIPE, text=True, errors="replace")
        return done.stdout.strip() if done.returncode == 0 else None

    def _call(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        if shutil.which(command[0]) is None:
            raise UserError(
                f"{command[0]} is not installed, or not on the PATH",
                where=command[0],
                help="--dry_run shows what would run, without it",
            )
        try:
            return subprocess.run(list(command), check=False, **options)
        except OSError as e:
            raise UserError(
                f"{command[0]} does not start: {e}", where=str(shutil.which(command[0])), code=Exit.IO_ERROR
            ) from None


def train_command(train: Sequence[str], python: str = "python3", others: Iterable[str] = ()) -> list[str]:
    """The training command with these flags, which are read here as training will read them.

    Args:
      others: flags of the launcher that may have been meant where one is misspelled.

    Raises:
      UserError: a flag that training does not have, or a value that it would not take; or those are missing without
        which no run can begin.
    """
    where = "flags of training"
    values = flags.FlagValues()
    for name in program.FLAGS:
        values[name] = copy.deepcopy(program.FLAGS[name])
    try:
        cli.parse(values, ["train", *train], where)
    except UserError as e:
        word = e.what.removeprefix("unknown flag --")
        near = nearest(word, [*program.FLAGS, *others]) if word != e.what else None
        raise UserError(e.what, where=where, help=f"did you mean --{near}?" if near else e.help) from None
    for name, example in (("config", "t5/base"), ("workdir", "/mnt/runs/NAME")):
        if not values[name].value:
            raise UserError(
                f"the flags of training lack --{name}",
                where=where,
                help=f"... -- --{name}={example}, for example",
            )
    return [python, "-m", "t5x_like.train", *train]


def write(path: Path, text: str) -> None:
    """Raises `UserError` where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise UserError(f"the file cannot be written: {e}", where=str(path), code=Exit.CANNOT_WRITE) from None


def with_environment(variables: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """`env NAME=value ... command`, or the command itself."""
    return ["env", *(f"{k}={v}" for k, v in variables.items()), *command] if variables else list(command)


def script(*commands: Sequence[str] | str) -> str:
    """One line of shell: lists are quoted, text stands as it is; each runs only if the one before succeeded."""
    return " && ".join(c if isinstance(c, str) else shlex.join(c) for c in commands)


def check_name(name: str, flag: str = "--name") -> str:
    """A name that clouds and clusters take: small letters, digits and hyphens, at most 40."""
    if not _NAME.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("0123456789-")[:40].strip("-")
        raise UserError(
            f"{name!r} cannot be a name: small letters, digits and hyphens, a letter first, at most 40",
            where=flag,
            help=f"{flag}={near or 'run'}",
        )
    return name


def start(main: Callable[[list[str]], int], values: flags.FlagValues) -> NoReturn:
    """Runs a launcher: its own flags before `--`, those of training, handed to `main`, behind it."""
    rest: list[str] = []
    if "--" in sys.argv:
        place = sys.argv.index("--")
        rest = sys.argv[place + 1 :]
        sys.argv[place:] = []
    cli.run(lambda argv: main(rest), values)
