"""Lists that rules read: words, addresses, evaluation texts. Read once a process, by name."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast, runtime_checkable

import fsspec
import xxhash

from t5x_like.data.compression import SUFFIXES, Damaged, chunks
from t5x_like.errors import Exit, UserError

MAX_BYTES = 4 << 30
_MARK = "\ufeff".encode()


@runtime_checkable
class ReadsFiles(Protocol):
    """A rule that reads files which are not part of the recipe."""

    def files_read(self) -> Iterable[str]:
        """Their names; raises `UserError` where there are none."""
        ...


def names(pattern: str, where: str, help: str | None = None) -> tuple[str, ...]:
    """The files of a name with wildcards, or of a folder, sorted; local or behind any fsspec address.

    Raises:
      UserError: there is none; `help` says how to have it.
    """
    if not pattern:
        raise UserError("no file is named", where=where, help=help)
    try:
        fs, path = fsspec.core.url_to_fs(pattern)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot be opened: {pattern} ({error})", where=where) from None
    try:
        if any(mark in path for mark in "*?["):
            found = [name for name in fs.glob(path) if fs.isfile(name)]
        elif fs.isdir(path):
            found = [name for name in fs.find(path) if "://" in pattern or fs.isfile(name)]
        elif fs.exists(path) and not fs.isfile(path):  # to open a pipe would wait for its writer
            raise UserError(f"not a regular file: {pattern}", where=where, code=Exit.BAD_DATA)
        else:
            found = [path] if fs.exists(path) else []
    except OSError as error:
        raise UserError(f"cannot be read: {pattern} ({error})", where=where, code=Exit.IO_ERROR) from None
    if not found:
        raise UserError(f"no such file: {pattern}", where=where, help=help, code=Exit.BAD_DATA)
    return tuple(fs.unstrip_protocol(name) for name in sorted(map(str, found)))


def lines(name: str, where: str, help: str | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, plain or compressed (.gz, .zst, .xz), stripped; empty ones are left out, and the byte
    order mark that some editors begin with.

    Raises:
      UserError: there is no such file (`help` says how to have it), or it cannot be read, is damaged, is no UTF-8, is
        larger than `MAX_BYTES`, or holds nothing, and a rule with it would let everything pass.
    """
    compression = SUFFIXES.get(PurePosixPath(name).suffix)
    number, empty = 0, True
    try:
        with fsspec.open(name, "rb") as file:
            for number, line in enumerate(_raw(chunks(cast(IO[bytes], file), compression), name, where)):
                if text := line.removeprefix(b"" if number else _MARK).decode().strip():
                    empty = False
                    yield text
        if empty:
            raise UserError("holds nothing", where=f"{where}: {name}", help=help, code=Exit.BAD_DATA)
    except UnicodeDecodeError as error:
        raise UserError(
            f"line {number + 1} is not UTF-8: {error.reason}", where=f"{where}: {name}", code=Exit.BAD_DATA
        ) from None
    except FileNotFoundError:
        raise UserError(f"no such file: {name}", where=where, help=help, code=Exit.BAD_DATA) from None
    except (OSError, Damaged) as error:
        raise UserError(f"cannot be read: {error}", where=f"{where}: {name}", code=Exit.IO_ERROR) from None


def _raw(pieces: Iterable[bytes], name: str, where: str) -> Iterator[bytes]:
    """The lines of a file, without their ends; what is behind the last end is one too."""
    rest, size = b"", 0
    for chunk in pieces:
        size += len(chunk)
        if size > MAX_BYTES:
            raise UserError(f"{name} is larger than {MAX_BYTES} bytes", where=where, code=Exit.BAD_DATA)
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield rest


def digest(name: str) -> str:
    """128-bit xxh3 of a file's bytes as they lie there, so that a list goes by what it says and not by its name.

    Raises:
      UserError: it cannot be read.
    """
    found = xxhash.xxh3_128()
    try:
        with fsspec.open(name, "rb") as file:
            while block := cast(IO[bytes], file).read(1 << 20):
                found.update(block)
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=name, code=Exit.IO_ERROR) from None
    return found.hexdigest()


def read_json(name: str, where: str, help: str | None = None) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads("\n".join(lines(name, where, help)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON: {error}", where=f"{where}: {name}", code=Exit.BAD_DATA) from None


@functools.cache
def bad_words() -> dict[str, tuple[str, ...]]:
    """The list of lists/README.md: language -> words."""
    text = (resources.files("t5x_like.data.cleaning") / "lists" / "ldnoobw.json").read_text(encoding="utf-8")
    return {language: tuple(words) for language, words in json.loads(text).items()}
