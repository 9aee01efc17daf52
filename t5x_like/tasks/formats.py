"""Files of labelled data as rows: GLUE's TSV, CSV, JSON lines, SQuAD's JSON, CoNLL's columns, TFDS folders.

A row is a dict of what the file says, under the file's names, with its place (`file:line`); what a row means is the
business of tasks/reading.py. A row that cannot be read is a `ValueError` in the row's stead.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from t5x_like import strict_json
from t5x_like.data import example_proto, text_dataset
from t5x_like.errors import Exit, UserError

EXTENSIONS = (".jsonl", ".tsv", ".csv", ".json", ".txt", ".conll")
LARGEST_FIELD = 1 << 24
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of one half of a surrogate pair."""


class Row(NamedTuple):
    """`where`: file:line, or what stands for a line; `values`: by column, or why there are none."""

    where: str
    values: dict[str, Any] | ValueError


def read(path: Path, headerless: Sequence[str] = (), needed: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file, by its extension.

    Args:
      path: of one of `EXTENSIONS`; anything else is taken for CoNLL columns.
      headerless, needed: of TSV, see `tsv`.

    Raises:
      UserError: the file cannot be read at all.
    """
    readers = {".jsonl": json_lines, ".csv": comma_separated, ".json": squad_json}
    try:
        if path.suffix == ".tsv":
            yield from tsv(path, headerless, needed)
        else:
            yield from readers.get(path.suffix, conll)(path)
    except OSError as e:
        raise UserError(f"cannot read: {e.strerror}", where=str(path), code=Exit.BAD_DATA) from None


def _lines(path: Path) -> Iterator[tuple[int, str | ValueError]]:
    """(number, line without its end); only line feeds end lines, since texts hold the other separators."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, line.rstrip(b"\r\n").decode("utf-8")
            except UnicodeDecodeError as e:
                yield number, ValueError(f"not valid UTF-8 (byte {e.start + 1})")


def tsv(path: Path, headerless: Sequence[str] = (), needed: Sequence[str] = ()) -> Iterator[Row]:
    """Tab-separated columns as GLUE publishes them: a header line, and nothing is quoted: a quote is a character.
    Empty lines are left out.

    Args:
      headerless: the columns of a file whose first line is not a header.
      needed: a first line that holds one of these names is a header.
    """
    header: list[str] | None = None
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if isinstance(line, ValueError):
            yield Row(where, line)
            continue
        if not line:
            continue
        fields = line.split("\t")
        if header is None:
            is_header = not headerless or bool(set(fields) & set(needed))
            header = fields if is_header else list(headerless)
            if is_header:
                _check_header(header, where)
                continue
        if len(fields) != len(header):
            yield Row(where, ValueError(f"{len(fields)} fields, and the header names {len(header)}"))
        else:
            yield Row(where, dict(zip(header, fields)))


def _check_header(header: Sequence[str], where: str) -> None:
    """Raises `UserError` where two columns have one name; columns without a name may be many."""
    twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if twice is not None:
        raise UserError(f"the header names column {twice!r} twice", where=where, code=Exit.BAD_DATA)


def comma_separated(path: Path) -> Iterator[Row]:
    """Comma-separated columns with a header line; double quotes around fields, as RFC 4180 has them."""
    csv.field_size_limit(LARGEST_FIELD)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(
            f"not valid UTF-8 (byte {e.start + 1})", where=str(path), code=Exit.BAD_DATA
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header, begins = next(reader, None), reader.line_num + 1
    _check_header(header or [], f"{path}:1")
    while header is not None:
        where = f"{path}:{begins}"
        try:
            fields = next(reader, None)
        except csv.Error as e:
            yield Row(where, ValueError(str(e)))
            continue
        finally:
            begins = reader.line_num + 1
        if fields is None:
            return
        if fields and len(fields) != len(header):
            yield Row(where, ValueError(f"{len(fields)} fields, and the header names {len(header)}"))
        elif fields:
            yield Row(where, dict(zip(header, fields)))


def json_lines(path: Path) -> Iterator[Row]:
    """One JSON object a line."""
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if isinstance(line, ValueError):
            yield Row(where, line)
        elif line.strip():
            yield Row(where, _object(line))


def _object(line: str) -> dict[str, Any] | ValueError:
    try:
        value = strict_json.loads(line)
    except (ValueError, RecursionError) as e:
        return ValueError(f"not JSON ({e})")
    if not isinstance(value, dict):
        return ValueError('expected an object such as {"text": ...}')
    return _without_half_pairs(value) if _ESCAPED.search(line) else value


def _without_half_pairs(value: dict[str, Any]) -> dict[str, Any] | ValueError:
    """What JSON can write in escapes and no file can hold in UTF-8 is no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return ValueError("half of a surrogate pair, which is no character")
    return value


def squad_json(path: Path) -> Iterator[Row]:
    """SQuAD's nested JSON as rows {id, question, context, answers: [...], answer_start: [...]}; JSON lines else."""
    text, document = "", None
    with contextlib.suppress(ValueError, RecursionError):
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    if not isinstance(document, dict) or "data" not in document:
        yield from json_lines(path)
        return
    escaped = _ESCAPED.search(text) is not None
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    row = _question(paragraph["context"], entry)
                    if escaped and isinstance(row, dict):
                        row = _without_half_pairs(row)
                    yield Row(f"{path}, question {entry['id']}", row)
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(
            f"not laid out as SQuAD's files are ({type(e).__name__}: {e})",
            where=str(path),
            help='{"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers"}]}]}]}',
            code=Exit.BAD_DATA,
        ) from None


def _question(context: Any, entry: dict[str, Any]) -> dict[str, Any] | ValueError:
    try:
        answers = [] if entry.get("is_impossible") else entry["answers"]
        return {
            "id": entry["id"],
            "question": entry["question"],
            "context": context,
            "answers": [answer["text"] for answer in answers],
            "answer_start": [answer["answer_start"] for answer in answers],
        }
    except KeyError as e:
        return ValueError(f"no {e} in the question or in an answer")
    except TypeError:
        return ValueError('answers are a list of {"text": ..., "answer_start": ...}')


def conll(path: Path) -> Iterator[Row]:
    """Sentences as rows {tokens, tags}: a word a line, the tag in the last column, blank lines between sentences.

    `-DOCSTART-` lines of CoNLL-2003 are left out.
    """
    tokens: list[str] = []
    tags: list[str] = []
    begins, columns, problem = 1, None, None
    for number, line in [*_lines(path), (0, "")]:
        if isinstance(line, ValueError):
            problem = line
            continue
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            columns = columns or len(fields)
            begins = begins if tokens else number
            tokens.append(fields[0])
            tags.append(fields[-1])
            if len(fields) != columns or columns < 2:
                problem = ValueError(
                    f"{len(fields)} columns in line {number}, and {max(columns, 2)} are expected"
                )
        elif tokens:
            yield Row(f"{path}:{begins}", problem or {"tokens": tokens, "tags": tags})
            tokens, tags, problem = [], [], None


# ---- TFDS ----------------------------------------------------------------------------------------


def tfds_splits(folder: Path) -> list[str]:
    """The splits of a folder that TFDS prepared.

    Raises:
      UserError: its description cannot be read.
    """
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        return [str(split["name"]) for split in info.get("splits", [])]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as e:
        raise UserError(
            f"cannot be understood ({type(e).__name__}: {e})",
            where=str(path),
            help="prepare the dataset again with TFDS",
            code=Exit.BAD_DATA,
        ) from None


def tfds_rows(folder: Path, split: str, classes: Sequence[str]) -> Iterator[Row]:
    """The examples of a split in ArrayRecord shards; without TensorFlow nothing else can be read.

    Args:
      classes: features whose numbers become the names in `<feature>.labels.txt`, where TFDS wrote one.

    Raises:
      UserError: stored as TFRecord, or shards are missing.
    """
    names = {}
    for feature in classes:
        listed = folder / f"{feature}.labels.txt"
        if listed.is_file():
            names[feature] = listed.read_text(encoding="utf-8").splitlines()
    for shard in text_dataset.folder_shards(folder, split, None):
        records = text_dataset.read_records(shard.path, shard.first, shard.last)
        for number, record in enumerate(records, shard.first):
            where = f"{shard.path}, record {number}"
            if record is None:
                yield Row(where, ValueError("damaged"))
                continue
            try:
                yield Row(where, _flat(example_proto.read_values(record), names))
            except ValueError as e:
                yield Row(where, ValueError(str(e)))


def _flat(values: dict[str, list[Any]], names: dict[str, list[str]]) -> dict[str, Any]:
    """One value alone for a list of one; nested features (`answers/text`) as lists in a dict under their parent: SQuAD
    2.0 has `plausible_answers` of the same parts beside its `answers`."""
    row: dict[str, Any] = {}
    for name, stored in values.items():
        items: list[Any] = [item.decode("utf-8") if isinstance(item, bytes) else item for item in stored]
        if name in names:
            known = dict(enumerate(names[name]))
            items = [known.get(item, item) for item in items]
        parent, _, part = name.partition("/")
        if part:
            row.setdefault(parent, {})[part] = items
        else:
            row[name] = items[0] if len(items) == 1 else items
    return row


def number(value: Any) -> float | None:
    """A finite number out of a number or its spelling; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
