"""Small crawls, made record by record, whole and damaged."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import zstandard

from t5x_like.data.documents import Document, Problem, Settings
from t5x_like.data.pages import RawPage, find, read, units


def record(kind: str, content: bytes, *, length: object = None, **fields: str) -> bytes:
    """A WARC record; `length` in place of the true Content-Length."""
    headers = {
        "WARC-Type": kind,
        "WARC-Date": "2019-04-18T12:00:00Z",
        **{name.replace("_", "-"): value for name, value in fields.items()},
        "Content-Length": str(len(content) if length is None else length),
    }
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + content + b"\r\n\r\n"


def response(
    url: str, body: bytes, *, status: str = "200 OK", http: str = "", length: object = None, **fields: str
) -> bytes:
    """A record of a page. `http` are the lines of its header."""
    http = http or "Content-Type: text/html; charset=utf-8\r\n"
    content = f"HTTP/1.1 {status}\r\n{http}\r\n".encode() + body
    fields = {"Content_Type": "application/http; msgtype=response", "WARC_Target_URI": url, **fields}
    return record("response", content, length=length, **fields)


def page(number: int) -> bytes:
    """The record of a plain page."""
    return response(f"http://example.com/{number}", f"<html><p>Page number {number} is here.</p>".encode())


def packed(records: Iterable[bytes], suffix: str) -> bytes:
    """Each record in a member of its own."""
    if suffix == ".gz":
        return b"".join(gzip.compress(each, mtime=0) for each in records)
    if suffix == ".zst":
        return b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(each) for each in records)
    return b"".join(records)


def read_all(
    path: Path | str, unit_bytes: int | None = None, **settings: object
) -> tuple[list[RawPage], list[Document], list[Problem]]:
    """Pages, documents and problems of what is there."""
    chosen = Settings(**settings)  # pyright: ignore[reportArgumentType]
    files, problems = find([str(path)])
    items = [item for unit in units(files, chosen, unit_bytes) for item in read(unit, chosen)]
    return (
        [item for item in items if isinstance(item, RawPage)],
        [item for item in items if isinstance(item, Document)],
        problems + [item for item in items if isinstance(item, Problem)],
    )
