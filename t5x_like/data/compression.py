"""Compressed streams read in bounded memory, with truncation, damage and bombs told apart from the end.

The file objects of `gzip`, `zstandard` and others hide some of this: zstandard's reader ends quietly inside a
frame. The decompressor objects underneath say whether a stream ended where it should.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal

import zstandard

Compression = Literal["gzip", "zstd", "xz"]

SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}

# Bytes handed to a decompressor at once, so that the worst case gives some 16 MiB: zstd can make 128 KiB out of 4
# bytes, xz 7 KiB and gzip 1 KiB out of one.
STEP: dict[Compression, int] = {"gzip": 4096, "zstd": 512, "xz": 2048}
_READ = 1 << 20
BOMB_RATIO = 250
BOMB_FLOOR = 64 << 20


ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)
"""What decompressors raise."""


class Damaged(Exception):
    """The stream is not whole.

    Attributes:
      kind: `truncated`, `damaged` or `decompression_bomb`.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


def chunks(file: IO[bytes], compression: Compression | None, size: int = _READ) -> Iterator[bytes]:
    """The decompressed content of `file` in pieces of about `size` bytes.

    Several gzip members, zstd frames or xz streams in one file are read one after another; zero bytes behind the
    last one are padding.

    Raises:
      Damaged: after everything before the damage has been yielded.
      OSError: reading failed.
    """
    if compression is None:
        while chunk := file.read(size):
            yield chunk
        return
    ready = bytearray()
    damage: Damaged | None = None
    pieces = _pieces(file, compression)
    while True:
        try:
            ready += next(pieces)
        except StopIteration:
            break
        except Damaged as error:
            damage = error
            break
        if len(ready) >= size:
            yield bytes(ready)
            ready.clear()
    if ready:
        yield bytes(ready)
    if damage is not None:
        raise damage


def _pieces(file: IO[bytes], compression: Compression) -> Iterator[bytes]:
    decoder: Any = None
    consumed = produced = 0
    step = STEP[compression]
    while block := file.read(_READ):
        for i in range(0, len(block), step):
            data = block[i : i + step]
            consumed += len(data)
            while data:
                if decoder is None:
                    if consumed > len(data) and not data.strip(b"\0"):
                        break  # padding behind the last stream
                    decoder = new_decoder(compression)
                before = decoder.copy() if compression == "gzip" else None  # 5 % of the time that zlib takes
                try:
                    piece = decoder.decompress(data)
                except ERRORS as error:
                    if before is not None:
                        yield from _until_damage(before, data)
                    raise Damaged("damaged", f"{compression} stream is damaged: {error}") from None
                data = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder = None
                produced += len(piece)
                yield piece
                if produced > BOMB_FLOOR and produced > BOMB_RATIO * consumed:
                    detail = f"{produced} bytes out of {consumed}: more than {BOMB_RATIO} to 1"
                    raise Damaged("decompression_bomb", detail)
    if decoder is not None:
        raise Damaged("truncated", f"{compression} stream ends in the middle, after {consumed} bytes")


def _until_damage(decoder: Any, data: bytes) -> Iterator[bytes]:
    """What a decoder of gzip makes of `data` byte by byte: of a step with damage in it zlib gives nothing."""
    for i in range(len(data)):
        try:
            yield decoder.decompress(data[i : i + 1])
        except zlib.error:
            return


def new_decoder(compression: Compression) -> Any:
    """A decompressor of one gzip member, zstd frame or xz stream: `decompress`, `eof`, `unused_data`."""
    if compression == "gzip":
        return zlib.decompressobj(wbits=31)
    if compression == "xz":
        return lzma.LZMADecompressor(memlimit=1 << 30)
    return zstandard.ZstdDecompressor().decompressobj()
