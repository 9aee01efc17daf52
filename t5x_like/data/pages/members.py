"""Compressed members of a WARC file: where they begin, and what they hold, whatever was done to them.

Crawls keep each record in a gzip member or zstd frame of its own, so a damaged file can be read again from the next
member that begins with `WARC/`, and a stretch of a file can be read without what is before it.
"""

from __future__ import annotations

import re
from typing import IO, Any, Literal

from t5x_like.data.compression import BOMB_FLOOR, BOMB_RATIO, ERRORS, STEP, Compression, Damaged, new_decoder

VERSION = re.compile(rb"WARC/\d\.\d+\r?\n")
"""How a record begins."""
SHORT = 32
"""Bytes that are enough to see whether a record begins."""
_WINDOW = 1 << 20
_MAGIC: dict[str, bytes] = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0"}
_FIRST = {"gzip": 4 << 10, "zstd": 160 << 10, "xz": 1 << 20}
"""Stored bytes that are enough to see how a member begins: zstd gives nothing before a block of 128 KiB is whole."""
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18....", re.DOTALL)  # RFC 8878, 3.1.2


class Stored:
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


class Members:
    """Where members that begin with a WARC record begin."""

    def __init__(self, stored: Stored, compression: Compression):
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
                if len(text) >= SHORT or decoder.eof:
                    break
        except ERRORS:
            return "nothing"
        if (
            len(text) < len(b"WARC/1.0\n") and not decoder.eof
        ):  # the file ends here, in the middle of something
            return "record" if b"WARC/1.0\r\n".startswith(text) else "other"
        return "record" if VERSION.match(text) else "other"

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


class Plain:
    """An uncompressed file as one stream of bytes."""

    def __init__(self, stored: Stored):
        self._stored, self._position = stored, 0
        self.damage: Damaged | None = None

    def position(self, offset: int) -> int:
        """Byte of the file where a record is found again that begins `offset` bytes from the stream's beginning."""
        return offset

    def rewind(self) -> None:
        """Begins anew."""
        self._position = 0

    def read(self) -> bytes:
        """More bytes; none at the end."""
        data = self._stored.at(self._position, 1 << 18)
        self._position += len(data)
        return data


class Segment:
    """What a member holds, and what members behind it hold that do not begin with a record.

    Attributes:
      next: where the member behind it begins, once all is read; None at the end of the file.
      stray: where something follows that is no member, or a damaged one.
      damage: what ended it before its time.
    """

    def __init__(self, stored: Stored, compression: Compression, members: Members, begin: int):
        self._stored, self._members, self._begin = stored, members, begin
        self._compression: Compression = compression
        self.rewind()

    def position(self, offset: int) -> int:
        """See `Plain.position`."""
        del offset  # a record is found again by its member only
        return self._begin

    def rewind(self) -> None:
        """Begins anew."""
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
