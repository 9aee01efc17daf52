"""From files to documents: blocks of whole documents, read in bounded memory, and one rule for bad input.

The main process cuts files into blocks (`blocks`); a worker turns a block into documents and problems (`parse`).
Cutting looks only for borders, so it keeps up with many workers; everything that costs time happens in `parse`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from t5x_like.data import example_proto, text_dataset
from t5x_like.data.compression import Damaged, chunks
from t5x_like.data.sources import SourceFile, unreadable
from t5x_like.errors import Exit, UserError, did_you_mean

Policy = Literal["skip", "fail", "replace"]
Borders = Literal["blank_line", "line", "file"]

MAX_DOCUMENT_BYTES = 16 << 20
HARMLESS = frozenset({"byte_order_mark"})
"""Kinds of problems that are mended under every policy."""

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_LINE = re.compile(rb"\n")
_TAIL = 1 << 16
_DETAIL = 80


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
    """A text and where it came from."""

    text: str
    url: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong with the input.

    Attributes:
      kind: one word for the table, such as `invalid_utf8`.
      file: name of the file.
      line: line (or row, record) counted from 1; 0 where the whole file is meant.
      byte: position in the decompressed file.
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
            where=f"{self.file}:{self.line} (byte {self.byte})",
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
      size: bytes that this block stands for, by which blocks are put together into units.
      consumed: stored bytes of the file read since the last block, for the progress bar.
      problems: found while cutting.
    """

    file: int
    data: bytes = b""
    line: int = 1
    byte: int = 0
    rows: tuple[int, int] | None = None
    size: int = 0
    consumed: int = 0
    problems: tuple[Problem, ...] = ()


def blocks(files: Sequence[SourceFile], settings: Settings, target: int) -> Iterator[Block]:
    """Cuts files into blocks of about `target` bytes; depends on the files' content and the settings only.

    Raises:
      UserError: a file has disappeared, a Parquet file lacks the column, a package is missing.
    """
    for index, file in enumerate(files):
        if not file.size:
            yield Block(index, problems=(Problem("empty_file", file.name, 0, 0, "skipped"),))
        elif file.format == "parquet":
            yield from _parquet_blocks(index, file, settings)
        elif file.format == "array_record":
            yield from _record_blocks(index, file, target)
        else:
            yield from _Cutter(index, file, settings, target).blocks()


def parse(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    """Documents and problems of a block, in order."""
    yield from block.problems
    if block.rows is not None and file.format == "parquet":
        yield from _parquet_documents(block, file, settings)
    elif block.rows is not None:
        yield from _record_documents(block.rows, file, settings)
    elif file.format == "jsonl":
        yield from _json_documents(block, file, settings)
    elif block.data:
        yield from _text_documents(block, file, settings)


class _Cutter:
    """Cuts one text or JSONL file."""

    def __init__(self, index: int, file: SourceFile, settings: Settings, target: int):
        self._index, self._file, self._settings, self._target = index, file, settings, target
        self._line, self._byte = 1, 0
        self._problems: list[Problem] = []
        self._buffer = bytearray()
        self._border = _LINE
        if file.format == "text" and settings.documents != "line":
            self._border = _BLANK_LINE if settings.documents == "blank_line" else None
        self._discarding: tuple[int, int] | None = None  # line and byte where an over-long document began
        self._consumed = 0

    def blocks(self) -> Iterator[Block]:
        damaged = False
        with self._file.open() as stream:
            source = chunks(stream, self._file.compression)
            first = True
            while True:
                try:
                    chunk = next(source)
                except StopIteration:
                    break
                except Damaged as error:
                    self._problem(error.kind, str(error), line=self._line + self._buffer.count(b"\n"),
                                  byte=self._byte + len(self._buffer))  # fmt: skip
                    damaged = True
                    break
                except OSError as error:
                    raise unreadable(self._file.name, error) from None
                if first:
                    chunk, first = self._without_mark(chunk), False
                    if chunk is None:
                        break
                position = stream.tell()
                self._buffer += chunk
                yield from self._cut(position)
        yield from self._rest(damaged)

    def _without_mark(self, chunk: bytes) -> bytes | None:
        """Takes a UTF-8 byte order mark off; None where the file is UTF-16 or UTF-32."""
        if chunk[:3] == b"\xef\xbb\xbf":
            self._problem("byte_order_mark", action="mended")
            self._byte = 3
            return chunk[3:]
        if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self._problem(
                "utf16", "the file is UTF-16 or UTF-32; iconv -f UTF-16 -t UTF-8 converts it", line=0
            )
            return None
        return chunk

    def _cut(self, position: int) -> Iterator[Block]:
        if self._discarding is not None and not self._skip_to_border():
            return
        if len(self._buffer) < self._target:
            return
        cut = _last_border(self._buffer, self._border)
        limit = self._settings.max_document_bytes
        if cut:
            yield self._take(cut, position)
        elif len(self._buffer) > limit:
            if self._settings.bad_input == "replace" and self._file.format == "text":
                while len(self._buffer) > limit:
                    self._problem("too_long", f"cut after {limit} bytes", action="mended")
                    yield self._take(_cut_text(self._buffer, limit), position)
            else:
                self._discarding = self._line, self._byte
                self._skip_to_border()

    def _skip_to_border(self) -> bool:
        """Drops bytes up to the end of the over-long document; whether the end was found."""
        assert self._discarding is not None
        match = self._border.search(self._buffer) if self._border else None
        # A border may lie across two chunks, so the last line stays in the buffer.
        keep = 0 if self._border is None else len(self._buffer) - max(self._buffer.rfind(b"\n"), 0)
        dropped = match.end() if match else len(self._buffer) - min(keep, _TAIL)
        self._advance(dropped)
        if match is None:
            return False
        self._too_long()
        return True

    def _too_long(self) -> None:
        assert self._discarding is not None
        line, byte = self._discarding
        limit = self._settings.max_document_bytes
        self._problem("too_long", f"{self._byte - byte} bytes, limit {limit}", line=line, byte=byte)
        self._discarding = None

    def _rest(self, damaged: bool) -> Iterator[Block]:
        """What is left at the end of the file; behind damage, only whole documents."""
        if self._discarding is not None:
            self._advance(len(self._buffer))
            self._too_long()
        end = _last_border(self._buffer, self._border) if damaged else len(self._buffer)
        yield self._take(end, self._file.size)

    def _take(self, end: int, position: int) -> Block:
        block = Block(
            self._index,
            bytes(self._buffer[:end]),
            self._line,
            self._byte,
            size=end,
            consumed=position - self._consumed,
            problems=tuple(self._problems),
        )
        self._consumed = position
        self._problems.clear()
        self._advance(end)
        return block

    def _advance(self, count: int) -> None:
        self._line += self._buffer.count(b"\n", 0, count)
        self._byte += count
        del self._buffer[:count]

    def _problem(
        self,
        kind: str,
        detail: str = "",
        *,
        line: int | None = None,
        byte: int | None = None,
        action: Literal["skipped", "mended"] = "skipped",
    ) -> None:
        line = self._line if line is None else line
        byte = self._byte if byte is None else byte
        self._problems.append(Problem(kind, self._file.name, line, byte, action, detail))


def _last_border(buffer: bytearray, border: re.Pattern[bytes] | None) -> int:
    """Index behind the last border, 0 where there is none."""
    if border is None:
        return 0
    if border is _LINE:
        return buffer.rfind(b"\n") + 1
    end = len(buffer)
    while end > 0:
        begin = max(0, end - _TAIL)
        last = 0
        for match in border.finditer(buffer, begin, end):
            last = match.end()
        if last:
            return last
        end = 0 if begin == 0 else begin + _TAIL // 2
    return 0


def _cut_text(data: bytes | bytearray, limit: int) -> int:
    """Where to cut over-long text: behind the last white space before `limit`, else before a UTF-8 character."""
    space = max(data.rfind(b" ", limit - min(limit // 2, _TAIL), limit), data.rfind(b"\n", limit // 2, limit))
    if space > 0:
        return space + 1
    cut = limit
    while cut > limit - 4 and cut > 1 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _text_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    data = block.data
    if settings.documents == "file":
        pieces = [(0, len(data))]
    else:
        border = _LINE if settings.documents == "line" else _BLANK_LINE
        ends = [match.end() for match in border.finditer(data)]
        pieces = zip([0, *ends], [*ends, len(data)], strict=True)
    line, counted = block.line, 0
    limit = settings.max_document_bytes
    for begin, end in pieces:
        if data[begin:end].isspace() or begin == end:
            continue
        line += data.count(b"\n", counted, begin)
        counted = begin
        if end - begin <= limit:
            yield from _decoded(data[begin:end], file, line, block.byte + begin, settings)
        elif settings.bad_input == "replace":
            yield Problem(
                "too_long", file.name, line, block.byte + begin, "mended", f"cut after {limit} bytes"
            )
            while begin < end:
                cut = begin + _cut_text(data[begin:end], limit) if end - begin > limit else end
                yield from _decoded(data[begin:cut], file, line, block.byte + begin, settings)
                begin = cut
        else:
            yield _too_long(file, line, block.byte + begin, end - begin, limit)


def _json_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    position = 0
    for number, raw in enumerate(block.data.split(b"\n"), block.line):
        byte = block.byte + position
        position += len(raw) + 1
        if not raw or raw.isspace():
            continue
        if len(raw) > settings.max_document_bytes:
            yield _too_long(file, number, byte, len(raw), settings.max_document_bytes)
            continue
        mended = False
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            problem = _invalid_utf8(raw, error, file, number, byte, settings)
            yield problem
            if problem.action == "skipped":
                continue
            line, mended = raw.decode(errors="replace"), True
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error) or "nested too deeply"
            if line.lstrip().startswith("[") and number == 1:
                reason = "a JSON array, where one object a line is expected (jq -c '.[]' FILE converts it)"
            yield Problem("broken_json", file.name, number, byte, "skipped", f"{reason}: {line[:_DETAIL]}")
            continue
        if not isinstance(value, dict):
            yield Problem("not_an_object", file.name, number, byte, "skipped", line[:_DETAIL])
            continue
        text = value.get(settings.text_field)
        if text is None:
            near = (
                did_you_mean(settings.text_field, value, prefix="--text_field=")
                if value
                else "an empty object"
            )
            yield Problem("missing_field", file.name, number, byte, "skipped", near[: 2 * _DETAIL])
        elif not isinstance(text, str):
            yield Problem("field_is_no_text", file.name, number, byte, "skipped", type(text).__name__)
        else:
            url = value.get("url")
            url = url if isinstance(url, str) and url.isprintable() else ""
            yield from _checked(text, file, number, byte, settings, url=url, mended=mended)


def _decoded(data: bytes, file: SourceFile, line: int, byte: int, settings: Settings, url: str = ""):
    """A document from UTF-8 bytes, or the problem with it."""
    mended = False
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        problem = _invalid_utf8(data, error, file, line, byte, settings)
        yield problem
        if problem.action == "skipped":
            return
        text, mended = data.decode(errors="replace"), True
    yield from _checked(text, file, line, byte, settings, url=url, mended=mended)


def _checked(
    text: str, file: SourceFile, line: int, byte: int, settings: Settings, *, url: str, mended: bool
) -> Iterator[Document | Problem]:
    """A document from a string: line ends made alike, NUL and lone surrogates looked for."""
    mend = settings.bad_input == "replace"
    if "\0" in text:
        yield Problem(
            "nul", file.name, line, byte, "mended" if mend else "skipped", f"{text.count(chr(0))} NUL"
        )
        if not mend:
            return
        text = text.replace("\0", "")
    if not mended and not text.isascii() and _LONE_SURROGATE.search(text):
        yield Problem("lone_surrogate", file.name, line, byte, "mended" if mend else "skipped")
        if not mend:
            return
        text = _LONE_SURROGATE.sub("\ufffd", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.strip()
    if text:
        yield Document(text, url)
    else:
        yield Problem("empty_document", file.name, line, byte, "skipped")


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _invalid_utf8(
    data: bytes, error: UnicodeDecodeError, file: SourceFile, line: int, byte: int, settings: Settings
) -> Problem:
    line += data.count(b"\n", 0, error.start)
    shown = data[max(0, error.start - 10) : error.start + 10]
    action = "mended" if settings.bad_input == "replace" else "skipped"
    return Problem("invalid_utf8", file.name, line, byte + error.start, action, repr(shown)[2:-1])


def _too_long(file: SourceFile, line: int, byte: int, size: int, limit: int) -> Problem:
    return Problem("too_long", file.name, line, byte, "skipped", f"{size} bytes, limit {limit}")


def _record_blocks(index: int, file: SourceFile, target: int) -> Iterator[Block]:
    assert file.records is not None
    first, last = file.records
    if first == last:
        problem = Problem("damaged", file.name, 0, 0, "skipped", "holds no record that can be read")
        yield Block(index, consumed=file.size, problems=(problem,))
        return
    step = max(1, target * (last - first) // file.size)
    for begin in range(first, last, step):
        end = min(begin + step, last)
        size = file.size * (end - begin) // (last - first)
        yield Block(index, rows=(begin, end), size=size, consumed=size)


def _record_documents(
    rows: tuple[int, int], file: SourceFile, settings: Settings
) -> Iterator[Document | Problem]:
    number = rows[0]
    records = text_dataset.read_records(file.url, *rows)
    while True:
        number += 1
        try:
            record = next(records)
        except StopIteration:
            return
        except ValueError as error:
            yield Problem("damaged", file.name, number, 0, "skipped", str(error))
            return
        if len(record) > settings.max_document_bytes:
            yield _too_long(file, number, 0, len(record), settings.max_document_bytes)
            continue
        try:
            values = example_proto.read_bytes(record, (settings.text_field, "url"))
        except ValueError as error:
            yield Problem("damaged", file.name, number, 0, "skipped", str(error))
            continue
        texts = values.get(settings.text_field, [])
        if len(texts) != 1:
            kind = "field_is_no_text" if texts else "missing_field"
            yield Problem(kind, file.name, number, 0, "skipped", f"{len(texts)} values")
            continue
        url = b"".join(values.get("url", [])).decode(errors="replace")
        yield from _decoded(texts[0], file, number, 0, settings, url=url if url.isprintable() else "")


def _parquet_blocks(index: int, file: SourceFile, settings: Settings) -> Iterator[Block]:
    pyarrow, parquet = _pyarrow(file)
    try:
        with file.open() as stream, parquet.ParquetFile(stream) as table:
            groups, schema = table.num_row_groups, table.schema_arrow
    except (pyarrow.ArrowException, OSError) as error:
        problem = Problem("damaged", file.name, 0, 0, "skipped", str(error))
        yield Block(index, consumed=file.size, problems=(problem,))
        return
    if settings.text_field not in schema.names:
        raise UserError(
            f"this Parquet file has no column {settings.text_field!r}",
            where=file.name,
            help=did_you_mean(settings.text_field, schema.names, prefix="--text_field="),
            code=Exit.BAD_DATA,
        )
    kind = str(schema.field(settings.text_field).type)
    if "string" not in kind:
        raise UserError(
            f"column {settings.text_field!r} of this Parquet file is {kind}, not text",
            where=file.name,
            code=Exit.BAD_DATA,
        )
    for group in range(groups):
        size = file.size // groups
        yield Block(index, rows=(group, group + 1), size=size, consumed=size)


def _parquet_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    assert block.rows is not None
    pyarrow, parquet = _pyarrow(file)
    row = 0
    try:
        with file.open() as stream, parquet.ParquetFile(stream) as table:
            groups = [table.metadata.row_group(i).num_rows for i in range(block.rows[0])]
            row = sum(groups)
            columns = [
                name
                for name in dict.fromkeys((settings.text_field, "url"))
                if name in table.schema_arrow.names
            ]
            batches = table.iter_batches(batch_size=64, row_groups=list(range(*block.rows)), columns=columns)
            for batch in batches:
                texts = _binary(batch.column(0), pyarrow)
                urls = batch.column(1).to_pylist() if len(columns) > 1 else [None] * len(texts)
                for text, url in zip(texts, urls, strict=True):
                    row += 1
                    url = url if isinstance(url, str) and url.isprintable() else ""
                    if text is None:
                        yield Problem("missing_field", file.name, row, 0, "skipped", "null")
                    elif len(text) > settings.max_document_bytes:
                        yield _too_long(file, row, 0, len(text), settings.max_document_bytes)
                    else:
                        yield from _decoded(text, file, row, 0, settings, url=url)
    except (pyarrow.ArrowException, OSError) as error:
        yield Problem("damaged", file.name, row + 1, 0, "skipped", str(error))


def _binary(column: Any, pyarrow: Any) -> list[bytes | None]:
    """A string column as bytes: Arrow does not check UTF-8, and converting to str would raise without a row."""
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pyarrow.large_binary()).to_pylist()


def _pyarrow(file: SourceFile) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            "reading Parquet needs the pyarrow package", where=file.name, help="pip install 't5x_like[text]'"
        ) from None
    return pyarrow, parquet
