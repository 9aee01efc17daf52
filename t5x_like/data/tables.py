"""Parquet and ArrayRecord files: blocks of row groups or records, then documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from t5x_like.data import example_proto, text_dataset
from t5x_like.data.compression import BOMB_FLOOR, BOMB_RATIO
from t5x_like.data.documents import Block, Document, Problem, Settings, decoded, too_long
from t5x_like.data.sources import SourceFile
from t5x_like.errors import Exit, UserError, did_you_mean

_KNOWN = ("url", "timestamp")
"""What is read beside the text, where it is there."""


def record_blocks(index: int, file: SourceFile, target: int) -> Iterator[Block]:
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


def record_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    assert block.rows is not None
    number = block.rows[0]
    records = text_dataset.read_records(file.url, *block.rows)
    while True:
        number += 1
        try:
            record = next(records)
        except StopIteration:
            return
        except ValueError as error:
            yield Problem("damaged", file.name, number, 0, "skipped", str(error))
            return
        if record is None:
            yield Problem("damaged", file.name, number, 0, "skipped", "this record cannot be read")
            continue
        if len(record) > settings.max_document_bytes:
            yield too_long(file, number, 0, len(record), settings.max_document_bytes)
            continue
        try:
            values = example_proto.read_bytes(record, (settings.text_field, *_KNOWN))
        except ValueError as error:
            yield Problem("damaged", file.name, number, 0, "skipped", str(error))
            continue
        texts = values.get(settings.text_field, [])
        if len(texts) != 1:
            kind = "field_is_no_text" if texts else "missing_field"
            yield Problem(kind, file.name, number, 0, "skipped", f"{len(texts)} values")
            continue
        known = {name: b"".join(values.get(name, [])).decode(errors="replace") for name in _KNOWN}
        yield from decoded(texts[0], file, number, 0, settings, **known)


def parquet_blocks(index: int, file: SourceFile, settings: Settings) -> Iterator[Block]:
    pyarrow, parquet = _pyarrow(file)
    try:
        with file.open() as stream, parquet.ParquetFile(stream) as table:
            schema = table.schema_arrow
            sizes = [_sizes(table.metadata.row_group(i)) for i in range(table.num_row_groups)]
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
    for group, (stored, full) in enumerate(sizes):
        size = file.size // len(sizes)
        if full > BOMB_FLOOR and full > BOMB_RATIO * stored:
            detail = f"row group {group + 1}: {full} bytes out of {stored}: more than {BOMB_RATIO} to 1"
            problem = Problem("decompression_bomb", file.name, 0, 0, "skipped", detail)
            yield Block(index, consumed=size, problems=(problem,))
        else:
            yield Block(index, rows=(group, group + 1), size=size, consumed=size)


def _sizes(group: Any) -> tuple[int, int]:
    """Bytes of a row group's largest column, as stored and as read; a group is decompressed page by page, and a page
    may hold all of it."""
    columns = [group.column(i) for i in range(group.num_columns)]
    sizes = [(column.total_compressed_size, column.total_uncompressed_size) for column in columns]
    return max(sizes, key=lambda pair: pair[1], default=(0, 0))


def parquet_documents(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    assert block.rows is not None
    pyarrow, parquet = _pyarrow(file)
    row = 0
    try:
        with file.open() as stream, parquet.ParquetFile(stream) as table:
            groups = [table.metadata.row_group(i).num_rows for i in range(block.rows[0])]
            row = sum(groups)
            columns = [
                name
                for name in dict.fromkeys((settings.text_field, *_KNOWN))
                if name in table.schema_arrow.names
            ]
            batches = table.iter_batches(batch_size=64, row_groups=list(range(*block.rows)), columns=columns)
            for batch in batches:
                texts = _binary(batch.column(0), pyarrow)
                others = {name: batch.column(name).to_pylist() for name in columns[1:]}
                for index, text in enumerate(texts):
                    row += 1
                    known = {name: values[index] for name, values in others.items()}
                    if text is None:
                        yield Problem("missing_field", file.name, row, 0, "skipped", "null")
                    elif len(text) > settings.max_document_bytes:
                        yield too_long(file, row, 0, len(text), settings.max_document_bytes)
                    else:
                        yield from decoded(text, file, row, 0, settings, **known)
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
            "reading Parquet needs the pyarrow package", where=file.name, help="pip install '.[text]'"
        ) from None
    return pyarrow, parquet
