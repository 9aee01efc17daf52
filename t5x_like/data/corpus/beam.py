"""The Beam engine: a recipe followed as an Apache Beam pipeline, on Dataflow, Flink, Spark, or this machine.

The functions are those of the local engine (data/corpus/passes.py, data/dedup/); only how documents meet differs: by
GroupByKey in place of files sorted on disk. Units of the input go through the passes whole, as there, each leaving the
same files under the same names, so the corpus is the same byte for byte. A pipeline that failed starts from the
beginning; one that ended is not run again.

Memory of a Beam worker: the documents of a unit, and what was said under one key: 24 bytes an entry and its value.
The commonest key of all is that under which near-duplicates become clusters, 48 bytes for each end of a pair.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import posixpath
import re
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import numpy as np
import xxhash
from fsspec.implementations.local import LocalFileSystem

from t5x_like.data.corpus import stored
from t5x_like.data.corpus.passes import UNIT, Job, by_rules, compared, read_unit, write_result
from t5x_like.data.corpus.recipe import stages
from t5x_like.data.corpus.tally import Tally
from t5x_like.data.corpus.trail import Trail
from t5x_like.data.dedup.base import Round, Said
from t5x_like.data.documents import Document
from t5x_like.data.pages.base import Unit
from t5x_like.data.prepare_report import Progress
from t5x_like.data.units import SPLITS
from t5x_like.errors import Exit, UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
    from apache_beam.pvalue import TaggedOutput
except ImportError:
    raise UserError(
        "the Beam engine needs the package apache-beam",
        where="--engine=beam",
        help="pip install '.[beam]'; or leave --engine=local",
    ) from None

_HERE = frozenset(
    {"DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner"}
)
"""Runners whose workers see this machine's files."""
_FETCHED = 256
"""Files that are fetched at a time."""


@dataclasses.dataclass(frozen=True)
class _Work:
    """What every Beam worker needs to know.

    Attributes:
      job: what is done.
      folder: for the files of passes, seen by all workers; a path or an fsspec address.
    """

    job: Job
    folder: str

    def name(self, stage: int, unit: int, suffix: str) -> str:
        return posixpath.join(self.folder, f"{stage:02d}", f"{unit:07d}.{suffix}")

    def input(self, unit: int, place: int) -> str:
        return posixpath.join(self.folder, "input", f"{unit:07d}.{place:04d}")


class Beam:
    """Follows a recipe as a Beam pipeline.

    Args:
      job: what is done, and where the result is to be.
      options: of the pipeline, such as `--runner=DataflowRunner`.
      folder: that this machine and all workers see; empty where the runner works on this machine.
      progress: is told what is being done.

    Raises:
      UserError: a runner that works elsewhere, and no folder.
    """

    def __init__(self, job: Job, options: Sequence[str], folder: str, progress: Progress):
        self._job, self._progress = job, progress
        self._options = PipelineOptions(list(options))
        standard = self._options.view_as(StandardOptions)
        # Beam's own default would download another runner before it falls back to this one.
        runner = standard.runner = standard.runner or "FnApiRunner"
        if not folder and runner not in _HERE:
            raise UserError(
                f"the workers of {runner} cannot see {job.partial}",
                where="--beam_folder",
                help="--beam_folder=gs://BUCKET/FOLDER, or another place that they and this machine see",
            )
        self._options.view_as(SetupOptions).save_main_session = False
        local = Path(job.partial) / "passes"
        mark = xxhash.xxh3_64_hexdigest((Path(job.partial) / "plan.json").read_bytes())
        self._folder = posixpath.join(folder, f"corpus-{mark}") if folder else str(local)
        self._elsewhere = bool(folder)

    def run(self, units: Iterable[Unit]) -> int:
        """Takes the units through all passes; returns how many they are. The last pass's files are the result."""
        job, last = self._job, len(stages(self._job.recipe)) - 1
        if (known := job.units) is not None and all(job.done(last, unit) for unit in range(known)):
            return known
        work = _Work(job, self._folder)
        self._progress.stage("Beam: listing the input")
        numbered = [_spooled(unit, work) for unit in units]
        if self._elsewhere:
            _check_seen([unit for unit, _ in numbered])
        self._progress.stage("Beam: running")
        logger = logging.getLogger(
            "apache_beam.runners.common"
        )  # logs all that is raised, with its traceback
        logger.addFilter(_untold)
        try:
            pipeline = beam.Pipeline(options=self._options)
            _build(pipeline, numbered, work)
            state = pipeline.run().wait_until_finish()
        except Exception as error:
            raise _told(error) from error
        finally:
            logger.removeFilter(_untold)
        if state not in (None, "DONE"):
            raise UserError(f"the Beam pipeline ended as {state}", code=Exit.IO_ERROR)
        self._fetch()
        shutil.rmtree(Path(self._job.partial) / "passes" / "input", ignore_errors=True)
        job.tell_units(len(numbered))
        return len(numbered)

    def _fetch(self) -> None:
        if not self._elsewhere:
            return
        fs, path = fsspec.core.url_to_fs(self._folder)
        wanted: list[tuple[str, str]] = []
        for stage in range(len(stages(self._job.recipe))):
            folder = self._job.folder(stage)
            folder.mkdir(parents=True, exist_ok=True)
            names = fs.ls(posixpath.join(path, f"{stage:02d}"), detail=False)
            wanted += ((name, str(folder / posixpath.basename(name))) for name in names)
        self._progress.stage("Beam: fetching the result", len(wanted))
        for begin in range(0, len(wanted), _FETCHED):  # at the same time, where the file system can
            some = wanted[begin : begin + _FETCHED]
            fs.get([name for name, _ in some], [local for _, local in some])
            self._progress.advance(len(some))
        fs.rm(path, recursive=True)


# ---- the pipeline


def _build(pipeline: Any, units: Sequence[tuple[Unit, tuple[int, ...]]], work: _Work) -> None:
    passed = (
        pipeline
        | "units" >> beam.Create(units)
        | "spread" >> beam.Reshuffle()
        | "pass 1" >> beam.FlatMap(_first_pass, work).with_outputs("entries", main="documents")
    )
    for stage, here in enumerate(stages(work.job.recipe)[:-1]):
        assert here.comparison is not None
        documents, entries = passed.documents, passed.entries
        joined = None
        for number, round in enumerate(here.comparison.rounds):
            name = f"{stage + 1} {here.comparison.name} {number + 1}"
            if joined is not None:
                entries = joined | f"say {name}" >> beam.FlatMap(_say_again, round)
            verdicts = (
                entries
                | f"key {name}" >> beam.Map(_as_it_is).with_output_types(tuple[bytes, tuple[int, int, bytes]])
                | f"meet {name}" >> beam.GroupByKey()
                | f"judge {name}" >> beam.FlatMap(_judge, round)
            )
            both = {"documents": documents, "verdicts": verdicts}
            joined = both | f"tell {name}" >> beam.CoGroupByKey()
        passed = joined | f"pass {stage + 2}" >> beam.FlatMap(_next_pass, work, stage + 1).with_outputs(
            "entries", main="documents"
        )


def _as_it_is(entry: Any) -> Any:
    return entry


def _first_pass(given: tuple[Unit, tuple[int, ...]], work: _Work) -> Iterator[Any]:
    unit, spooled = given
    tally, trail = _counting(work, 0)
    documents = read_unit(work.job, _whole(unit, spooled, work), tally)
    return _telling(_pass(work, 0, unit.number, documents, tally, trail))


def _next_pass(joined: tuple[int, Mapping[str, Any]], work: _Work, stage: int) -> Iterator[Any]:
    number, parts = joined
    tally, trail = _counting(work, stage)
    before = stages(work.job.recipe)[stage - 1]
    documents = compared(before, _documents(parts), _heard(parts), tally)
    return _telling(_pass(work, stage, number, documents, tally, trail))


def _counting(work: _Work, stage: int) -> tuple[Tally, _Trail | None]:
    trail = _Trail(carried=stage > 0) if work.job.trail else None
    return Tally(trail=trail), trail


class _Trail(Trail):
    """A trail in memory."""

    def __init__(self, carried: bool):
        self._file = io.BytesIO()
        super().__init__(self._file, carried)

    def finish(self) -> bytes:
        self.close()
        return self._file.getvalue()


def _pass(
    work: _Work,
    stage: int,
    number: int,
    documents: Iterator[tuple[int, Document]],
    tally: Tally,
    trail: _Trail | None,
) -> Iterator[Any]:
    """A unit through one pass: its documents as one element, its entries, and its files."""
    here = stages(work.job.recipe)[stage]
    kept = by_rules(documents, here, tally)
    if here.comparison is None:
        with tempfile.TemporaryDirectory() as folder:
            paths = {split: Path(folder) / split for split in SPLITS}
            write_result(work.job.recipe, kept, paths, tally)
            for split, path in paths.items():
                if path.exists():
                    _put(work.name(stage, number, f"{split}.array_record"), path.read_bytes())
    else:
        held = list(kept)
        for code, document in held:
            yield from _said(code, here.comparison.rounds[0].entries(code, document, ()), "entries")
        yield number, stored.dumps(held)
    if trail is not None:
        _put(work.name(stage, number, "texts"), trail.finish())
    _put(work.name(stage, number, "json"), json.dumps(tally.as_data()).encode())


def _said(code: int, entries: Iterable[tuple[bytes, bytes]], tag: str | None = None) -> Iterator[Any]:
    """Entries as elements: a key, then who said it, in what place, what."""
    for place, (key, value) in enumerate(entries):
        element = key, (code, place, value)
        yield element if tag is None else TaggedOutput(tag, element)


def _say_again(joined: tuple[int, Mapping[str, Any]], round: Round) -> Iterator[Any]:
    verdicts = _heard(joined[1])
    if verdicts:
        for code, document in _documents(joined[1]):
            if code in verdicts:
                yield from _said(code, round.entries(code, document, verdicts[code]))


def _judge(group: tuple[bytes, Iterable[tuple[int, int, bytes]]], round: Round) -> Iterator[Any]:
    key, entries = group
    said = _Said(entries)
    if len(said) > 1:
        for number, value in round.decide(key, said):
            yield number // UNIT, (number, value)


class _Said:
    """What was said under one key, in the order of documents, held in little memory."""

    def __init__(self, entries: Iterable[tuple[int, int, bytes]]):
        numbers, places, ends, self._values = array("Q"), array("Q"), array("Q", [0]), bytearray()
        for number, place, value in entries:
            numbers.append(number)
            places.append(place)
            self._values += value
            ends.append(len(self._values))
        self._numbers, self._ends = np.frombuffer(numbers, np.uint64), ends
        self._order = np.lexsort((np.frombuffer(places, np.uint64), self._numbers))

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Said]:
        for row in self._order:
            yield int(self._numbers[row]), bytes(self._values[self._ends[row] : self._ends[row + 1]])


def _documents(parts: Mapping[str, Any]) -> Iterator[tuple[int, Document]]:
    (documents,) = parts["documents"]
    return stored.loads(documents)


def _heard(parts: Mapping[str, Any]) -> dict[int, list[bytes]]:
    """Verdicts by document: sorted, each once."""
    found: dict[int, set[bytes]] = {}
    for number, value in parts["verdicts"]:
        found.setdefault(number, set()).add(value)
    return {number: sorted(values) for number, values in found.items()}


# ---- files that all workers see


def _put(name: str, data: bytes) -> None:
    """Writes a file whole or not at all; what was there is replaced, as Beam may do a piece of work twice."""
    fs, path = fsspec.core.url_to_fs(name)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    if isinstance(fs, LocalFileSystem):
        with tempfile.NamedTemporaryFile(dir=posixpath.dirname(path), prefix=".", delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
    else:
        fs.pipe_file(path, data)


def _spooled(unit: Unit, work: _Work) -> tuple[Unit, tuple[int, ...]]:
    """The unit without the text that it carries, and which of its pieces carried some.

    Text and JSONL files are cut on this machine; a pipeline's graph is no place for what they hold, so it goes into
    files.
    """
    pieces, spooled = [], []
    for place, (file, block) in enumerate(unit.pieces):
        if block.data:
            _put(work.input(unit.number, place), block.data)
            spooled.append(place)
            block = dataclasses.replace(block, data=b"")
        pieces.append((file, block))
    return dataclasses.replace(unit, pieces=tuple(pieces)), tuple(spooled)


def _whole(unit: Unit, spooled: Sequence[int], work: _Work) -> Unit:
    pieces = list(unit.pieces)
    for place in spooled:
        with fsspec.open(work.input(unit.number, place), "rb") as file:
            data = cast(IO[bytes], file).read()
        pieces[place] = pieces[place][0], dataclasses.replace(pieces[place][1], data=data)
    return dataclasses.replace(unit, pieces=tuple(pieces))


def _check_seen(units: Sequence[Unit]) -> None:
    for unit in units:
        for file, block in unit.pieces:
            if (block.span is not None or block.rows is not None) and "://" not in file.url:
                raise UserError(
                    "the workers cannot see a file of this machine",
                    where=file.name,
                    help="copy the input to where they read it: --input=gs://BUCKET/...",
                )


_MARK = "t5x_like-error "


def _untold(record: logging.LogRecord) -> bool:
    """Whether a message of Beam's log says something that `_told` does not say in a line."""
    return _MARK not in record.getMessage()


def _telling(elements: Iterator[Any]) -> Iterator[Any]:
    """Beam hands on nothing of an error but its text: ours are put into it so that they can be read out again."""
    try:
        yield from elements
    except UserError as error:
        content = json.dumps([error.what, error.where, error.help, int(error.code)])
        raise RuntimeError(f"{_MARK}{content.encode().hex()}.") from error


def _told(error: BaseException) -> UserError:
    """The error of ours inside of Beam's, or one that says what Beam said."""
    if isinstance(error, UserError):
        return error
    if found := re.search(rf"{_MARK}([0-9a-f]+)\.", str(error)):
        what, where, help, code = json.loads(bytes.fromhex(found[1]))
        return UserError(what, where=where, help=help, code=Exit(code))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(
        f"the Beam pipeline failed: {lines[-1]}",
        where="--engine=beam",
        help="its log says more; the same command starts it again",
        code=Exit.IO_ERROR,
    )
