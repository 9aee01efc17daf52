"""What a worker does with one unit: read it or take up where the last pass left it, follow rules, say its entries.

A pass leaves files for each unit: its documents, its entries for the comparison behind the rules, its texts where
tokens are to be counted, and last a tally, which says that the unit is done. The last pass leaves the records of the
text dataset instead of documents.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from t5x_like.data import text_dataset
from t5x_like.data.cleaning.base import Rejection, Rule
from t5x_like.data.corpus import exchange, stored
from t5x_like.data.corpus.recipe import Corpus, Stage, stages
from t5x_like.data.corpus.splits import split_of
from t5x_like.data.corpus.tally import Tally, size
from t5x_like.data.corpus.trail import Trail
from t5x_like.data.dedup.base import Comparison
from t5x_like.data.dedup.near import Membership, NearDuplicates
from t5x_like.data.documents import Document, Problem, Settings
from t5x_like.data.pages.base import RawPage, Unit
from t5x_like.data.pages.reading import read
from t5x_like.data.token_writer import write_durably
from t5x_like.data.units import SPLITS, fail_if_asked

EXTRACT = "extract"
"""The first row of the funnel: what was read, and the text that was found in it."""
UNIT = 1 << 32
"""Numbers of documents that a unit has: a document's number divided by it is its unit's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker needs to know: plain data.

    Attributes:
      recipe: what is done.
      read: how the input is read.
      partial: folder of the passes.
      trail: keep every text on the way, so that its tokens can be counted.
    """

    recipe: Corpus
    read: Settings
    partial: str
    trail: bool

    def folder(self, stage: int) -> Path:
        """Of one pass."""
        return Path(self.partial) / "passes" / f"{stage:02d}"

    def path(self, stage: int, unit: int, suffix: str) -> Path:
        """A file of one pass and unit."""
        return self.folder(stage) / f"{unit:07d}.{suffix}"

    def entries(self, stage: int, round: int, unit: int) -> Path:
        """What a unit says in a round of the comparison behind a pass."""
        return self.path(stage, unit, f"{round}.entries")

    @property
    def units(self) -> int | None:
        """How many units the input has, once that is known."""
        known = self.folder(0) / "units"
        return int(stored.read_json(known)) if known.is_file() else None

    def tell_units(self, count: int) -> None:
        """Keeps how many they are."""
        write_durably(self.folder(0) / "units", str(count).encode())

    def texts(self, stage: int, unit: int) -> Path:
        """What texts the documents of a unit had in a pass (data/corpus/trail.py)."""
        return self.path(stage, unit, "texts")

    def verdicts(self, stage: int, round: int) -> Path:
        """Folder of what was decided in that round."""
        return self.folder(stage) / f"verdicts-{round}"

    def done(self, stage: int, unit: int) -> bool:
        """Whether a unit has gone through a pass."""
        return self.path(stage, unit, "json").is_file()


def follow(job: Job, stage: int, number: int, unit: Unit | None) -> None:
    """Takes one unit through one pass.

    Args:
      job: what is done, and where.
      stage: of the recipe.
      number: of the unit.
      unit: what to read in the first pass.
    """
    here = stages(job.recipe)[stage]
    with _trail(job, stage, number) as trail:
        tally = Tally(trail=trail)
        if unit is not None:
            documents = read_unit(job, unit, tally)
        else:
            documents = _compared(job, stage, number, tally)
        kept = by_rules(documents, here, tally)
        if here.comparison is None:
            paths = {split: job.path(stage, number, f"{split}.array_record") for split in SPLITS}
            write_result(job.recipe, kept, paths, tally)
        else:
            entries = exchange.Entries()
            first = here.comparison.rounds[0]

            def saying() -> Iterator[tuple[int, Document]]:
                for code, document in kept:
                    entries.add(code, first.entries(code, document, ()))
                    yield code, document

            stored.write(job.path(stage, number, "documents"), saying())
            entries.write(job.entries(stage, 0, number))
    write_durably(job.path(stage, number, "json"), json.dumps(tally.as_data()).encode())


@contextlib.contextmanager
def _trail(job: Job, stage: int, number: int) -> Iterator[Trail | None]:
    if not job.trail:
        yield None
        return
    with stored.whole(job.texts(stage, number)) as file:
        trail = Trail(file, carried=stage > 0)
        yield trail
        trail.close()


def read_unit(job: Job, unit: Unit, tally: Tally) -> Iterator[tuple[int, Document]]:
    """Documents of the input, numbered."""
    code = unit.number * UNIT
    extractor = job.recipe.extractor
    for item in read(unit, job.read):
        if isinstance(item, Problem):
            fail_if_asked(item, job.read)
            tally.problem(item)
            continue
        if isinstance(item, RawPage):
            tally.read(EXTRACT, len(item.html))
            begun = time.perf_counter()
            found = extractor(item)
            tally.seconds[EXTRACT] += time.perf_counter() - begun
            if isinstance(found, Rejection):
                tally.rejected(EXTRACT, found)
                page = Document(
                    item.html,
                    url=item.url,
                    timestamp=item.timestamp,
                    source=item.source,
                    position=item.position,
                )
                tally.show_rejected(code, EXTRACT, page, found)
                code += 1
                continue
            document = found
        else:
            tally.read(EXTRACT, len(item.text))
            document = item
        tally.out_of(code, EXTRACT, document.text, size(document), isinstance(item, RawPage))
        yield code, document
        code += 1


def _compared(job: Job, stage: int, number: int, tally: Tally) -> Iterator[tuple[int, Document]]:
    """Documents of the pass before, as the comparison behind it leaves them."""
    before = stages(job.recipe)[stage - 1]
    assert before.comparison is not None
    last = len(before.comparison.rounds) - 1
    verdicts = exchange.verdicts_for(job.verdicts(stage - 1, last), number * UNIT, (number + 1) * UNIT)
    return compared(before, stored.read(job.path(stage - 1, number, "documents")), verdicts, tally)


def compared(
    before: Stage,
    documents: Iterator[tuple[int, Document]],
    verdicts: Mapping[int, Sequence[bytes]],
    tally: Tally,
) -> Iterator[tuple[int, Document]]:
    """Documents as a comparison leaves them.

    Args:
      before: the stage that ends in it.
      documents: as its rules left them.
      verdicts: of its last round, sorted, each once, for those that were given some.
      tally: counts.
    """
    comparison = before.comparison
    assert comparison is not None
    step = before.first + len(before.rules)
    for code, document in documents:
        heard = verdicts.get(code, ())
        if heard and isinstance(comparison, NearDuplicates):
            tally.member(code, document, Membership.read(heard[0]))
        after = _step(code, document, size(document), step, comparison, heard, tally)
        if after is not None:
            yield code, after[0]


def by_rules(
    documents: Iterator[tuple[int, Document]], stage: Stage, tally: Tally
) -> Iterator[tuple[int, Document]]:
    for code, document in documents:
        measured = size(document)
        for place, rule in enumerate(stage.rules, stage.first):
            after = _step(code, document, measured, place, rule, None, tally)
            if after is None:
                break
            document, measured = after
        else:
            yield code, document


def _step(
    code: int,
    document: Document,
    measured: tuple[int, int],
    place: int,
    step: Rule | Comparison,
    verdicts: Sequence[bytes] | None,
    tally: Tally,
) -> tuple[Document, tuple[int, int]] | None:
    """One document through one step, counted."""
    name = label(place, step)
    tally.into(code, name, document.text, measured)
    begun = time.perf_counter()
    after = step(document) if verdicts is None else step.apply(document, verdicts)  # pyright: ignore
    if not isinstance(after, Rejection) and (not after.text or after.text.isspace()):
        after = Rejection(step.name, "empty")
    tally.seconds[name] += time.perf_counter() - begun
    if isinstance(after, Rejection):
        tally.rejected(name, after)
        tally.show_rejected(code, name, document, after)
        return None
    changed = after.text != document.text
    if changed:
        measured = size(after)
        tally.show_changed(code, name, document, after)
    tally.out_of(code, name, after.text, measured, changed)
    return after, measured


def label(place: int, step: Rule | Comparison) -> str:
    """A step in the funnel: its place in the recipe, from 1, and its name."""
    return f"{place + 1:02d} {step.name}"


def write_result(
    recipe: Corpus, documents: Iterator[tuple[int, Document]], paths: Mapping[str, Path], tally: Tally
) -> None:
    """Writes the records of the text dataset, a file for each split that has any."""
    version = recipe.version
    writers = {split: text_dataset.ShardWriter(path) for split, path in paths.items()}
    try:
        for code, document in documents:
            split = split_of(document, recipe)
            tally.show_kept(code, document, split)
            fields = record(document, version)
            writers[split].write(fields)
            tally.counts[f"split/{split}/bytes"] += len(fields["text"])
    finally:
        for writer in writers.values():
            writer.close()
    for split, writer in writers.items():
        tally.counts[f"split/{split}/documents"] = writer.records
        tally.counts[f"split/{split}/record_bytes"] = writer.bytes
        if not writer.records:
            paths[split].unlink()


def record(document: Document, version: str) -> dict[str, Any]:
    """A document of the text dataset with all that is known of it."""
    text = document.text.encode()
    return {
        "text": text,
        "url": document.url.encode(),
        "timestamp": document.timestamp.encode(),
        "source": document.source.encode(),
        "position": document.position,
        "language": document.language.encode(),
        "language_probability": document.language_probability,
        "cluster": document.cluster.encode(),
        "hash": xxhash.xxh3_128_hexdigest(text).encode(),
        "rules": version.encode(),
    }


def say_again(job: Job, stage: int, round: int, number: int) -> None:
    """The entries of a later round of the comparison behind a pass, from documents that the round before spoke to."""
    comparison = stages(job.recipe)[stage].comparison
    assert comparison is not None
    verdicts = exchange.verdicts_for(job.verdicts(stage, round - 1), number * UNIT, (number + 1) * UNIT)
    entries = exchange.Entries()
    if verdicts:
        for code, document in stored.read(job.path(stage, number, "documents")):
            if code in verdicts:
                entries.add(code, comparison.rounds[round].entries(code, document, verdicts[code]))
    entries.write(job.entries(stage, round, number))


def tallies(job: Job, units: int) -> Iterator[dict[str, Any]]:
    """What was counted, pass by pass, in the order of units."""
    for stage in range(len(stages(job.recipe))):
        for unit in range(units):
            yield stored.read_json(job.path(stage, unit, "json"))
