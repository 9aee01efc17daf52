"""Files of pages and of text, cut into units of work, and read: `find` -> `units` -> `read`.

Cutting looks at sizes only where a file is a WARC or HTML file, and at borders of documents elsewhere; everything
that costs time happens in `read`, in any process, and depends on nothing but the unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from t5x_like.data import reading, sources
from t5x_like.data.compression import Damaged, chunks
from t5x_like.data.documents import Block, Document, Problem, Settings, decoded, known, too_long
from t5x_like.data.pages import charsets, http, warc
from t5x_like.data.pages.base import RawPage, Unit
from t5x_like.data.sources import PAGES, SourceFile
from t5x_like.errors import Exit, UserError

# Stored bytes of a WARC file stand for more of its markup; this only sets the size of units.
_EXPANSION = {None: 1, "gzip": 4, "zstd": 4, "xz": 5}
_MOST_PARTS = 4096
_OVERHEAD = 4096
"""Bytes that opening a small file is worth, for the size of units."""


def find(
    names: Sequence[str],
    *,
    text_field: str = "text",
    tfds_data_dir: str | None = None,
    bad_input: str = "skip",
) -> tuple[list[SourceFile], list[Problem]]:
    """The files that `names` stand for (as `sources.find`), and those that are not there.

    A name without a file stops nothing where others have one, unless `bad_input` is `fail`.

    Raises:
      UserError: no name stands for anything, an unknown format, a missing package.
    """
    if not names:
        raise UserError("--input is missing", help="--input='pages/*.warc.gz', or a folder of pages")
    absent = None if bad_input == "fail" else []
    files = sources.find(names, text_field=text_field, tfds_data_dir=tfds_data_dir, pages=True, absent=absent)
    if not files and absent:
        raise absent[0]
    return files, [
        Problem(error.kind, sources.printable(error.where or ""), 0, 0, "skipped", error.what)
        for error in absent or ()
    ]


def default_unit_bytes(files: Sequence[SourceFile]) -> int:
    """A sixty-fourth of the input, between 1 and 32 MiB of markup or text: from the input alone."""
    total = sum(file.size * _EXPANSION[file.compression] for file in files)
    return min(max(total // 64, 1 << 20), 32 << 20)


def units(files: Sequence[SourceFile], settings: Settings, unit_bytes: int | None = None) -> Iterator[Unit]:
    """The input in units of about `unit_bytes` bytes of markup or text.

    Raises:
      UserError: a Parquet file lacks the column, a package is missing.
    """
    target = unit_bytes or default_unit_bytes(files)
    number, pieces, size = 0, [], 0
    for file in files:
        for block in _blocks(file, settings, target):
            pieces.append((file, block))
            size += block.size + _OVERHEAD
            if size >= target or len(pieces) >= _MOST_PARTS:
                yield Unit(number, tuple(pieces))
                number, pieces, size = number + 1, [], 0
    if pieces:
        yield Unit(number, tuple(pieces))


def _blocks(file: SourceFile, settings: Settings, target: int) -> Iterator[Block]:
    if not file.size:
        yield Block(0, problems=(Problem("empty_file", file.name, 0, 0, "skipped"),))
    elif file.format not in PAGES:
        try:
            yield from reading.blocks([file], settings, target)
        except UserError as error:
            if error.code != Exit.BAD_DATA or settings.bad_input == "fail":
                raise
            yield Block(0, consumed=file.size, problems=(_unreadable(file, error.what),))
    elif file.format == "html" or file.compression is None:
        yield Block(0, span=(0, file.size), size=file.size, consumed=file.size)
    else:
        # A slice reads the records that begin in it, so that cutting need not know where they begin.
        step = max(target // _EXPANSION[file.compression], 1 << 16)
        for begin in range(0, file.size, step):
            end = min(begin + step, file.size)
            size = (end - begin) * _EXPANSION[file.compression]
            yield Block(0, span=(begin, end), size=size, consumed=end - begin)


def read(unit: Unit, settings: Settings) -> Iterator[RawPage | Document | Problem]:
    """What a unit holds, in order: pages of WARC and HTML files, documents of all others, and problems.

    Problems are told under every policy; stopping at them (`bad_input=fail`) is for the caller.
    """
    for file, block in unit.pieces:
        if block.span is None:
            try:
                yield from reading.parse(block, file, settings)
            except UserError as error:
                if error.code != Exit.BAD_DATA:
                    raise
                yield _unreadable(file, error.what)
            continue
        yield from block.problems
        try:
            if file.format == "html":
                yield from _html_file(file, settings)
            else:
                yield from _warc_file(file, block.span, settings)
        except UserError as error:
            yield _unreadable(file, error.what)
        except OSError as error:
            yield _unreadable(file, str(error))


def _unreadable(file: SourceFile, detail: str) -> Problem:
    return Problem("unreadable_file", file.name, 0, 0, "skipped", detail)


def _problem(
    kind: str, file: SourceFile, byte: int, detail: str, action: Literal["skipped", "mended"] = "skipped"
) -> Problem:
    return Problem(kind, file.name, 0, byte, action, detail)


def _html_file(file: SourceFile, settings: Settings) -> Iterator[RawPage | Problem]:
    content = bytearray()
    with file.open() as stream:
        try:
            for chunk in chunks(stream, file.compression):
                content += chunk
                if len(content) > settings.max_document_bytes:
                    size = max(file.size, len(content))
                    yield too_long(file, 0, 0, size, settings.max_document_bytes)
                    return
        except Damaged as error:
            yield _problem(error.kind, file, 0, str(error))
            return
    yield from _page(bytes(content), "", file, 0)


def _warc_file(
    file: SourceFile, span: tuple[int, int], settings: Settings
) -> Iterator[RawPage | Document | Problem]:
    with file.open() as stream:
        for record in warc.records(stream, file.compression, span, settings.max_document_bytes):
            if isinstance(record, warc.Fault):
                yield _problem(record.kind, file, record.position, record.detail)
                continue
            for kind, detail in record.mended:
                yield _problem(kind, file, record.position, detail, "mended")
            if record.kind == "conversion":
                yield from _conversion(record, file, settings)
            elif record.kind in ("response", "resource"):
                yield from _response(record, file, settings)
            else:
                kind = record.kind if record.kind in _BESIDE else "other"
                yield _problem(kind + "_record", file, record.position, "")


_BESIDE = ("request", "revisit", "metadata", "warcinfo")


def _known(record: warc.Record) -> tuple[str, str]:
    """Address and date of a record, as they stand there; wget and others put the address in angle brackets."""
    url = record.headers.get("warc-target-uri", "").removeprefix("<").removesuffix(">")
    return url, record.headers.get("warc-date", "")


def _conversion(record: warc.Record, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    if record.size > len(record.content):
        yield too_long(file, 0, record.position, record.size, settings.max_document_bytes)
        return
    url, timestamp = _known(record)
    position = record.position
    yield from decoded(record.content, file, 0, position, settings, url=url, timestamp=timestamp)


def _response(record: warc.Record, file: SourceFile, settings: Settings) -> Iterator[RawPage | Problem]:
    position, limit = record.position, settings.max_document_bytes
    if record.size > len(record.content):
        yield too_long(file, 0, position, record.size, limit)
        return
    media_type, charset = http.content_type(record.headers.get("content-type", ""))
    body, broken = record.content, ()
    try:
        if media_type in ("application/http", "application/http+response") or (
            not media_type and body.startswith(b"HTTP/")
        ):
            response = http.parse(body)
            media_type, charset = response.media_type, response.charset
            media_type = media_type or record.headers.get("warc-identified-payload-type", "").lower()
            if response.status != 200:
                yield _problem("http_status", file, position, str(response.status))
                return
            if media_type and not http.is_html(media_type, b""):
                yield _problem("not_html", file, position, media_type[:80])
                return
            body, broken = http.payload(response, limit)
        if not http.is_html(media_type, body):
            yield _problem("not_html", file, position, media_type[:80])
            return
    except http.Undecodable as error:
        yield _problem(error.kind, file, position, str(error))
        return
    for detail in broken:
        yield _problem("content_encoding", file, position, detail, "mended")
    if "warc-truncated" in record.headers:
        yield _problem("cut_by_crawler", file, position, record.headers["warc-truncated"][:20], "mended")
    yield from _page(body, charset, file, position, *_known(record))


def _page(
    body: bytes, charset: str, file: SourceFile, position: int, url: str = "", timestamp: str = ""
) -> Iterator[RawPage | Problem]:
    found = charsets.decode(body, charset)
    if found is None:
        yield _problem("undecodable_charset", file, position, charset or "none declared")
        return
    html, mended = found
    for kind, detail in mended:
        yield _problem(kind, file, position, detail, "mended")
    if "\0" in html:  # browsers drop them as well
        yield _problem("nul", file, position, f"{html.count(chr(0))} NUL", "mended")
        html = html.replace("\0", "")
    if not html or html.isspace():
        yield _problem("empty_document", file, position, "")
        return
    address, time, problems = known(url, timestamp, file, 0, position)
    yield from problems
    yield RawPage(html, address, time, file.name, position)
