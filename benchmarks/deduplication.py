"""What deduplication of a made-up corpus takes: time, memory and disk, each comparison in a process of its own.

  python -m benchmarks.deduplication --documents=100000

Documents have 20 lines of 8 words and an address; a tenth are near-duplicates of another (a word changed), a
twentieth of all lines are one and the same. Memory is the peak of the process less what Python and NumPy take alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from t5x_like.data.corpus.exchange import Entries, Exchange, ranges_for, verdicts_for
from t5x_like.data.dedup.base import Comparison
from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts, DuplicateURLs
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.documents import Document

COMPARISONS: dict[str, Comparison] = {
    "addresses": DuplicateURLs(),
    "texts": DuplicateTexts(),
    "lines": DuplicateLines(),
    "near-duplicates": NearDuplicates(),
}
UNIT = 2000
"""Documents."""
LINES, WORDS = 20, 8
VOCABULARY = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3)]


def documents(unit: int, wanted: Iterable[int] = range(UNIT)) -> Iterator[tuple[int, Document]]:
    """The documents of a unit, or those at the places `wanted`, each with its place."""
    drawn = np.random.default_rng(unit)
    words = drawn.integers(0, len(VOCABULARY), (UNIT, LINES * WORDS))
    copied, common = drawn.random(UNIT) < 0.1, drawn.random((UNIT, LINES)) < 0.05
    changed = drawn.integers(0, LINES * WORDS, UNIT)
    for i in wanted:
        copy = copied[i] and i
        chosen = [VOCABULARY[word] for word in words[i - 1 if copy else i].tolist()]
        if copy:
            chosen[changed[i]] = "changed"
        lines = [" ".join(chosen[j : j + WORDS]) for j in range(0, len(chosen), WORDS)]
        lines = ["All rights reserved." if common[i, j] else line for j, line in enumerate(lines)]
        yield i, Document("\n".join(lines), url=f"http://example.org/{unit}/{i}")


def peak() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, total: int) -> dict[str, float]:
    """All rounds of a comparison over `total` documents, by one process."""
    comparison, units = COMPARISONS[name], max(1, total // UNIT)
    base, begun, disk = peak(), time.process_time(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        making, before = 0.0, None
        for turn, round in enumerate(comparison.rounds):
            paths = []
            for unit in range(units):
                first, heard = unit << 32, {}
                if before is not None:
                    heard = verdicts_for(before, first, first + UNIT)
                at = time.process_time()
                wanted = [number - first for number in sorted(heard)] if turn else range(UNIT)
                found = list(documents(unit, wanted))
                making += time.process_time() - at
                entries = Entries()
                for place, document in found:
                    number = first + place
                    entries.add(number, round.entries(number, document, heard.get(number, ())))
                paths.append(folder / f"{turn}-{unit}.entries")
                entries.write(paths[-1])
            before = folder / f"verdicts-{turn}"
            before.mkdir()
            work = Exchange(
                round=round, entries=tuple(map(str, paths)), folder=str(before), ranges=ranges_for(paths)
            )
            for index in range(work.ranges):
                work.judge(index)
            disk = max(disk, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
            for path in paths:
                path.unlink()
        told = (
            sum(len(verdicts_for(before, u << 32, (u << 32) + UNIT)) for u in range(units)) if before else 0
        )
    seconds = time.process_time() - begun - making
    return {"told": told, "seconds": seconds, "memory": peak() - base, "disk": disk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--only", choices=list(COMPARISONS))
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.documents)))
        return
    print(
        "| comparison | documents | CPU seconds | documents/s | peak memory, MB | disk, MB | documents told |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in COMPARISONS:
        command = [sys.executable, "-m", "benchmarks.deduplication", f"--documents={arguments.documents}"]
        done = subprocess.run([*command, f"--only={name}"], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        print(
            f"| {name} | {arguments.documents:,} | {row['seconds']:.1f} | "
            f"{arguments.documents / row['seconds']:,.0f} | {row['memory'] / 1e6:.0f} | {row['disk'] / 1e6:.0f} | "
            f"{row['told']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
