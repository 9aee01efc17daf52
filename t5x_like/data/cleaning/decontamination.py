"""Rejects documents that hold a piece of an evaluation set (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xxhash
from jaxtyping import Integer, UInt64

from t5x_like.data.cleaning import files
from t5x_like.data.cleaning.base import Rejection, at_least
from t5x_like.data.documents import Document
from t5x_like.errors import Exit, UserError

_WORD = re.compile(r"\w+")
_SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl", ".json")
_COMPRESSED = (".gz", ".zst", ".xz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontaminate:
    """Rejects a document if `ngram` words in a row of it are in an evaluation text in the same order.

    Words are runs of letters and digits, in lower case; marks do not count. Memory: 10 bytes a word of the evaluation
    texts, in each process. N-grams are compared by hashes of 64 bits.

    Attributes:
      texts: files, folders or names with wildcards. Of .txt every line is a text, of .json and .jsonl
        every string, of .tsv and .csv every cell. Of folders, such as those of tasks, the files of
        these kinds.
      leave_out: files in folders whose names begin so are no evaluation texts.
      ngram: 13 in GPT-3; datatrove has 12; 8 and 10 are stricter.
      shortest: evaluation texts of fewer than `ngram` words, but so many, must be in a document as a whole (GPT-3: 8);
        shorter ones are left alone, or every document would be rejected for a common phrase.

    Reason: `contaminated`, with the n-gram and the file it is from.

    Source: GPT-3 paper, appendix C; datatrove/pipeline/decont/n_grams.py. GPT-3 cut 200 characters to both sides out
    of a document and kept the rest; here, as in datatrove, the document goes.
    """

    name: ClassVar[str] = "decontaminate"

    texts: tuple[str, ...]
    leave_out: tuple[str, ...] = ("train", "unlabeled", "unlabelled")
    ngram: int = 13
    shortest: int = 8

    def __post_init__(self) -> None:
        at_least(self, "ngram", 1)
        at_least(self, "shortest", 1)

    def files_read(self) -> Iterable[str]:
        return _files(self)

    def __call__(self, document: Document) -> Document | Rejection:
        index = _index(self)
        found = _WORD.findall(document.text.lower())
        hashes = _word_hashes(found)
        for length, table in index.tables.items():
            ngrams = _rolled(hashes, length)
            if not len(ngrams):
                continue
            places = np.searchsorted(table.hashes, ngrams)
            places[places == len(table.hashes)] = 0
            hits = np.flatnonzero(table.hashes[places] == ngrams)
            if hits.size:
                first = int(hits[0])
                source = index.names[int(table.sources[places[first]])]
                words = " ".join(found[first : first + length])
                return Rejection(self.name, "contaminated", f"{source}: {words}")
        return document


class _Table(NamedTuple):
    hashes: UInt64[np.ndarray, "N"]  # sorted, each once
    sources: Integer[np.ndarray, "N"]  # number of the first file that has it


class _Index(NamedTuple):
    names: tuple[str, ...]
    tables: dict[int, _Table]  # by length in words


@functools.lru_cache(4)
def _index(rule: Decontaminate) -> _Index:
    names = tuple(dict.fromkeys(_files(rule)))
    if len(names) > 1 << 16:
        raise UserError(f"{len(names)} files of evaluation texts, expected at most 65536", where="texts")
    found: dict[int, list[tuple[UInt64[np.ndarray, "N"], int]]] = {}
    for number, name in enumerate(names):
        for text in _texts(name):
            hashes = _word_hashes(_WORD.findall(text.lower()))
            length = min(rule.ngram, len(hashes))
            if length >= min(rule.shortest, rule.ngram):
                found.setdefault(length, []).append((_rolled(hashes, length), number))
    if not found:
        raise UserError(
            f"no evaluation text of {min(rule.shortest, rule.ngram)} words or more",
            where=f"texts: {', '.join(rule.texts)}",
            code=Exit.BAD_DATA,
        )
    tables = {}
    for length, parts in sorted(found.items(), reverse=True):
        hashes, first = np.unique(np.concatenate([part for part, _ in parts]), return_index=True)
        sources = np.repeat([number for _, number in parts], [len(part) for part, _ in parts])
        tables[length] = _Table(hashes, sources[first].astype(np.uint16))
    return _Index(names, tables)


def _files(rule: Decontaminate) -> Iterator[str]:
    for pattern in rule.texts:
        given = files.names(pattern, "texts")
        for name in given:
            path = PurePosixPath(name)
            inside = len(given) > 1 or path.name != PurePosixPath(pattern).name
            if inside and (_kind(name) is None or path.name.startswith((*rule.leave_out, "."))):
                continue
            yield name


def _kind(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.suffix in _COMPRESSED:
        path = PurePosixPath(path.stem)
    return path.suffix if path.suffix in _SUFFIXES else None


def _texts(name: str) -> Iterator[str]:
    kind = _kind(name)
    if kind == ".json":
        yield from _strings(files.read_json(name, "texts"))
        return
    for number, line in enumerate(files.lines(name, "texts"), 1):
        if kind == ".jsonl":
            try:
                yield from _strings(json.loads(line))
            except (json.JSONDecodeError, RecursionError):
                raise UserError(
                    "is no JSON on one line", where=f"texts: {name}:{number}", code=Exit.BAD_DATA
                ) from None
        elif kind == ".tsv":
            yield from line.split("\t")
        elif kind == ".csv":
            yield from next(csv.reader([line]), ())
        else:
            yield line


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


@functools.lru_cache(1 << 17)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode())


def _word_hashes(words: list[str]) -> UInt64[np.ndarray, "T"]:
    return np.fromiter(map(_word_hash, words), np.uint64, len(words))


def _rolled(hashes: UInt64[np.ndarray, "T"], length: int) -> UInt64[np.ndarray, "N"]:
    """A hash of every `length` words in a row."""
    count = len(hashes) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(length):
        total = (total ^ (total >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + hashes[
            place : place + count
        ]
    return total
