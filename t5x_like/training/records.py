"""The record of a checkpoint: what seals it, what is known of it without its arrays, and whether its files are as
they were written.

The record holds size and checksum of every file of the checkpoint, and a checksum of itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import xxhash

from t5x_like.training.run_dir import write_atomically

Verify = Literal["full", "size"]
"""How the files of a checkpoint are checked before it is used: every byte, or their sizes only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one checkpoint without reading its arrays.

    Attributes:
      step: train steps done.
      saved: seconds since 1970.
      tokens: raw tokens of the corpus consumed so far.
      validation_loss: nats per target token at this very step; None where it was not measured.
      config: hash of the configuration.
      tokenizer, data: fingerprints.
      arrays: path in the state -> "float32[512,64]".
      files: path below the step's folder -> [bytes, xxh3-128].
      skips: (first, count) of the batches that the run leaves out (`Batches`).
      nonfinite_in_a_row: updates before this step that were skipped one after the other.
    """

    step: int
    saved: float = 0.0
    tokens: int = 0
    validation_loss: float | None = None
    config: str = ""
    tokenizer: str = ""
    data: str = ""
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    skips: tuple[tuple[int, int], ...] = ()
    nonfinite_in_a_row: int = 0


def from_fields(fields: Mapping[str, Any]) -> Record:
    """The inverse of `dataclasses.asdict`, through JSON as well."""
    files = {name: (int(size), str(digest)) for name, (size, digest) in fields.get("files", {}).items()}
    skips = tuple((int(first), int(count)) for first, count in fields.get("skips", ()))
    return Record(**{**fields, "files": files, "skips": skips})


def write(path: Path, record: Record) -> None:
    """Writes a record with its own checksum; whole or not at all."""
    fields = dataclasses.asdict(record)
    write_atomically(path, _text(fields | {"checksum": _checksum(fields)}))


def read(path: Path) -> Record:
    """Reads a record.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a record, not as it was written, or names files outside its checkpoint; says which.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        fields = json.loads(text)
        if not isinstance(fields, dict) or _text(fields) != text:
            raise ValueError
        # Records of before they had a checksum are read as they stand.
        checksum = fields.pop("checksum", None)
        if checksum is not None and checksum != _checksum(fields):
            raise ValueError
        record = from_fields(fields)
        if not _plausible(record):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError(f"{path} is not as it was written") from None
    if str(record.step) != path.stem:
        raise ValueError(f"{path} is the record of step {record.step}")
    for name in record.files:
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name or name.startswith("/") or ".." in parts:
            raise ValueError(f"{path} names a file outside its checkpoint: {name!r}")
    return record


def _plausible(record: Record) -> bool:
    """Whether every field is of its kind: what has no checksum, or was written by somebody else, may be anything."""
    loss = record.validation_loss
    return (
        all(
            type(n) is int and 0 <= n < 2**63 for n in (record.step, record.tokens, record.nonfinite_in_a_row)
        )
        and isinstance(record.saved, (int, float))
        and 0 <= record.saved < 1e11
        and (loss is None or isinstance(loss, (int, float)))
        and all(isinstance(text, str) for text in (record.config, record.tokenizer, record.data))
        and all(isinstance(kind, str) for kind in record.arrays.values())
        and len(record.files) > 0
        and all(0 <= first <= 10**12 >= count > 0 for first, count in record.skips)
    )


def damage(folder: Path, record: Record, verify: Verify = "full") -> str:
    """What is wrong with the files of a checkpoint, or an empty text; `full` reads all of them."""
    for name, (size, digest) in record.files.items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size or (verify == "full" and digest_of(path) != digest):
                return f"{path} is not as it was written"
        except OSError as e:
            return f"{path} cannot be read: {e.strerror or e}"
    return ""


def digest_of(path: Path) -> str:
    """xxh3-128 of a file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _text(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields) + "\n"


def _checksum(fields: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(_text(fields).encode())
