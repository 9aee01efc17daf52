"""Documents between two passes over the corpus: numbered, compressed, in the order of the input."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import zstandard

from t5x_like.data.documents import Document
from t5x_like.errors import Exit, UserError

_FIELDS = tuple(field.name for field in dataclasses.fields(Document))


def write(path: Path, documents: Iterable[tuple[int, Document]]) -> None:
    """Writes numbered documents; the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        _write(file, documents)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path) -> Iterator[tuple[int, Document]]:
    """The documents of a file, one at a time.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            yield from _read(file)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise UserError(
            f"an intermediate file is damaged ({error})",
            where=str(path),
            help="give the same command again with --overwrite",
            code=Exit.BAD_DATA,
        ) from None


def dumps(documents: Iterable[tuple[int, Document]]) -> bytes:
    """What `write` writes."""
    file = io.BytesIO()
    _write(file, documents)
    return file.getvalue()


def loads(data: bytes) -> Iterator[tuple[int, Document]]:
    """The documents of `dumps`."""
    return _read(io.BytesIO(data))


def _write(file: IO[bytes], documents: Iterable[tuple[int, Document]]) -> None:
    with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as out:
        for number, document in documents:
            values = [number, *(getattr(document, name) for name in _FIELDS)]
            out.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")


def _read(file: IO[bytes]) -> Iterator[tuple[int, Document]]:
    with zstandard.ZstdDecompressor().stream_reader(file) as stream:
        rest = b""
        while chunk := stream.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number, *values = json.loads(line)
                yield number, Document(**dict(zip(_FIELDS, values, strict=True)))
        if rest:
            raise ValueError("ends within a document")
