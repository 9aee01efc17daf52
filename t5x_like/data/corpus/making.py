"""Makes a corpus: asked for, looked for, followed to its end (data/corpus/assembling.py says what it is)."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from t5x_like import typed
from t5x_like.data.cleaning.base import Rule
from t5x_like.data.cleaning.files import ReadsFiles
from t5x_like.data.cleaning.files import digest as list_digest
from t5x_like.data.corpus import exchange
from t5x_like.data.corpus.assembling import (
    assemble,
    shards_of,
    tokens_of,
    tokens_of_steps,
    versions,
    write_json,
)
from t5x_like.data.corpus.local import Local
from t5x_like.data.corpus.passes import EXTRACT, Job, tallies
from t5x_like.data.corpus.recipe import Corpus, is_comparison
from t5x_like.data.corpus.summary import Summary
from t5x_like.data.corpus.tally import Tally, total
from t5x_like.data.documents import Document, Problem, Settings, nothing_left
from t5x_like.data.pages import reading
from t5x_like.data.pages.base import RawPage
from t5x_like.data.partial import (
    check_name,
    difference,
    digest,
    held,
    is_ours,
    refuse_foreign,
    refuse_inside,
    remove,
    replace,
    start_or_continue,
)
from t5x_like.data.preparation import AnyTraining
from t5x_like.data.preparation import Arguments as Preparation
from t5x_like.data.prepare_report import Progress
from t5x_like.data.sources import SourceFile
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.data.units import default_workers
from t5x_like.data.workers import Pool
from t5x_like.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is asked for.

    Attributes:
      input: names of sources (data/sources.py).
      output: local folder to make.
      recipe: what is done to the documents.
      read: how they are read, and what happens to bad ones.
      tokenizer: an existing tokenizer's file or folder.
      training: a tokenizer to train; None of both makes no token dataset.
      tokenizer_sample_bytes: as in `preparation.Arguments`.
      count_tokens: count the tokens of every step, where there is a tokenizer; else estimate them.
      tfds_data_dir: where TFDS keeps prepared datasets.
      workers: processes; 0 takes one for each core.
      overwrite: replace a corpus or an unfinished one that was made with other arguments.
      unit_bytes: size of a unit of work; by default from the size of the input.
      range_bytes: entries that a comparison holds in memory at once, for each worker.
      engine: what takes the documents through the recipe; the corpus is the same.
      beam_options: of the pipeline, for the Beam engine.
      beam_folder: that Beam's workers and this machine see, where they are not this machine.
    """

    input: tuple[str, ...]
    output: str
    recipe: Corpus
    read: Settings = Settings()
    tokenizer: str | None = None
    training: AnyTraining | None = None
    tokenizer_sample_bytes: int | None = None
    count_tokens: bool = True
    tfds_data_dir: str | None = None
    workers: int = 0
    overwrite: bool = False
    unit_bytes: int | None = None
    range_bytes: int = exchange.RANGE_BYTES
    engine: Literal["local", "beam"] = "local"
    beam_options: tuple[str, ...] = ()
    beam_folder: str = ""


def make(arguments: Arguments, *, quiet: bool = False) -> Summary:
    """Makes the corpus, or finds it made; returns what it holds.

    Raises:
      UserError: input of which nothing can be read, arguments that cannot be, a corpus made with other arguments.
    """
    begun = time.monotonic()
    _check(arguments)
    output = Path(arguments.output)
    files, missing = reading.find(
        arguments.input,
        text_field=arguments.read.text_field,
        tfds_data_dir=arguments.tfds_data_dir,
        bad_input=arguments.read.bad_input,
    )
    request = _request(arguments, files, missing)
    partial = output.with_name(output.name + ".partial")
    if (output / "corpus.json").is_file() and not arguments.overwrite:
        summary = _made_before(output, request)
        if is_ours(partial):  # killed while it was being removed
            with held(partial):
                remove(partial)
        return summary
    refuse_foreign(output, "corpus.json", "a corpus")
    refuse_inside(output, arguments.input, files)
    if arguments.engine == "local":
        _try_rules(arguments.recipe)
    unit_bytes = arguments.unit_bytes or reading.default_unit_bytes(files)
    workers = arguments.workers or default_workers(files)
    preparation = _preparation(arguments, workers)
    job = Job(
        recipe=arguments.recipe, read=arguments.read, partial=str(partial), trail=request["count_tokens"]
    )
    with held(partial), Progress(sum(file.size for file in files), quiet=quiet) as progress:
        # The tokenizer may be changed after all: what was done is kept.
        plan = {key: value for key, value in request.items() if key != "tokenizer"} | {
            "unit_bytes": unit_bytes,
            "range_bytes": arguments.range_bytes,
            "versions": versions(),
        }
        start_or_continue(
            partial, plan, arguments.overwrite, lambda folder: any(folder.glob("passes/*/*.json"))
        )
        work = reading.units(files, arguments.read, unit_bytes)
        if arguments.engine == "beam":
            from t5x_like.data.corpus.beam import Beam

            units = Beam(job, arguments.beam_options, arguments.beam_folder, progress).run(work)
        else:
            with Pool(workers) as pool:
                units = Local(job, pool, progress, arguments.range_bytes).run(work)
        tally = Tally()
        for problem in missing:
            tally.problem(problem)
        tally.add(total(tallies(job, units)).as_data())
        if not tally.counts[f"{EXTRACT}/in/documents"]:
            shutil.rmtree(partial / "passes")  # nothing worth keeping for other arguments
            kinds = Counter({key.split()[0]: count for key, count in tally.problems.items()})
            raise nothing_left(kinds, Problem(*tally.listed[0]) if tally.listed else None)
        shards = shards_of(job, units)
        tokens, counting = None, {}
        if preparation is not None:
            tokens = tokens_of(job, shards, preparation, request["tokenizer"], quiet=quiet)
            if tokens is not None and job.trail:
                with Pool(workers) as pool:
                    counted, counting = tokens_of_steps(job, units, pool, progress)
                tally.counts.update(counted)
        progress.stage("putting the parts together")
        result = assemble(job, files, shards, tally, tokens, request)
        seconds = time.monotonic() - begun
        times = {
            "steps": dict(sorted(tally.seconds.items())),
            "counting_tokens": dict(sorted(counting.items())),
            "wall": seconds,
            "workers": workers,
        }
        write_json(result / "throughput.json", times)
        replace(result, output)
        remove(partial)
    return Summary.open(output)


# ---- arguments and what is there already


def _check(arguments: Arguments) -> None:
    check_name(arguments.output, "make it locally, then copy the folder")
    if arguments.engine == "local" and (arguments.beam_options or arguments.beam_folder):
        raise UserError("options of the Beam engine, and the engine is local", help="--engine=beam")
    if arguments.workers < 0:
        raise UserError("workers must be 0 (one for each core) or more", where="--workers")
    arguments.recipe.check()
    if arguments.training is not None and arguments.tokenizer is None:
        arguments.training.check()


def _try_rules(recipe: Corpus) -> None:
    """Shows every rule a document, so that a list or a package that is missing is told before hours of work."""
    recipe.extractor(RawPage("<p>A page."))
    for step in recipe.steps:
        if not is_comparison(step):
            cast(Rule, step)(Document("A page."))


def _request(arguments: Arguments, files: Sequence[SourceFile], missing: Sequence[Problem]) -> dict[str, Any]:
    """Everything that decides the corpus; equal requests give equal ones."""
    training, tokenizer = arguments.training, None
    if arguments.tokenizer is not None:
        tokenizer = {"fingerprint": load_tokenizer(arguments.tokenizer).fingerprint}
    elif training is not None:
        tokenizer = {
            "model_type": training.model_type,
            **dataclasses.asdict(training),
            "sample_bytes": arguments.tokenizer_sample_bytes,
        }
    return {
        "recipe": typed.to_data(arguments.recipe),
        "rules": arguments.recipe.version,
        "lists": {
            f"{place} {step.name}": [list_digest(name) for name in names]
            for place, step in enumerate(arguments.recipe.steps)
            if isinstance(step, ReadsFiles) and (names := list(step.files_read()))
        },
        "read": dataclasses.asdict(arguments.read),
        "tokenizer": tokenizer,
        "count_tokens": tokenizer is not None and arguments.count_tokens,
        "input": [
            {"name": file.name, "bytes": file.size, "probe": file.probe, "records": file.records}
            for file in files
        ],
        "missing": [problem.file for problem in missing],
    }


def _preparation(arguments: Arguments, workers: int) -> Preparation | None:
    if arguments.tokenizer is None and arguments.training is None:
        return None
    return Preparation(
        input=(),
        output="",
        tokenizer=arguments.tokenizer,
        training=arguments.training or Training(),
        tokenizer_sample_bytes=arguments.tokenizer_sample_bytes,
        workers=workers,
    )


def _made_before(output: Path, request: dict[str, Any]) -> Summary:
    summary = Summary.open(output, help="another --output, or --overwrite to make it again")
    if summary.data["request"] != digest(request):
        raise UserError(
            "a corpus made from other input or with other arguments is there"
            + difference(summary.data["arguments"], request),
            where=str(output),
            help="another --output, or --overwrite to replace it",
        )
    return dataclasses.replace(summary, made_before=True)
