"""HTTP responses as crawlers store them: headers, transfer and content encodings, content type.

Source: RFC 9112 (chunked), RFC 9110 (fields). Many crawlers store the payload decoded and leave the headers as they
were, so an encoding that the payload does not have is no fault.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from typing import Any

import zstandard

_BLANK = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})\b")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title|meta)\b", re.I | re.S)
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"})


class Undecodable(Exception):
    """The payload cannot be had.

    Attributes:
      kind: `broken_http`, `content_encoding` or `too_long`.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Response:
    """A response without its encodings.

    Attributes:
      status: such as 200.
      media_type: of Content-Type, in lower case, without parameters; empty where there is none.
      charset: of Content-Type; empty where there is none.
      body: the payload as stored, encodings included.
      encodings: what is still to be undone, outermost first.
    """

    status: int
    media_type: str
    charset: str
    body: bytes
    encodings: tuple[str, ...]


def parse(content: bytes) -> Response:
    """Reads status line and headers.

    Raises:
      Undecodable: this is no HTTP response.
    """
    status = _STATUS.match(content)
    end = _BLANK.search(content)
    if status is None or end is None:
        raise Undecodable("broken_http", repr(content[:60])[2:-1])
    headers: dict[str, str] = {}
    for line in content[: end.start()].decode("latin-1").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    media_type, charset = content_type(headers.get("content-type", ""))
    encodings = [
        coding.strip().lower()
        for name in ("transfer-encoding", "content-encoding")
        for coding in reversed(headers.get(name, "").split(","))
    ]
    return Response(
        status=int(status[1]),
        media_type=media_type,
        charset=charset,
        body=content[end.end() :],
        encodings=tuple(coding for coding in encodings if coding not in ("", "identity")),
    )


def content_type(value: str) -> tuple[str, str]:
    """Media type and charset of a Content-Type field."""
    media_type, _, parameters = value.partition(";")
    found = re.search(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9._:\-]{1,40})", parameters, re.I)
    return media_type.strip().lower(), found[1] if found else ""


def is_html(media_type: str, body: bytes) -> bool:
    """By its declared type, or by its first bytes where none is declared."""
    if media_type:
        return media_type in HTML_TYPES
    return _HTML.match(body[:1024]) is not None


def payload(response: Response, limit: int) -> tuple[bytes, tuple[str, ...]]:
    """The body with its encodings undone, and where one of them was broken: what could be had is there.

    Raises:
      Undecodable: an unknown or damaged encoding, or more than `limit` bytes.
    """
    body, broken = response.body, []
    for coding in response.encodings:
        if coding == "chunked":
            body, detail = _dechunked(body)
        else:
            body, detail = _decompressed(body, coding.removeprefix("x-"), limit)
        if detail:
            broken.append(detail)
    return body, tuple(broken)


def _dechunked(body: bytes) -> tuple[bytes, str]:
    """Chunks put together, and what was broken; the body itself where it is not made of chunks."""
    pieces, position = [], 0
    while match := _CHUNK.match(body, position):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(pieces), ""
        begin = match.end()
        pieces.append(body[begin : begin + size])
        position = begin + size
        position += 2 if body[position : position + 2] == b"\r\n" else body[position : position + 1] == b"\n"
    if not pieces:
        return body, ""
    if position > len(body):
        return b"".join(pieces), "chunked body ends inside a chunk"
    rest = body[position:]
    return b"".join((*pieces, rest)), "chunked body goes on without a chunk" if rest.strip() else ""


def _decompressed(body: bytes, coding: str, limit: int) -> tuple[bytes, str]:
    decoder: Any
    if coding == "gzip":
        if not body.startswith(b"\x1f\x8b"):
            return body, ""
        decoder = zlib.decompressobj(wbits=31)
    elif coding == "deflate":  # zlib by the RFC, raw by habit
        zlib_header = len(body) > 1 and body[0] & 15 == 8 and not int.from_bytes(body[:2], "big") % 31
        if not zlib_header and is_html("", body):
            return body, ""
        decoder = zlib.decompressobj(wbits=15 if zlib_header else -15)
    elif coding == "zstd":
        if not body.startswith(b"\x28\xb5\x2f\xfd"):
            return body, ""
        decoder = zstandard.ZstdDecompressor().decompressobj()
    elif coding == "br":
        if is_html("", body):
            return body, ""
        try:
            import brotli
        except ImportError:
            raise Undecodable("content_encoding", "br needs the package brotli") from None
        decoder = brotli.Decompressor()
    else:
        if is_html("", body):
            return body, ""
        raise Undecodable("content_encoding", f"unknown: {coding[:20]}")
    return _bounded(decoder, body, coding, limit)


def _bounded(decoder: Any, body: bytes, coding: str, limit: int) -> tuple[bytes, str]:
    """What can be had of `body`, and what is missing: in small steps, so that a bomb is noticed before it is large."""
    pieces, size, step = [], 0, 512 if coding in ("br", "zstd") else 4096
    for begin in range(0, len(body), step):
        try:
            piece = (decoder.process if coding == "br" else decoder.decompress)(body[begin : begin + step])
        except Exception as error:  # zlib, zstd and brotli have an error each
            raise Undecodable("content_encoding", f"{coding} is damaged: {error}") from None
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise Undecodable("too_long", f"more than {limit} bytes, {coding} undone")
        if coding in ("gzip", "deflate", "zstd") and decoder.eof:
            break
    if decoder.is_finished() if coding == "br" else decoder.eof:
        return b"".join(pieces), ""
    detail = f"{coding} ends in the middle, after {len(body)} bytes"
    if not size:
        raise Undecodable("content_encoding", detail)
    return b"".join(pieces), detail
