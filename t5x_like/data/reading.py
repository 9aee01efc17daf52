"""From files to documents: whole documents in blocks, whatever the files' format.

The main process cuts files into blocks (`blocks`); a worker turns a block into documents and problems (`parse`).
Cutting looks only for borders, so it keeps up with many workers; everything that costs time happens in `parse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t5x_like.data import lines, tables
from t5x_like.data.documents import Block, Document, Problem, Settings
from t5x_like.data.sources import SourceFile


def blocks(files: Sequence[SourceFile], settings: Settings, target: int) -> Iterator[Block]:
    """Cuts files into blocks of about `target` bytes; depends on the files' content and the settings only.

    Raises:
      UserError: a file has disappeared, a Parquet file lacks the column, a package is missing.
    """
    for index, file in enumerate(files):
        if not file.size:
            yield Block(index, problems=(Problem("empty_file", file.name, 0, 0, "skipped"),))
        elif file.format == "parquet":
            yield from tables.parquet_blocks(index, file, settings)
        elif file.format == "array_record":
            yield from tables.record_blocks(index, file, target)
        else:
            yield from lines.Cutter(index, file, settings, target).blocks()


def parse(block: Block, file: SourceFile, settings: Settings) -> Iterator[Document | Problem]:
    """Documents and problems of a block, in order."""
    yield from block.problems
    if block.rows is not None and file.format == "parquet":
        yield from tables.parquet_documents(block, file, settings)
    elif block.rows is not None:
        yield from tables.record_documents(block, file, settings)
    elif file.format == "jsonl":
        yield from lines.json_documents(block, file, settings)
    elif block.data:
        yield from lines.text_documents(block, file, settings)
