"""What `infer` reads and writes: lines in, JSON lines out, in order, and resumable after any kill."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from t5x_like import strict_json
from t5x_like.errors import Exit, UserError

Record = dict[str, Any]
"""A line: `inputs`, and whatever else stands in it."""

CHUNK = 16  # batches between two writes; sorting by length happens inside
REPORTED = 10  # bad lines shown one by one


class Use(Protocol):
    """What is done with each record; the classes of `uses.py`."""

    @property
    def batch_size(self) -> int:
        """Rows of one call of the model."""
        ...

    @property
    def limits(self) -> str:
        """The flags, with their values, that say how long a text may be."""
        ...

    def settings(self) -> dict[str, Any]:
        """What decides the results, apart from input, weights and tokenizer; for `Output`."""
        ...

    def resized(self, batch_size: int) -> Use:
        """The same with another number of rows."""
        ...

    def check(self, record: Record) -> None:
        """Raises `ValueError`, in a few words, where the record cannot be used."""
        ...

    def results(self, records: Sequence[Record], first_index: int) -> list[tuple[Record, bool]]:
        """For each record what is added to it, and whether its text was cut to fit.

        Args:
          records: such as `check` let through.
          first_index: the number of the first one in the whole input (sampling draws by it).
        """
        ...


# ---- input ---------------------------------------------------------------------------------------


def open_input(path: str) -> BinaryIO:
    """The input as a file that can be read twice."""
    if path == "-":
        return io.BytesIO(sys.stdin.buffer.read())
    try:
        return Path(path).open("rb")
    except OSError as e:
        raise UserError(f"cannot read the input: {e.strerror}", where=path, code=Exit.IO_ERROR) from None


def is_json(source: BinaryIO, path: str) -> bool:
    """Whether the input is JSON lines: by its name, or on stdin by its first character."""
    return path.endswith(".jsonl") or (path == "-" and source.read(4096).lstrip().startswith(b"{"))


def parse(line: bytes, *, as_json: bool) -> Record:
    """One line as a record; a plain line becomes `inputs`.

    Raises:
      ValueError: says in a few words why the line cannot be used.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"not valid UTF-8 (byte {e.start + 1})") from None
    if not as_json:
        return {"inputs": text}
    try:
        record: Any = strict_json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"not JSON ({e})") from None
    try:  # half a surrogate pair, or NaN in a field that is carried through: no JSON line could hold it
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
    except ValueError:
        raise ValueError("not JSON (NaN or infinity)") from None
    if not isinstance(record, dict):
        raise ValueError('expected an object such as {"inputs": "..."}')
    return record


def text_field(record: Record, field: str = "inputs") -> str:
    """The text in a field; raises `ValueError` where there is none."""
    if not isinstance(record.get(field), str):
        raise ValueError(f"no text in field {field!r}")
    return record[field]


def read(source: BinaryIO, use: Use, *, as_json: bool) -> Iterator[tuple[int, Record | ValueError]]:
    """(line number, record or what is wrong with the line) for every line that is not blank, from the beginning."""
    source.seek(0)
    for number, line in enumerate(source, 1):
        if line.strip():
            try:
                record = parse(line.rstrip(b"\r\n"), as_json=as_json)
                use.check(record)
                yield number, record
            except ValueError as error:
                yield number, error


def check_input(lines: Iterator[tuple[int, Record | ValueError]], name: str, *, skip: bool) -> int:
    """The number of records; bad lines stop the command before any work, or (`skip`) are reported."""
    good, bad = 0, 0
    for number, record in lines:
        if not isinstance(record, ValueError):
            good += 1
            continue
        if not skip:
            raise UserError(
                str(record),
                where=f"{name}:{number}",
                help="--bad_input=skip leaves such lines out",
                code=Exit.BAD_DATA,
            )
        bad += 1
        if bad <= REPORTED:
            print(f"skipped {name}:{number}: {record}", file=sys.stderr)
    if bad:
        print(f"{bad} bad line{'s' * (bad > 1)} skipped", file=sys.stderr)
    return good


# ---- output --------------------------------------------------------------------------------------


class Output:
    """A file of JSON lines that grows by whole chunks and remembers the settings that it was begun with.

    Args:
      path: the file; `path`.settings.json stands beside it.
      settings: what decides the lines. If the file was begun with others, `UserError` shows both.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        beside = path.with_name(path.name + ".settings.json")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
            if self._file.tell() == 0:
                beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        except OSError as e:
            raise UserError(
                f"cannot write the output: {e.strerror}", where=str(path), code=Exit.CANNOT_WRITE
            ) from None
        try:
            begun = json.loads(beside.read_bytes())
        except (OSError, ValueError, RecursionError):
            begun = None
        if not isinstance(begun, dict):
            raise UserError(
                "the output exists, and its settings are not beside it",
                where=str(path),
                help="choose another --output",
            )
        for name in settings.keys() | begun.keys():
            if settings.get(name) != begun.get(name):
                raise UserError(
                    f"the output was begun with {name} {begun.get(name)}, not {settings.get(name)}",
                    where=str(path),
                    help="choose another --output, or remove this one",
                )
        self.lines = self._count()

    def _count(self) -> int:
        """Complete lines there are; what a kill left of another one is cut off."""
        self._file.seek(0)
        lines = end = 0
        for line in self._file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        self._file.truncate(end)
        return lines

    def append(self, records: Sequence[Record]) -> None:
        """Writes the records at the end, and waits until they are on the disk."""
        try:
            self._file.write(_lines(records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise UserError(
                f"writing failed: {e.strerror}",
                where=str(self.path),
                code=Exit.IO_ERROR,
                help="run the command again",
            ) from None


def _lines(records: Sequence[Record]) -> bytes:
    """JSON lines; what a model with weights that are not finite says is refused, as JSON has no NaN."""
    try:
        text = "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records)
    except ValueError:
        raise UserError(
            "a result is NaN or infinite: the model's numbers are not finite",
            help="--checkpoint=STEP names one from before the run diverged",
            code=Exit.INTERNAL,
        ) from None
    return text.encode()


# ---- between the two -----------------------------------------------------------------------------


def process(use: Use, records: Iterator[Record], total: int, output: Output | None) -> int:
    """Puts every record through `use` and writes it (None: prints it); returns how many texts were cut.

    Chunks begin at the same records whether the run was stopped or not, and with them the batches.
    """
    done = output.lines if output else 0
    truncated, index = 0, 0
    while chunk := list(itertools.islice(records, use.batch_size * CHUNK)):
        begin, index = index, index + len(chunk)
        if index <= done:
            continue
        added = use.results(chunk, begin)
        found = [({**record, **new}, cut) for record, (new, cut) in zip(chunk, added, strict=True)]
        found = found[max(0, done - begin) :]
        truncated += sum(cut for _, cut in found)
        if output:
            output.append([record for record, _ in found])
            print(f"{index} of {total} lines", file=sys.stderr)
        else:
            sys.stdout.write(_lines([record for record, _ in found]).decode())
    return truncated
