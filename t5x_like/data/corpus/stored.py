"""What lies between two passes over the corpus: rows of JSON, compressed; documents, in the order of the input."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from t5x_like.data import partial
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

_FIELDS = tuple(field.name for field in dataclasses.fields(Document))


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Rows:
    """Writes rows.

    Args:
      file: where to; it stays open.
    """

    def __init__(self, file: IO[bytes]):
        self._out = zstandard.ZstdCompressor(level=1, write_checksum=True).stream_writer(file, closefd=False)

    def write(self, values: list[Any]) -> None:
        """One row."""
        self._out.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Writes what is left."""
        self._out.close()


def rows(path: Path) -> Iterator[list[Any]]:
    """The rows of a file, one at a time.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(file)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise damaged(path, error) from None


def read_json(path: Path) -> Any:
    """The content of a small file of JSON.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error of a file of a pass; what lay beside it for making it again is gone, so all passes have to go."""
    folder = next((parent for parent in path.parents if parent.suffix == ".partial"), path.parent)
    return partial.damaged(path, error, remove=folder)


def write(path: Path, documents: Iterable[tuple[int, Document]]) -> None:
    """Writes numbered documents; the file is there whole or not at all."""
    with whole(path) as file:
        _write(file, documents)


def read(path: Path) -> Iterator[tuple[int, Document]]:
    """The documents of a file, one at a time.

    Raises:
      UserError: the file is damaged.
    """
    return map(_document, rows(path))


def dumps(documents: Iterable[tuple[int, Document]]) -> bytes:
    """What `write` writes."""
    file = io.BytesIO()
    _write(file, documents)
    return file.getvalue()


def loads(data: bytes) -> Iterator[tuple[int, Document]]:
    """The documents of `dumps`."""
    return map(_document, _rows(io.BytesIO(data)))


def _document(row: list[Any]) -> tuple[int, Document]:
    return row[0], Document(**dict(zip(_FIELDS, row[1:], strict=True)))


def _write(file: IO[bytes], documents: Iterable[tuple[int, Document]]) -> None:
    out = Rows(file)
    for number, document in documents:
        out.write([number, *(getattr(document, name) for name in _FIELDS)])
    out.close()


def _rows(file: IO[bytes]) -> Iterator[list[Any]]:
    decoder, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    while chunk := file.read(1 << 18):
        *lines, rest = (rest + decoder.decompress(chunk)).split(b"\n")
        yield from map(json.loads, lines)
    if rest or not decoder.eof:
        raise ValueError("it ends too early")
