"""WARC and WET files, record by record, whatever was done to them.

A record is a header and as many bytes as its Content-Length says (ISO 28500:2017). Not believed: that lengths are
right, that members (data/pages/members.py) are whole, that records are small.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import IO

from t5x_like.data.compression import Compression
from t5x_like.data.pages.members import SHORT, VERSION, Members, Plain, Segment, Stored

MAX_HEADER_BYTES = 64 << 10
_NEXT = re.compile(rb"\nWARC/\d\.\d+\r?\n(?=[A-Za-z-]+:)")
_BLANK = re.compile(rb"\r?\n\r?\n")


@dataclasses.dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
      headers: names in lower case; of a repeated header the first.
      content: what it holds; empty where it is longer than the limit.
      position: byte where its member begins in the file as stored (without compression: where it begins).
      size: bytes of the content.
      mended: problems that did not stop it from being read, such as `content_length`.
    """

    headers: dict[str, str]
    content: bytes
    position: int
    size: int
    mended: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """`response`, `conversion`, `request` ..."""
        return self.headers.get("warc-type", "").lower()


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that could not be read: kind, byte of the file as stored, what was seen."""

    kind: str
    position: int
    detail: str = ""


def records(
    file: IO[bytes], compression: Compression | None, span: tuple[int, int], limit: int
) -> Iterator[Record | Fault]:
    """The records whose member begins in `span` (without compression: all, where it begins at 0), and faults.

    Args:
      file: the stored bytes, seekable.
      span: [first, last) bytes as stored.
      limit: longest content that is kept; of longer ones there is only the header.

    Raises:
      OSError: reading failed.
    """
    stored = Stored(file)
    if compression is None:
        if span[0] == 0:
            yield from _Records(Plain(stored), limit).read()
        return
    members = Members(stored, compression)
    position = members.find(span[0], span[1])
    if span[0] == 0 and position != members.skip_frames(0):
        yield Fault("damaged", 0, f"does not begin with a WARC record compressed by {compression}")
    while position is not None and position < span[1]:
        segment = Segment(stored, compression, members, position)
        yield from _Records(segment, limit).read()
        if segment.stray is not None:
            yield Fault("damaged", segment.stray, f"no {compression} member can be read here")
            position = members.find(segment.stray, span[1])
        elif segment.damage is not None:
            position = members.find(position + 1, span[1])
        else:
            position = segment.next


class _Records:
    """Cuts one stream into records."""

    def __init__(self, stream: Plain | Segment, limit: int):
        self._stream, self._limit = stream, limit
        self._buffer = bytearray()
        self._offset = 0  # of the buffer in the stream
        self._ended = False
        self._believing = True  # lengths beyond the limit

    def read(self) -> Iterator[Record | Fault]:
        told = False
        while self._skip_blank():
            position = self._stream.position(self._offset)
            if not VERSION.match(self._buffer):
                if self._damaged():
                    break
                yield Fault("no_record", position, repr(bytes(self._buffer[:60]))[2:-1])
                self._seek_record(0)
                continue
            found = self._record(position)
            if found is None:
                break
            yield found
            told = isinstance(found, Record) and any(kind == "truncated" for kind, _ in found.mended)
        damage = self._stream.damage
        if damage is not None and not told:
            yield Fault(damage.kind, self._stream.position(self._offset), str(damage))

    def _damaged(self) -> bool:
        return self._ended and self._stream.damage is not None

    def _fill(self, size: int) -> bool:
        """Reads until the buffer holds `size` bytes, or all that there is; whether it holds so many."""
        while len(self._buffer) < size and not self._ended:
            piece = self._stream.read()
            self._buffer += piece
            self._ended = not piece
        return len(self._buffer) >= size

    def _drop(self, size: int) -> None:
        size = max(min(size, len(self._buffer)), 0)
        self._offset += size
        del self._buffer[:size]

    def _skip_blank(self) -> bool:
        """Goes behind ends of lines; whether anything follows."""
        while self._fill(SHORT) or self._buffer:
            blank = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
            if not blank:
                return True
            self._drop(blank)
        return False

    def _seek_record(self, begin: int) -> None:
        """Drops all up to the next line from `begin` on that begins a record, or up to the end."""
        while (found := _NEXT.search(self._buffer, begin)) is None and not self._ended:
            self._drop(len(self._buffer) - 2 * SHORT)
            begin = 0
            self._fill(len(self._buffer) + 1)
        self._drop(found.start() + 1 if found else len(self._buffer))

    def _record(self, position: int) -> Record | Fault | None:
        """The record that begins the buffer; None where the stream is damaged inside it."""
        self._fill(MAX_HEADER_BYTES)
        end = _BLANK.search(self._buffer, 0, MAX_HEADER_BYTES)
        if end is None:
            if self._damaged():
                return None
            fault = Fault("broken_header", position, repr(bytes(self._buffer[:60]))[2:-1])
            self._seek_record(1)
            return fault
        headers = _headers(bytes(self._buffer[: end.start()]))
        self._drop(end.end())
        said = headers.get("content-length", "")
        length = int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None
        if length is not None and length > self._limit:
            return self._skipped(headers, position, length)
        if length is not None and self._fits(length):
            return self._taken(headers, position, length)
        size = self._next_record()
        if size is None:
            return self._skipped(headers, position, None)
        if self._ended and size == len(self._buffer):
            if self._stream.damage is not None:
                return None
            if isinstance(self._stream, Plain) and length is not None and size < length:
                self._drop(size)
                return Fault("truncated", position, f"{size} bytes of a record of {length}")
        size = len(bytes(self._buffer[max(size - 4, 0) : size]).rstrip(b"\r\n")) + max(size - 4, 0)
        detail = f"the header says {ascii(said[:20])[1:-1] or 'nothing'}, the record has {size} bytes"
        return self._taken(headers, position, size, (("content_length", detail),))

    def _fits(self, length: int) -> bool:
        """Whether the content is all there and a record, or the end, follows."""
        self._fill(length + SHORT)
        if len(self._buffer) < length:
            return False
        rest = self._buffer[length : length + SHORT].lstrip(b"\r\n")
        return rest.startswith(b"WARC/") or len(rest) < 5

    def _next_record(self) -> int | None:
        """Where the next record begins in the buffer, its end where none does; None: not within the limit."""
        begin = 0
        while (found := _NEXT.search(self._buffer, begin)) is None and not self._ended:
            if len(self._buffer) > self._limit + SHORT:
                return None
            begin = max(len(self._buffer) - 2 * SHORT, 0)
            self._fill(len(self._buffer) + 1)
        return found.start() + 1 if found else len(self._buffer)

    def _taken(
        self, headers: dict[str, str], position: int, size: int, mended: tuple[tuple[str, str], ...] = ()
    ) -> Record | None:
        content = bytes(self._buffer[:size])
        self._drop(size)
        self._fill(SHORT)
        damage = self._stream.damage
        if self._damaged() and not self._buffer.strip(b"\r\n"):
            assert damage is not None
            if damage.kind != "truncated":  # the checksum at the end of a member speaks for all of it
                return None
            mended += ((damage.kind, str(damage)),)
        return Record(headers, content, position, size, mended)

    def _skipped(self, headers: dict[str, str], position: int, length: int | None) -> Record | None:
        """Goes behind a record that is too long to be kept.

        A length that is wrong may hide the records behind it: then the first thing inside that looks like a record
        is taken for one, from there on without looking at such lengths.
        """
        begin = self._offset
        if length is None or not self._believing:
            self._seek_record(0)
            return Record(headers, b"", position, self._offset - begin)
        inside, missing = self._pass(length)
        if self._fits(0) and not missing and not self._damaged():
            return Record(headers, b"", position, length)
        if inside is not None:
            self._believing = False
            self._go_to(inside)
        elif self._damaged():
            return None
        return Record(headers, b"", position, self._offset - begin)

    def _pass(self, count: int) -> tuple[int | None, int]:
        """Drops `count` bytes; where in the stream they hold what looks like a record, and how many are missing."""
        inside: int | None = None
        while count:
            self._fill(min(count, 1 << 18))
            if inside is None and (found := _NEXT.search(self._buffer, 0, count)):
                inside = self._offset + found.start() + 1
            size = len(self._buffer)
            if size < count and not self._ended:
                size -= 2 * SHORT  # so that a line across two pieces is found
            if not size:
                break
            self._drop(min(size, count))
            count -= min(size, count)
        return inside, count

    def _go_to(self, offset: int) -> None:
        self._stream.rewind()
        self._buffer.clear()
        self._offset, self._ended = 0, False
        while self._offset < offset and self._fill(1):
            self._drop(offset - self._offset)


def _headers(lines: bytes) -> dict[str, str]:
    """The named fields of a record; continuation lines are joined, and of a repeated field the first counts."""
    found: dict[str, str] = {}
    text = re.sub(r"\r?\n[ \t]+", " ", lines.decode("utf-8", "replace"))
    for line in text.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found
