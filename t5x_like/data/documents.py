"""Documents, and one rule for text that is not as it should be."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Literal

from t5x_like.data.sources import SourceFile
from t5x_like.errors import Exit, UserError

Policy = Literal["skip", "fail", "replace"]
Borders = Literal["blank_line", "line", "file"]

MAX_DOCUMENT_BYTES = 16 << 20
BESIDE_PAGES = frozenset(
    {"http_status", "metadata_record", "not_html", "request_record", "revisit_record", "warcinfo_record"}
)
"""What a crawl holds beside pages: left out and counted, and no fault of the input."""
HARMLESS = BESIDE_PAGES | {"bad_timestamp", "bad_url", "byte_order_mark"}
"""Kinds of problems that stop nothing under any policy."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How documents are read.

    Attributes:
      text_field: field, column or feature that holds the text.
      documents: what ends a document in .txt files.
      bad_input: `skip` leaves bad documents out, `fail` stops at the first, `replace` mends what can be mended:
        U+FFFD for invalid UTF-8, NUL bytes taken out, over-long texts cut; what cannot be mended is skipped.
      max_document_bytes: longest document (and line of JSON).
    """

    text_field: str = "text"
    documents: Borders = "blank_line"
    bad_input: Policy = "skip"
    max_document_bytes: int = MAX_DOCUMENT_BYTES


@dataclasses.dataclass(frozen=True)
class Document:
    """A text and what is known of it.

    Attributes:
      text: the text itself.
      url: address of the page, where it has one.
      timestamp: when it was fetched, ISO 8601 in UTC (`2019-04-18T12:00:00Z`); empty where unknown.
      source: name of the file that it was read from.
      position: byte of its record in that file, decompressed (a WARC file: as stored); of Parquet and ArrayRecord
        files the number of the row, from 1.
      language: code of the language that it was found to be in, and how sure that is, 0 to 1.
      cluster: 16 hexadecimal digits that its near-duplicates have too (data/dedup/near.py); empty where it has none.
    """

    text: str
    url: str = ""
    timestamp: str = ""
    source: str = ""
    position: int = 0
    language: str = ""
    language_probability: float = 0.0
    cluster: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong with the input.

    Attributes:
      kind: one word for the table, such as `invalid_utf8`.
      file: name of the file.
      line: line (or row) counted from 1; 0 where the whole file is meant, or lines are not counted.
      byte: position in the decompressed file; of a WARC file in the file as stored.
      action: what was done.
      detail: what was seen; for JSON files of rejections, not to be printed as it is.
    """

    kind: str
    file: str
    line: int
    byte: int
    action: Literal["skipped", "mended"]
    detail: str = ""

    def error(self) -> UserError:
        """The error of `--bad_input=fail`."""
        kind = self.kind.replace("_", " ")
        return UserError(
            f"{kind}: {ascii(self.detail)[1:-1]}" if self.detail else kind,
            where=self.file + (f":{self.line}" if self.line else "") + f" (byte {self.byte})",
            help="--bad_input=skip leaves such documents out and lists them in rejections.jsonl, "
            "--bad_input=replace mends what it can",
            code=Exit.BAD_DATA,
        )


@dataclasses.dataclass(frozen=True)
class Block:
    """Whole documents of one file.

    Attributes:
      file: index into the list of files.
      data: bytes of a text or JSONL file.
      line, byte: where `data` begins: line from 1, byte of the decompressed file.
      rows: [first, last) row groups of a Parquet file or records of an ArrayRecord file.
      span: [first, last) bytes as stored of a file of pages: the records that begin there.
      size: bytes that this block stands for, by which blocks are put together into units.
      consumed: stored bytes of the file read since the last block, for the progress bar.
      problems: found while cutting.
    """

    file: int
    data: bytes = b""
    line: int = 1
    byte: int = 0
    rows: tuple[int, int] | None = None
    span: tuple[int, int] | None = None
    size: int = 0
    consumed: int = 0
    problems: tuple[Problem, ...] = ()


def decoded(
    data: bytes,
    file: SourceFile,
    line: int,
    byte: int,
    settings: Settings,
    *,
    url: object = "",
    timestamp: object = "",
) -> Iterator[Document | Problem]:
    """A document from UTF-8 bytes, or the problem with it."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        problem = invalid_utf8(data, error, file, line, byte, settings)
        yield problem
        if problem.action == "skipped":
            return
        text = data.decode(errors="replace")
    yield from checked(text, file, line, byte, settings, url=url, timestamp=timestamp)


def checked(
    text: str,
    file: SourceFile,
    line: int,
    byte: int,
    settings: Settings,
    *,
    url: object = "",
    timestamp: object = "",
) -> Iterator[Document | Problem]:
    """A document from a string: line ends made alike, NUL and lone surrogates looked for.

    Whatever stands for `url` and `timestamp` in the file may be given; what is `known` of it is kept.
    """
    mend = settings.bad_input == "replace"
    if "\0" in text:
        yield Problem(
            "nul", file.name, line, byte, "mended" if mend else "skipped", f"{text.count(chr(0))} NUL"
        )
        if not mend:
            return
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:  # an escape such as \ud800 alone in JSON
        yield Problem("lone_surrogate", file.name, line, byte, "mended" if mend else "skipped")
        if not mend:
            return
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.strip()
    if text:
        position = line if file.format in ("parquet", "array_record") else byte
        address, time, problems = known(url, timestamp, file, line, byte)
        yield from problems
        yield Document(text, address, time, file.name, position)
    else:
        yield Problem("empty_document", file.name, line, byte, "skipped")


_TIME = re.compile(
    r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])"
    r"([T ]([01]\d|2[0-4]):[0-5]\d(:([0-5]\d|60)([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII,
)


def known(
    url: object, timestamp: object, file: SourceFile, line: int, byte: int
) -> tuple[str, str, list[Problem]]:
    """A document's address and time as they may be passed on, empty where they may not, and what is wrong with them.

    An address is up to 2048 characters of one line; a time is ISO 8601, or a date that Parquet holds as such.
    """
    problems = []
    if isinstance(timestamp, datetime):
        timestamp = timestamp.replace(tzinfo=timestamp.tzinfo or UTC).astimezone(UTC)
        timestamp = timestamp.isoformat().replace("+00:00", "Z")
    elif isinstance(timestamp, date):
        timestamp = timestamp.isoformat()
    address = url if isinstance(url, str) and len(url) <= 2048 and url.isprintable() else ""
    time = timestamp if isinstance(timestamp, str) and _TIME.fullmatch(timestamp) else ""
    for kind, given, kept in (("bad_url", url, address), ("bad_timestamp", timestamp, time)):
        if given and not kept:
            size = f"{len(given)} characters" if isinstance(given, str) else type(given).__name__
            problems.append(Problem(kind, file.name, line, byte, "mended", f"{size}: {ascii(given)[:80]}"))
    return address, time, problems


def invalid_utf8(
    data: bytes, error: UnicodeDecodeError, file: SourceFile, line: int, byte: int, settings: Settings
) -> Problem:
    """Names the line and the byte of the first bad byte of `data`, which begins at `line` and `byte`."""
    line += data.count(b"\n", 0, error.start)
    shown = data[max(0, error.start - 10) : error.start + 10]
    action = "mended" if settings.bad_input == "replace" else "skipped"
    return Problem("invalid_utf8", file.name, line, byte + error.start, action, repr(shown)[2:-1])


def too_long(file: SourceFile, line: int, byte: int, size: int, limit: int) -> Problem:
    """A document (or line of JSON) of `size` bytes that was left out."""
    return Problem("too_long", file.name, line, byte, "skipped", f"{size} bytes, limit {limit}")


def nothing_left(kinds: Counter[str], first: Problem | None) -> UserError:
    """No document can be used: what was wrong, and the first place where it was."""
    if first is None:
        return UserError("the input holds no document", where="--input", code=Exit.BAD_DATA)
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.most_common())
    return UserError(
        f"no document of the input can be used: {counts}",
        where=f"{first.file}:{first.line} (byte {first.byte})",
        help=f"the first: {ascii(first.detail)[1:-1]}" if first.detail else None,
        code=Exit.BAD_DATA,
    )
