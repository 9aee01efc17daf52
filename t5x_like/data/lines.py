"""Text and JSONL files: cut at the borders of documents in bounded memory, then read document by document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from t5x_like.data.compression import Damaged, chunks
from t5x_like.data.documents import (
    Block,
    Document,
    Problem,
    Settings,
    checked,
    decoded,
    invalid_utf8,
    too_long,
)
from t5x_like.data.sources import SourceFile, unreadable
from t5x_like.errors import did_you_mean

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_LINE = re.compile(rb"\n")
_TAIL = 1 << 16
_DETAIL = 80


class Cutter:
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
            source = chunks(stream, self._file.compression, min(self._target, 1 << 20))
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


def text_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
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
            yield from decoded(data[begin:end], file, line, block.byte + begin, settings)
        elif settings.bad_input == "replace":
            yield Problem(
                "too_long", file.name, line, block.byte + begin, "mended", f"cut after {limit} bytes"
            )
            while begin < end:
                cut = begin + _cut_text(data[begin:end], limit) if end - begin > limit else end
                yield from decoded(data[begin:cut], file, line, block.byte + begin, settings)
                begin = cut
        else:
            yield too_long(file, line, block.byte + begin, end - begin, limit)


def _twice(line: str, fields: Sequence[str]) -> bool:
    """Whether the object of a line has one of the fields more than once; which is meant nobody can tell."""
    if not any(line.count(f'"{field}"') > 1 for field in fields):
        return False
    pairs: list[tuple[str, object]] = []

    def keep(found: list[tuple[str, object]]) -> dict[str, object]:
        pairs[:] = found  # of the object that is closed last, which is the outermost
        return dict(found)

    json.loads(line, object_pairs_hook=keep)
    names = [name for name, _ in pairs]
    return any(names.count(field) > 1 for field in fields)


def json_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    position = 0
    for number, raw in enumerate(block.data.split(b"\n"), block.line):
        byte = block.byte + position
        position += len(raw) + 1
        if not raw or raw.isspace():
            continue
        if len(raw) > settings.max_document_bytes:
            yield too_long(file, number, byte, len(raw), settings.max_document_bytes)
            continue
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            problem = invalid_utf8(raw, error, file, number, byte, settings)
            yield problem
            if problem.action == "skipped":
                continue
            line = raw.decode(errors="replace")
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
        if _twice(line, (settings.text_field, "url", "timestamp")):
            yield Problem("duplicate_field", file.name, number, byte, "skipped", line[:_DETAIL])
        elif text is None:
            near = (
                did_you_mean(settings.text_field, value, prefix="--text_field=")
                if value
                else "an empty object"
            )
            yield Problem("missing_field", file.name, number, byte, "skipped", near[: 2 * _DETAIL])
        elif not isinstance(text, str):
            yield Problem("field_is_no_text", file.name, number, byte, "skipped", type(text).__name__)
        else:
            url, timestamp = value.get("url"), value.get("timestamp")
            yield from checked(text, file, number, byte, settings, url=url, timestamp=timestamp)
