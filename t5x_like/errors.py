"""One way to refuse: what was wrong, where, and the nearest thing that would have worked.

An entry point prints a `UserError` as a few lines and exits with its code; anything else that escapes is a
defect of this project and shows its traceback.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable


class Exit(enum.IntEnum):
    """Exit codes of every command (documented in WORKSPACE.md)."""

    DONE = 0
    USAGE = 64  # a flag or a configuration that cannot be
    BAD_DATA = 65  # input text, token dataset, tokenizer
    PARTIAL = 66  # done, but part of the input could not be read
    INTERNAL = 70  # non-finite training, a defect
    CANNOT_WRITE = 73  # the run directory or the output cannot be written
    IO_ERROR = 74  # reading or writing failed half-way
    INTERRUPTED = 75  # saved after SIGTERM or Ctrl-C: the same command continues
    CORRUPT = 76  # a checkpoint or manifest that does not verify, and nothing to fall back on
    LOCKED = 77  # another process works in the same run directory


class UserError(Exception):
    """An error that the person at the keyboard can mend.

    Attributes:
      what: one sentence: what was wrong and what was expected.
      where: file:line, flag or field, if there is one.
      help: the nearest thing that would have worked.
      code: the exit status of the command.
    """

    def __init__(
        self, what: str, *, where: str | None = None, help: str | None = None, code: Exit = Exit.USAGE
    ):
        super().__init__(what)
        self.what, self.where, self.help, self.code = what, where, help, code

    def __str__(self) -> str:
        """As lines for a terminal: what came from files or flags is shortened, and its control characters are shown
        and not obeyed."""
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(printable(line) for line in "\n".join(lines).split("\n"))


def printable(line: str, most: int = 1000) -> str:
    """A line without anything that a terminal would obey; what is longer than `most` loses its middle."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return shown if len(shown) <= most else f"{shown[: most // 2]} ... {shown[-most // 4 :]}"


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None where nothing is like it."""
    choices = list(choices)
    folded = {c.lower(): c for c in choices}
    if name.lower() in folded:
        return folded[name.lower()]
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def did_you_mean(name: str, choices: Iterable[str], *, prefix: str = "") -> str:
    """`did you mean 'x'?`, or the list of choices where none is near."""
    choices = sorted(set(choices))
    best = nearest(name, choices)
    if best is not None:
        return f"did you mean {prefix}{best}?"
    return "choose one of: " + ", ".join(prefix + c for c in choices)
