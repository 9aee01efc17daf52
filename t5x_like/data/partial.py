"""A folder that is being made: OUTPUT.partial, where a killed command finds again what it had done.

It holds `lock`, `plan.json` (everything that decides the result) and finished pieces; when all are there, the
finished folder is renamed to OUTPUT.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import xxhash

from t5x_like.data.sources import SourceFile
from t5x_like.data.token_writer import write_durably
from t5x_like.errors import Exit, UserError


@contextlib.contextmanager
def held(partial: Path) -> Iterator[None]:
    """One process at a time; also the first write, which says whether writing is allowed.

    Says what a full disk or a lost mount did; reading has its own errors (data/sources.py).

    Raises:
      UserError: another process works there; the folder cannot be written; writing failed on the way; a file that was
        made before is gone.
    """
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(partial / "lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            "another process makes the same output",
            where=str(partial),
            help="wait for it, or give another --output",
            code=Exit.LOCKED,
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write here: {error.strerror}", where=str(partial), code=Exit.CANNOT_WRITE
        ) from None
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(Path(error.filename or partial), error, remove=partial) from None
    except OSError as error:
        raise UserError(
            f"writing the output failed: {error.strerror or error}",
            where=str(error.filename or partial),
            help="when there is room again, the same command continues where it stopped",
            code=Exit.IO_ERROR,
        ) from None
    finally:
        lock.release()


def start_or_continue(
    partial: Path, plan: Mapping[str, Any], overwrite: bool, begun: Callable[[Path], bool]
) -> None:
    """Keeps finished pieces that were made to the same plan, refuses to throw others away unasked.

    Args:
      partial: the folder, held.
      plan: everything that decides the pieces.
      overwrite: throw away pieces of another plan.
      begun: whether the folder has pieces worth keeping.

    Raises:
      UserError: pieces of another plan are there, or a folder that is none of ours.
    """
    path, content = partial / "plan.json", json.dumps(plan).encode()
    if not path.is_file() and (other := sorted(set(_names(partial)) - {"lock", ".plan.json.tmp"})):
        raise UserError(
            f"unfinished work would be kept in this folder, and something else is there: {other[0]}",
            where=str(partial),
            help="another --output, or move the folder away",
            code=Exit.CANNOT_WRITE,
        )
    if path.is_file():
        if path.read_bytes() == content:
            return
        if not overwrite and begun(partial):
            raise UserError(
                "an unfinished preparation from other input, with other arguments or by other versions is there",
                where=str(partial),
                help="give the same arguments to continue it, or --overwrite to start over",
            )
    _empty(partial)
    write_durably(path, content)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _empty(partial: Path) -> None:
    """Removes all but the lock; the plan goes last, since it says whose folder this is."""
    for entry in sorted(partial.iterdir(), key=lambda entry: entry.name == "plan.json"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def remove(partial: Path) -> None:
    """Removes the folder, held, when nothing in it is wanted any more."""
    _empty(partial)
    shutil.rmtree(partial)


def is_ours(partial: Path) -> bool:
    """Whether a folder of this name is unfinished work, or what a kill left of it, and no folder of the user's."""
    return (partial / "plan.json").is_file() or (partial.is_dir() and set(_names(partial)) <= {"lock"})


def replace(folder: Path, output: Path) -> None:
    """Renames the finished folder to its place; an older one there is moved aside only when the new one is whole, to
    where the finished folder lay, and goes with the rest of it."""
    old = folder.with_name("replaced")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    folder.rename(output)


def digest(request: Mapping[str, Any]) -> str:
    """What equal requests have in common."""
    return xxhash.xxh3_128_hexdigest(json.dumps(request, sort_keys=True).encode())


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first argument that differs, in words; `input` is left out of both."""
    before = _flat(old)
    for key, value in _flat({k: v for k, v in new.items() if k != "input"}).items():
        if before.get(key) != value:
            return f": {key} was {before.get(key)!r} and is {value!r} now"
    return ": the input differs"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def check_name(output: str, elsewhere: str) -> None:
    """Whether --output can be the name of a folder to make.

    Args:
      output: of the command.
      elsewhere: what to do where another machine's folder is wanted.

    Raises:
      UserError: it is empty, an address, a place that is there already by its nature, or no name of a file.
    """
    if not output:
        raise UserError("--output is missing", help="--output=data/mine")
    if "://" in output:
        raise UserError("--output must be a local folder", where=output, help=elsewhere)
    try:
        Path(output + ".partial").is_dir()
        output.encode()
    except (OSError, ValueError) as error:
        reason = "its name is no UTF-8" if isinstance(error, ValueError) else error.strerror
        raise UserError(
            f"cannot write here: {reason}", where=ascii(output)[1:-1][:200], code=Exit.CANNOT_WRITE
        ) from None
    if Path(output).name in ("", ".."):
        raise UserError("--output must name the folder to make", where=output, help="--output=data/mine")


def refuse_inside(output: Path, names: Sequence[str], files: Sequence[SourceFile]) -> None:
    """Never reads what it is writing: a second run would find the first one's result among its input.

    Args:
      output: of the command.
      names: what the user named as input.
      files: what was found by these names.

    Raises:
      UserError: the output lies in a folder of the input, or holds a file of it.
    """
    here = output.resolve()
    folders = [Path(name).resolve() for name in names if "://" not in name and Path(name).is_dir()]
    around = next((folder for folder in folders if folder == here or folder in here.parents), None)
    inside = next((file.url for file in files if here in Path(file.url).resolve().parents), None)
    if around is not None or inside is not None:
        raise UserError(
            "the output lies inside the input" if around else "the input holds files of the output",
            where=str(output),
            help=f"an --output outside of {around}" if around else f"leave {inside} out of --input",
        )


def refuse_foreign(output: Path, marker: str, kind: str) -> None:
    """Never writes over a folder that is not what it is to become.

    Args:
      output: of the command.
      marker: the file that such a folder has.
      kind: what such a folder is called, such as `a corpus`.

    Raises:
      UserError: something else is there.
    """
    if output.is_symlink() and not output.exists():
        raise UserError(
            "the output is a link to nothing", where=str(output), help="remove it", code=Exit.CANNOT_WRITE
        )
    if not output.exists() or (output / marker).is_file():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise UserError(
            f"the output exists and is not {kind}",
            where=str(output),
            help="another --output, or remove it",
            code=Exit.CANNOT_WRITE,
        )


def damaged(path: Path, error: Exception, remove: Path | None = None) -> UserError:
    """The error of a finished piece that cannot be read.

    Args:
      path: the piece.
      error: what was seen.
      remove: what has to go so that the command can make the piece again; itself, if None.
    """
    what = "gone" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
    return UserError(
        f"an intermediate file is {what}",
        where=str(path),
        help=f"remove {remove or 'it'} and give the same command again",
        code=Exit.BAD_DATA,
    )
