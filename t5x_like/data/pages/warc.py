"""WARC and WET files, record by record, whatever was done to them.

A record is a header and as many bytes as its Content-Length says (ISO 28500:2017). Crawls keep each record in a gzip
member or zstd frame of its own, so a damaged file can be read again from the next member that begins with `WARC/`,
and a stretch of a file can be read without what is before it. Not believed: that lengths are right, that members are
whole, that records are small.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import IO, Any, Literal

from t5x_like.data.compression import BOMB_FLOOR, BOMB_RATIO, ERRORS, STEP, Compression, Damaged, new_decoder

MAX_HEADER_BYTES = 64 << 10
_WINDOW = 1 << 20
_MAGIC: dict[str, bytes] = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0"}
_FIRST = {"gzip": 4 << 10, "zstd": 160 << 10, "xz": 1 << 20}
"""Stored bytes that are enough to see how a member begins: zstd gives nothing before a block of 128 KiB is whole."""
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18....", re.DOTALL)  # RFC 8878, 3.1.2
_VERSION = re.compile(rb"WARC/\d\.\d+\r?\n")
_NEXT = re.compile(rb"\nWARC/\d\.\d+\r?\n(?=[A-Za-z-]+:)")
_BLANK = re.compile(rb"\r?\n\r?\n")
_TAIL = 32


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
    stored = _Stored(file)
    if compression is None:
        if span[0] == 0:
            yield from _Records(_Plain(stored), limit).read()
        return
    members = _Members(stored, compression)
    position = members.find(span[0], span[1])
    if span[0] == 0 and position != members.skip_frames(0):
        yield Fault("damaged", 0, f"does not begin with a WARC record compressed by {compression}")
    while position is not None and position < span[1]:
        segment = _Segment(stored, compression, members, position)
        yield from _Records(segment, limit).read()
        if segment.stray is not None:
            yield Fault("damaged", segment.stray, f"no {compression} member can be read here")
            position = members.find(segment.stray, span[1])
        elif segment.damage is not None:
            position = members.find(position + 1, span[1])
        else:
            position = segment.next


class _Stored:
    """The bytes of a file by their position, through a window."""

    def __init__(self, file: IO[bytes]):
        self._file, self._data, self._begin = file, b"", 0
        self._end = file.seek(0, 2)

    def at(self, position: int, size: int) -> bytes:
        """`size` bytes (at most a mebibyte) from `position`; fewer only at the end of the file."""
        offset, size = position - self._begin, min(size, self._end - position)
        if size <= 0:
            return b""
        if not 0 <= offset <= len(self._data) - size:
            self._file.seek(position)
            pieces, missing = [], _WINDOW
            while missing and (piece := self._file.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
            self._data, self._begin, offset = b"".join(pieces), position, 0
        return self._data[offset : offset + size]


class _Members:
    """Where members that begin with a WARC record begin."""

    def __init__(self, stored: _Stored, compression: Compression):
        self._stored = stored
        self._compression: Compression = compression
        self.magic = _MAGIC[compression]

    def begins(self, position: int) -> Literal["record", "other", "nothing"]:
        """Whether a member begins here, and with a record; `nothing` also where its first bytes are damaged."""
        data = self._stored.at(position, _FIRST[self._compression])
        if not data.startswith(self.magic):
            return "nothing"
        decoder, text = new_decoder(self._compression), b""
        try:
            for begin in range(0, len(data), 256):
                text += decoder.decompress(data[begin : begin + 256])
                if len(text) >= _TAIL or decoder.eof:
                    break
        except ERRORS:
            return "nothing"
        if (
            len(text) < len(b"WARC/1.0\n") and not decoder.eof
        ):  # the file ends here, in the middle of something
            return "record" if b"WARC/1.0\r\n".startswith(text) else "other"
        return "record" if _VERSION.match(text) else "other"

    def find(self, position: int, end: int) -> int | None:
        """The first such member in [position, end)."""
        while position < end and (data := self._stored.at(position, _WINDOW)):
            begin = -1
            while 0 <= (begin := data.find(self.magic, begin + 1)) < end - position:
                if self.begins(position + begin) == "record":
                    return position + begin
            position += max(len(data) - len(self.magic) + 1, 1)
        return None

    def skip_frames(self, position: int) -> int:
        """Behind zstd's skippable frames."""
        while self._compression == "zstd" and _SKIPPABLE.match(head := self._stored.at(position, 8)):
            position += 8 + int.from_bytes(head[4:], "little")
        return position


class _Plain:
    """An uncompressed file as one stream of bytes."""

    def __init__(self, stored: _Stored):
        self._stored, self._position = stored, 0
        self.damage: Damaged | None = None

    def position(self, offset: int) -> int:
        return offset

    def rewind(self) -> None:
        self._position = 0

    def read(self) -> bytes:
        """More bytes; none at the end."""
        data = self._stored.at(self._position, 1 << 18)
        self._position += len(data)
        return data


class _Segment:
    """What a member holds, and what members behind it hold that do not begin with a record.

    Attributes:
      next: where the member behind it begins, once all is read; None at the end of the file.
      stray: where something follows that is no member, or a damaged one.
      damage: what ended it before its time.
    """

    def __init__(self, stored: _Stored, compression: Compression, members: _Members, begin: int):
        self._stored, self._members, self._begin = stored, members, begin
        self._compression: Compression = compression
        self.rewind()

    def position(self, offset: int) -> int:
        del offset  # a record is found again by its member only
        return self._begin

    def rewind(self) -> None:
        self._position, self._produced = self._begin, 0
        self._decoder: Any = new_decoder(self._compression)
        self.next: int | None = None
        self.stray: int | None = None
        self.damage: Damaged | None = None

    def read(self) -> bytes:
        """More bytes; none at the end, whether that came in time or not."""
        while self._decoder is not None:
            data = self._stored.at(self._position, STEP[self._compression])
            if not data:
                used = self._position - self._begin
                self._stop("truncated", f"{self._compression} member ends in the middle, after {used} bytes")
                break
            try:
                piece = self._decoder.decompress(data)
            except ERRORS as error:
                self._stop("damaged", f"{self._compression} member is damaged: {error}")
                break
            self._position += len(data) - (len(self._decoder.unused_data) if self._decoder.eof else 0)
            self._produced += len(piece)
            used = self._position - self._begin
            if self._produced > BOMB_FLOOR and self._produced > BOMB_RATIO * used:
                detail = f"{self._produced} bytes out of {used}: more than {BOMB_RATIO} to 1"
                self._stop("decompression_bomb", detail)
                break
            if self._decoder.eof:
                self._decoder = self._following()
            if piece:
                return piece
        return b""

    def _stop(self, kind: str, detail: str) -> None:
        self.damage, self._decoder = Damaged(kind, detail), None

    def _following(self) -> Any:
        """The decoder for a member that goes on with this segment; None where the segment ends."""
        self._position = self._members.skip_frames(self._position)
        kind = self._members.begins(self._position)
        if kind == "record":
            self.next = self._position
        elif kind == "nothing" and self._stored.at(self._position, 4096).strip(b"\0"):
            self.stray = self._position  # zero bytes would be padding
        return new_decoder(self._compression) if kind == "other" else None


class _Records:
    """Cuts one stream into records."""

    def __init__(self, stream: _Plain | _Segment, limit: int):
        self._stream, self._limit = stream, limit
        self._buffer = bytearray()
        self._offset = 0  # of the buffer in the stream
        self._ended = False
        self._believing = True  # lengths beyond the limit

    def read(self) -> Iterator[Record | Fault]:
        told = False
        while self._skip_blank():
            position = self._stream.position(self._offset)
            if not _VERSION.match(self._buffer):
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
        while self._fill(_TAIL) or self._buffer:
            blank = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
            if not blank:
                return True
            self._drop(blank)
        return False

    def _seek_record(self, begin: int) -> None:
        """Drops all up to the next line from `begin` on that begins a record, or up to the end."""
        while (found := _NEXT.search(self._buffer, begin)) is None and not self._ended:
            self._drop(len(self._buffer) - 2 * _TAIL)
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
            if isinstance(self._stream, _Plain) and length is not None and size < length:
                self._drop(size)
                return Fault("truncated", position, f"{size} bytes of a record of {length}")
        size = len(bytes(self._buffer[max(size - 4, 0) : size]).rstrip(b"\r\n")) + max(size - 4, 0)
        detail = f"the header says {ascii(said[:20])[1:-1] or 'nothing'}, the record has {size} bytes"
        return self._taken(headers, position, size, (("content_length", detail),))

    def _fits(self, length: int) -> bool:
        """Whether the content is all there and a record, or the end, follows."""
        self._fill(length + _TAIL)
        if len(self._buffer) < length:
            return False
        rest = self._buffer[length : length + _TAIL].lstrip(b"\r\n")
        return rest.startswith(b"WARC/") or len(rest) < 5

    def _next_record(self) -> int | None:
        """Where the next record begins in the buffer, its end where none does; None: not within the limit."""
        begin = 0
        while (found := _NEXT.search(self._buffer, begin)) is None and not self._ended:
            if len(self._buffer) > self._limit + _TAIL:
                return None
            begin = max(len(self._buffer) - 2 * _TAIL, 0)
            self._fill(len(self._buffer) + 1)
        return found.start() + 1 if found else len(self._buffer)

    def _taken(
        self, headers: dict[str, str], position: int, size: int, mended: tuple[tuple[str, str], ...] = ()
    ) -> Record | None:
        content = bytes(self._buffer[:size])
        self._drop(size)
        self._fill(_TAIL)
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
                size -= 2 * _TAIL  # so that a line across two pieces is found
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
