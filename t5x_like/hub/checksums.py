"""SHA256SUMS beside exported weights, as `sha256sum --check SHA256SUMS` reads it: safetensors have no checksum of their
own, and a flipped bit is a wrong weight without an error."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from t5x_like.errors import Exit, UserError

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\0\n]+)")


def write(folder: Path) -> None:
    """Writes the sums of every folder with weights, and brings all of it to the disk."""
    for weights in sorted(folder.rglob("*.safetensors")):
        names = sorted(path.name for path in weights.parent.iterdir() if path.is_file() and path.name != NAME)
        lines = [f"{_digest(weights.parent / name)}  {name}\n" for name in names]
        (weights.parent / NAME).write_text("".join(lines), encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check(path: Path) -> None:
    """Compares a file with the sum beside it, if there is one.

    Raises:
      UserError: they differ, or the sums cannot be understood.
    """
    sums = path.with_name(NAME)
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=str(sums), code=Exit.CORRUPT) from None
    known = {found[2]: found[1] for line in lines if (found := _LINE.fullmatch(line))}
    if len(known) != len(lines):
        raise UserError("expected lines of sum and file name", where=str(sums), code=Exit.CORRUPT)
    if path.name in known and path.is_file() and _digest(path) != known[path.name]:
        raise UserError(
            f"{path.name} is not as it was exported: its SHA-256 is not that of {NAME}",
            where=str(path),
            help=f"export it again, or copy it again; {NAME} removed checks nothing",
            code=Exit.CORRUPT,
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
