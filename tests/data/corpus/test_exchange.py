"""Exchanges on disk: the same verdicts as by dictionaries, whatever fits into memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from in_memory import verdicts

from t5x_like.data.corpus import exchange
from t5x_like.data.corpus.exchange import Entries, Exchange, ranges_for, verdicts_for
from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.documents import Document
from t5x_like.errors import UserError


def documents(count: int) -> list[Document]:
    drawn = random.Random(0)
    words = [f"word{i}" for i in range(50)]
    lines = [" ".join(drawn.choices(words, k=6)) for _ in range(60)]
    return [
        Document("\n".join(drawn.choices(lines, k=drawn.randint(1, 5))), url=f"http://a.org/{i}")
        for i in range(count)
    ]


def exchanged(comparison, pages, folder, units, budget):
    """The last round's verdicts by way of the disk."""
    numbers = [(index * units // len(pages), index) for index in range(len(pages))]
    heard: dict[int, list[bytes]] = {}
    for turn, round in enumerate(comparison.rounds):
        paths = []
        for unit in range(units):
            entries = Entries()
            for owner, index in numbers:
                if owner == unit and (turn == 0 or index in heard):
                    entries.add(index, round.entries(index, pages[index], heard.get(index, ())))
            paths.append(folder / f"{turn}-{unit}.entries")
            entries.write(paths[-1])
        place = folder / f"verdicts-{turn}"
        place.mkdir()
        ranges = ranges_for(paths, budget)
        work = Exchange(
            round=round, entries=tuple(map(str, paths)), folder=str(place), ranges=ranges, budget=budget
        )
        for index in reversed(range(ranges)):
            work.judge(index)
            assert work.done(index)
        half = len(pages) // 2
        heard = verdicts_for(place, 0, half) | verdicts_for(place, half, len(pages))
    return heard


@pytest.mark.parametrize(
    "units, budget, count", [(1, 1 << 25, 150), (5, 1 << 25, 150), (5, 4000, 150), (2, 40, 20)]
)
def test_the_same_verdicts_as_by_dictionaries(tmp_path, units, budget, count):
    """A budget of 40 bytes streams every key."""
    pages = documents(count)
    expected = verdicts(DuplicateLines(), pages)
    assert sum(map(len, expected.values())) > count / 2
    assert exchanged(DuplicateLines(), pages, tmp_path, units, budget) == expected


@pytest.mark.parametrize("budget", [1 << 25, 3000])
def test_values_of_any_length_and_several_rounds(tmp_path, budget):
    step = NearDuplicates(rows=1, threshold=0.3, ngram=2)
    pages = documents(60)
    expected = verdicts(step, pages)
    assert expected
    assert exchanged(step, pages, tmp_path, 4, budget) == expected


def test_keys_that_agree_in_their_first_half(tmp_path):
    class Halves:
        """Keys of one first half and few second halves."""

        name = "halves"

        @property
        def rounds(self):
            return (self,)

        def entries(self, number, document, verdicts):
            return [(bytes(8) + (number % 3).to_bytes(8, "big"), str(number).encode())]

        def decide(self, key, said):
            return [(number, value + key[-1:]) for number, value in said if number > 5]

        apply = None

    pages = documents(10)
    expected = verdicts(Halves(), pages)  # pyright: ignore
    for budget in (1 << 20, 10):
        folder = tmp_path / str(budget)
        folder.mkdir()
        assert exchanged(Halves(), pages, folder, 2, budget) == expected


def test_nothing_said(tmp_path):
    assert exchanged(DuplicateTexts(), [Document(str(i)) for i in range(9)], tmp_path, 9, 100) == {}
    Entries().write(tmp_path / "empty")
    work = Exchange(
        round=DuplicateTexts(), entries=(str(tmp_path / "empty"),), folder=str(tmp_path), ranges=1
    )
    work.judge(0)
    assert verdicts_for(tmp_path, 0, 1 << 40) == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "cut.entries").write_bytes(b"\x40\x00\x00")
    work = Exchange(
        round=DuplicateTexts(), entries=(str(tmp_path / "cut.entries"),), folder=str(tmp_path), ranges=1
    )
    with pytest.raises(UserError, match="damaged") as error:
        work.judge(0)
    assert "cut.entries" in str(error.value)


MEASURE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from t5x_like.data.corpus.exchange import Entries, Exchange, ranges_for, verdicts_for
from t5x_like.data.dedup.first import DuplicateTexts

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Texts(DuplicateTexts):
    def apply(self, document, verdicts): ...

folder, total, budget = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
drawn, paths, units = np.random.default_rng(0), [], 20
for unit in range(units):
    entries, each = Entries(), total // units
    keys = drawn.integers(0, 256, (each, 16), dtype=np.uint8)
    keys[::2] = 0  # half of all documents are one text
    keys = keys.tobytes()
    for i in range(each):
        entries.add(unit << 32 | i, [(keys[16 * i : 16 * i + 16], b"")])
    paths.append(folder / f"{unit}.entries")
    entries.write(paths[-1])
written = peak()
(folder / "verdicts").mkdir()
work = Exchange(round=Texts(), entries=tuple(map(str, paths)), folder=str(folder / "verdicts"),
                ranges=ranges_for(paths, budget), budget=budget)
for index in range(work.ranges):
    work.judge(index)
judged = peak()
count = sum(len(verdicts_for(folder / "verdicts", u << 32, (u + 1) << 32)) for u in range(units))
print(json.dumps({"written": written, "judged": judged, "read": peak(), "verdicts": count,
                  "stored": sum(path.stat().st_size for path in paths)}))
"""


def measured(folder, total, budget):
    folder.mkdir()
    command = [sys.executable, "-c", MEASURE, str(folder), str(total), str(budget)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Ten times as many documents, half of them one and the same text, in the same memory but for a unit's own."""
    budget = 1 << 20
    small, large = (measured(tmp_path / str(n), n, budget) for n in (40_000, 400_000))
    assert large["verdicts"] == 200_000 - 1 and large["stored"] > 9 * budget
    assert large["judged"] - small["judged"] < 12 * budget, (small, large)
    assert exchange.RANGE_BYTES == 32 << 20, "docs/corpus.md states the memory for this"
