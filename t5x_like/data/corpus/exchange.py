"""Bringing together what was said under one key, on disk: the local engine's GroupByKey.

Every unit of work writes its entries into one file, sorted by key. A judge takes a range of keys, collects that
range from all files, sorts it, calls `decide` for every key that was said twice or more, and writes the verdicts
sorted by document. A range is halved until it fits the budget; a single key that does not fit is streamed from the
files, so memory does not depend on the size of the corpus or on how often anything repeats. What it takes:
about six times `RANGE_BYTES` for a judge.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64
from safetensors.numpy import save

from t5x_like.data.corpus import stored
from t5x_like.data.dedup.base import KEY_BYTES, Entry, Round, Said, Verdict
from t5x_like.data.token_writer import write_durably

RANGE_BYTES = 32 << 20
"""Entries that a judge holds at once, in bytes as they lie on disk."""
_ROWS = 1 << 16
_VERDICTS = 1 << 18
_END = 1 << 64


class Entries:
    """Entries being collected, in compact form."""

    def __init__(self) -> None:
        self._keys, self._values = bytearray(), bytearray()
        self._numbers, self._ends = array("Q"), array("Q")

    def add(self, number: int, entries: Iterable[Entry]) -> None:
        """What document `number` says; documents come in ascending order."""
        for key, value in entries:
            self._keys += key
            self._values += value
            self._numbers.append(number)
            self._ends.append(len(self._values))

    def write(self, path: Path) -> None:
        """Writes them sorted by key, equal keys in the order in which they were said."""
        keys = np.frombuffer(self._keys, ">u8").reshape(-1, KEY_BYTES // 8).astype(np.uint64)
        numbers, ends = np.frombuffer(self._numbers, np.uint64), np.frombuffer(self._ends, np.uint64)
        _write(path, keys, numbers, ends, np.frombuffer(self._values, np.uint8), _order(keys))


def _order(keys: UInt64[np.ndarray, "N 2"]) -> np.ndarray:
    """Stable order by key. The first half decides all but always, and sorting by it alone is four times as fast."""
    order = np.argsort(keys[:, 0], kind="stable")
    high, low = keys[order, 0], keys[order, 1]
    if np.any((high[1:] == high[:-1]) & (low[1:] != low[:-1])):
        order = np.lexsort((keys[:, 1], keys[:, 0]))
    return order


def _write(
    path: Path, keys: np.ndarray, numbers: np.ndarray, ends: np.ndarray, blob: np.ndarray, order: np.ndarray
) -> None:
    ends, blob = _taken(ends, blob, order)
    content = save({"keys": keys[order], "numbers": numbers[order], "ends": ends, "values": blob})
    write_durably(path, content)


def _taken(ends: np.ndarray, blob: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in another order: new ends, new bytes."""
    starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])[: len(ends)]
    lengths = (ends - starts)[order]
    new_ends = np.cumsum(lengths, dtype=np.uint64)
    width = int(lengths[0]) if len(lengths) else 0
    if np.all(lengths == width):
        return new_ends, blob.reshape(len(ends), width)[order].reshape(-1)
    content, pieces = blob.tobytes(), []
    for begin, length in zip(starts[order].tolist(), lengths.tolist(), strict=True):
        pieces.append(content[begin : begin + length])
    return new_ends, np.frombuffer(b"".join(pieces), np.uint8)


class _Table:
    """A file of entries or verdicts, mapped into memory while the object lives."""

    def __init__(self, path: Path):
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            size = int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8 : 8 + size])
            self._arrays = {
                name: np.frombuffer(
                    self._map,
                    {"U64": "<u8", "U8": "u1"}[entry["dtype"]],
                    offset=8 + size + entry["data_offsets"][0],
                    count=int(np.prod(entry["shape"])),
                ).reshape(entry["shape"])
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise stored.damaged(path, error) from None

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Rows whose first half of the key lies in [first, last)."""
        high = self["keys"][:, 0]
        end = len(high) if last >= _END else int(np.searchsorted(high, np.uint64(last)))
        return int(np.searchsorted(high, np.uint64(first))), end

    def values(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of the values of rows [begin, end), and their ends in them."""
        first = int(self["ends"][begin - 1]) if begin else 0
        last = int(self["ends"][end - 1]) if end else 0
        return self["values"][first:last], self["ends"][begin:end] - np.uint64(first)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
    """One round of one comparison, local: which files its entries are in, and where its verdicts go.

    Attributes:
      round: the functions.
      entries: files of `Entries.write`, in the order of units.
      folder: for the verdicts.
      ranges: how many ranges of keys; each is a piece of work of its own.
      budget: bytes of entries in memory at once.
    """

    round: Round
    entries: tuple[str, ...]
    folder: str
    ranges: int
    budget: int = RANGE_BYTES

    def done(self, index: int) -> bool:
        """Whether a range is judged."""
        return self._marker(index).is_file()

    def _marker(self, index: int) -> Path:
        return Path(self.folder) / f"{index:06d}.json"

    def judge(self, index: int) -> None:
        """Judges one range and writes its verdicts."""
        writer = _VerdictWriter(Path(self.folder), index)
        first, last = (_END * i // self.ranges for i in (index, index + 1))
        for part in self._parts(first, last):
            for key, said in part:
                writer.add(self.round.decide(key, said))
        files = writer.finish()
        write_durably(self._marker(index), json.dumps({"files": files, "ranges": self.ranges}).encode())

    def _parts(self, first: int, last: int) -> Iterator[Iterator[tuple[bytes, Iterable[Said]]]]:
        """Groups of the keys in [first, last), some at a time."""
        slices = [(path, *_Table(Path(path)).rows(first, last)) for path in self.entries]
        slices = [(path, begin, end) for path, begin, end in slices if begin < end]
        if not slices:
            return
        if sum(_bytes(*entry) for entry in slices) <= self.budget:
            yield _groups(slices)
        elif last - first > 1:
            middle = (first + last) // 2
            yield from self._parts(first, middle)
            yield from self._parts(middle, last)
        else:
            yield _long_groups(slices)


def judge(exchange: Exchange, index: int) -> None:
    """`Exchange.judge` as a task of data/workers.py."""
    exchange.judge(index)


def ranges_for(paths: Iterable[Path], budget: int = RANGE_BYTES) -> int:
    """How many ranges make pieces of half the budget."""
    return max(1, 2 * sum(path.stat().st_size for path in paths) // budget)


def _bytes(path: str, begin: int, end: int) -> int:
    values, _ = _Table(Path(path)).values(begin, end)
    return 32 * (end - begin) + len(values)


def _groups(slices: Sequence[tuple[str, int, int]]) -> Iterator[tuple[bytes, Iterable[Said]]]:
    """Keys said twice or more in these slices, sorted in memory."""
    columns: dict[str, list[np.ndarray]] = {"keys": [], "numbers": [], "ends": [], "values": []}
    base = 0
    for path, begin, end in slices:
        table = _Table(Path(path))
        values, ends = table.values(begin, end)
        for name, column in (
            ("keys", table["keys"][begin:end]),
            ("numbers", table["numbers"][begin:end]),
            ("ends", ends + np.uint64(base)),
            ("values", values),
        ):
            columns[name].append(np.array(column))
        base += len(values)
    keys, numbers, ends, values = (np.concatenate(columns.pop(name)) for name in list(columns))
    order = _order(keys)
    keys = keys[order]
    new = np.ones(len(keys) + 1, bool)
    new[1:-1] = np.any(keys[1:] != keys[:-1], axis=1)
    begins = np.flatnonzero(new)
    sizes = np.diff(begins)
    repeated = np.flatnonzero(sizes > 1)
    starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
    content = values.tobytes()
    at = 0
    while at < len(repeated):  # some groups at a time: lists of Python numbers are large
        stop = int(np.searchsorted(np.cumsum(sizes[repeated[at:]]), _ROWS)) + at + 1
        chosen = repeated[at:stop]
        for begin, size in zip(begins[chosen].tolist(), sizes[chosen].tolist(), strict=True):
            rows = order[begin : begin + size]
            said = [
                (number, content[a:b])
                for number, a, b in zip(
                    numbers[rows].tolist(), starts[rows].tolist(), ends[rows].tolist(), strict=True
                )
            ]
            yield keys[begin].astype(">u8").tobytes(), said
        at = stop


def _long_groups(slices: Sequence[tuple[str, int, int]]) -> Iterator[tuple[bytes, Iterable[Said]]]:
    """Keys that agree in their first half, all too long for memory: one or, once in 2**64, more."""
    lows = np.unique(np.concatenate([np.unique(_Table(Path(path))["keys"][b:e, 1]) for path, b, e in slices]))
    for low in lows:
        said = _LongSaid(slices, low)
        if said.longer_than_one():
            yield said.key, said


class _LongSaid:
    """What was said under one key, read from the files as it is gone through."""

    def __init__(self, slices: Sequence[tuple[str, int, int]], low: np.uint64):
        path, begin, _ = slices[0]
        high = _Table(Path(path))["keys"][begin, 0]
        self.key = np.array([high, low]).astype(">u8").tobytes()
        self._slices, self._low = slices, low

    def longer_than_one(self) -> bool:
        return sum(1 for _, _ in zip(self, range(2), strict=False)) == 2

    def __iter__(self) -> Iterator[Said]:
        for path, first, last in self._slices:
            table = _Table(Path(path))
            for begin in range(first, last, _ROWS):
                end = min(begin + _ROWS, last)
                values, ends = table.values(begin, end)
                content, start = values.tobytes(), 0
                here = (table["keys"][begin:end, 1] == self._low).tolist()
                for same, number, stop in zip(
                    here, table["numbers"][begin:end].tolist(), ends.tolist(), strict=True
                ):
                    if same:
                        yield number, content[start:stop]
                    start = stop


class _VerdictWriter:
    """Verdicts of a range, in files of bounded size, each sorted by document."""

    def __init__(self, folder: Path, index: int):
        self._folder, self._index = folder, index
        self._numbers, self._values, self._ends = array("Q"), bytearray(), array("Q")
        self._files: list[str] = []

    def add(self, verdicts: Iterable[Verdict]) -> None:
        for number, value in verdicts:
            self._numbers.append(number)
            self._values += value
            self._ends.append(len(self._values))
            if len(self._numbers) >= _VERDICTS:
                self._flush()

    def _flush(self) -> None:
        numbers = np.frombuffer(self._numbers, np.uint64)
        keys = numbers.reshape(-1, 1)
        name = f"{self._index:06d}.{len(self._files):06d}.verdicts"
        order = np.argsort(numbers, kind="stable")
        ends, values = np.frombuffer(self._ends, np.uint64), np.frombuffer(self._values, np.uint8)
        _write(self._folder / name, keys, numbers, ends, values, order)
        self._files.append(name)
        self._numbers, self._values, self._ends = array("Q"), bytearray(), array("Q")

    def finish(self) -> list[str]:
        if self._numbers:
            self._flush()
        return self._files


def verdicts_for(folder: Path, first: int, last: int) -> dict[int, list[bytes]]:
    """The verdicts for documents [first, last), sorted, each once.

    Args:
      folder: of a finished exchange.

    Raises:
      UserError: a file is damaged or gone.
    """
    found: dict[int, set[bytes]] = {}
    ranges: list[dict[str, Any]] = [stored.read_json(marker) for marker in sorted(folder.glob("*.json"))]
    if not ranges or len(ranges) != ranges[0]["ranges"]:
        raise stored.damaged(folder, ValueError("the verdicts of a range are gone"))
    for judged in ranges:
        for name in judged["files"]:
            table = _Table(folder / name)
            begin, end = table.rows(first, last)
            if begin == end:
                continue
            values, ends = table.values(begin, end)
            content, start = values.tobytes(), 0
            for number, stop in zip(table["keys"][begin:end, 0].tolist(), ends.tolist(), strict=True):
                found.setdefault(number, set()).add(content[start:stop])
                start = stop
    return {number: sorted(values) for number, values in found.items()}
