"""Makes a corpus: from pages to a text dataset, a token dataset, and what is to be known of them.

OUTPUT/
  corpus.json               recipe, funnel, distributions, problems, splits
  recipe.json               the recipe alone, to be given to --config again
  samples.jsonl             documents that were rejected, changed, kept, and near-duplicates, for people
  rejections.jsonl          what was wrong with the input, by file and byte
  throughput.json           seconds of every step; the one file that differs from run to run
  t5x_like_corpus/NAME/1.0.0/   the text dataset in TFDS's layout, with all that is known of each document
  tokens/                   the token dataset, where a tokenizer was asked for; its documents are in the same order
"""

from __future__ import annotations

import dataclasses
import glob
import importlib.metadata
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5x_like import typed
from t5x_like.data import sources, text_dataset
from t5x_like.data import workers as processes
from t5x_like.data.corpus import exchange
from t5x_like.data.corpus.local import Local
from t5x_like.data.corpus.passes import EXTRACT, Job, label
from t5x_like.data.corpus.recipe import Corpus, all_steps, stages
from t5x_like.data.corpus.summary import Summary
from t5x_like.data.corpus.tally import Tally, total
from t5x_like.data.documents import Problem, Settings, nothing_left
from t5x_like.data.pages import reading
from t5x_like.data.partial import difference, digest, held, replace, start_or_continue
from t5x_like.data.preparation import AnyTraining, prepare
from t5x_like.data.preparation import Arguments as Preparation
from t5x_like.data.prepare_report import Progress
from t5x_like.data.sources import SourceFile
from t5x_like.data.token_writer import write_durably
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.units import LISTED, SPLITS
from t5x_like.errors import Exit, UserError

DATASET = "t5x_like_corpus"
"""Name of the text datasets; a recipe's name is the configuration."""
FORMAT = "t5x_like corpus"
FEATURES: dict[str, type] = {
    "text": str,
    "url": str,
    "timestamp": str,
    "source": str,
    "position": int,
    "language": str,
    "language_probability": float,
    "cluster": str,
    "hash": str,
    "rules": str,
}
"""Of the text dataset (`passes.record`)."""


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
      tfds_data_dir: where TFDS keeps prepared datasets.
      workers: processes; 0 takes one for each core.
      overwrite: replace a corpus or an unfinished one that was made with other arguments.
      unit_bytes: size of a unit of work; by default from the size of the input.
      range_bytes: entries that a comparison holds in memory at once, for each worker.
    """

    input: tuple[str, ...]
    output: str
    recipe: Corpus
    read: Settings = Settings()
    tokenizer: str | None = None
    training: AnyTraining | None = None
    tokenizer_sample_bytes: int | None = None
    tfds_data_dir: str | None = None
    workers: int = 0
    overwrite: bool = False
    unit_bytes: int | None = None
    range_bytes: int = exchange.RANGE_BYTES


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
        if partial.exists():  # killed while it was being removed
            with held(partial):
                shutil.rmtree(partial)
        return summary
    _refuse_foreign(output)
    unit_bytes = arguments.unit_bytes or reading.default_unit_bytes(files)
    workers = arguments.workers or processes.cores()
    job = Job(recipe=arguments.recipe, read=arguments.read, partial=str(partial))
    with held(partial), Progress(sum(file.size for file in files), quiet=quiet) as progress:
        plan = request | {
            "unit_bytes": unit_bytes,
            "range_bytes": arguments.range_bytes,
            "versions": _versions(),
        }
        start_or_continue(
            partial, plan, arguments.overwrite, lambda folder: any(folder.glob("passes/*/*.json"))
        )
        engine = Local(job, workers, progress, arguments.range_bytes)
        units = engine.run(reading.units(files, arguments.read, unit_bytes))
        tally = Tally()
        for problem in missing:
            tally.problem(problem)
        tally.add(total(engine.tallies(units)).as_data())
        if not tally.counts[f"{EXTRACT}/in/documents"]:
            shutil.rmtree(partial / "passes")  # nothing worth keeping for other arguments
            kinds = Counter({key.split()[0]: count for key, count in tally.problems.items()})
            raise nothing_left(kinds, Problem(*tally.listed[0]) if tally.listed else None)
        shards = _shards(job, units, tally)
        tokens = _tokens(arguments, shards, partial, workers, quiet)
        progress.stage("putting the parts together")
        _assemble(arguments, job, files, shards, tally, tokens, request, partial)
        seconds = time.monotonic() - begun
        times = {"steps": dict(sorted(tally.seconds.items())), "wall": seconds, "workers": workers}
        _write_json(partial / "result" / "throughput.json", times)
        replace(partial / "result", output)
    shutil.rmtree(partial)
    return Summary.open(output)


# ---- arguments and what is there already


def _check(arguments: Arguments) -> None:
    if not arguments.output:
        raise UserError("--output is missing", help="--output=data/mine")
    if "://" in arguments.output:
        raise UserError(
            "--output must be a local folder",
            where=arguments.output,
            help="make it locally, then copy the folder",
        )
    if arguments.workers < 0:
        raise UserError("workers must be 0 (one for each core) or more", where="--workers")
    arguments.recipe.check()
    if arguments.training is not None and arguments.tokenizer is None:
        arguments.training.check()


def _request(arguments: Arguments, files: Sequence[SourceFile], missing: Sequence[Problem]) -> dict[str, Any]:
    """Everything that decides the corpus; equal requests give equal ones."""
    training = arguments.training
    tokenizer: Any = arguments.tokenizer
    if tokenizer is None and training is not None:
        tokenizer = {
            "model_type": training.model_type,
            **dataclasses.asdict(training),
            "sample_bytes": arguments.tokenizer_sample_bytes,
        }
    return {
        "recipe": typed.to_data(arguments.recipe),
        "rules": arguments.recipe.version,
        "read": dataclasses.asdict(arguments.read),
        "tokenizer": tokenizer,
        "input": [
            {"name": file.name, "bytes": file.size, "probe": file.probe, "records": file.records}
            for file in files
        ],
        "missing": [problem.file for problem in missing],
    }


def _made_before(output: Path, request: dict[str, Any]) -> Summary:
    summary = Summary.open(output)
    if summary.data["request"] != digest(request):
        raise UserError(
            "a corpus made from other input or with other arguments is there"
            + difference(summary.data["arguments"], request),
            where=str(output),
            help="another --output, or --overwrite to replace it",
        )
    return dataclasses.replace(summary, made_before=True)


def _refuse_foreign(output: Path) -> None:
    """Never writes over a folder that is no corpus."""
    if not output.exists() or (output / "corpus.json").is_file():
        return
    if output.is_file() or any(output.iterdir()):
        raise UserError(
            "the output exists and is not a corpus",
            where=str(output),
            help="another --output, or remove it",
            code=Exit.CANNOT_WRITE,
        )


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("numpy", "xxhash", "scipy", "zstandard")}


# ---- the finished corpus


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file of the text dataset: where a unit left it, its name, documents and bytes."""

    path: Path
    name: str
    documents: int
    bytes: int


def _shards(job: Job, units: int, tally: Tally) -> dict[str, list[_Shard]]:
    last = len(stages(job.recipe)) - 1
    found: dict[str, list[tuple[Path, int, int]]] = {split: [] for split in SPLITS}
    for unit in range(units):
        counts = json.loads(job.path(last, unit, "json").read_bytes())["counts"]
        for split in SPLITS:
            if documents := counts.get(f"split/{split}/documents", 0):
                path = job.path(last, unit, f"{split}.array_record")
                found[split].append((path, documents, counts[f"split/{split}/record_bytes"]))
    return {
        split: [
            _Shard(path, text_dataset.shard_name(DATASET, split, index, len(entries)), documents, size)
            for index, (path, documents, size) in enumerate(entries)
        ]
        for split, entries in found.items()
    }


def _tokens(
    arguments: Arguments, shards: dict[str, list[_Shard]], partial: Path, workers: int, quiet: bool
) -> dict[str, Any] | None:
    """The token dataset, made by `prepare` of the shards; None where none is asked for, or nothing is there."""
    if arguments.tokenizer is None and arguments.training is None:
        return None
    if not shards["train"]:
        return None
    folder, result = partial / "tokens", partial / "result" / "tokens"
    if result.is_dir() and not folder.exists():  # killed on the way to the result
        result.rename(folder)
    files = {
        split: [
            dataclasses.replace(file, name=shard.name)
            for shard in entries
            for file in sources.find([glob.escape(str(shard.path))])
        ]
        for split, entries in shards.items()
    }
    summary = prepare(
        Preparation(
            input=(),
            output=str(folder),
            tokenizer=arguments.tokenizer,
            training=arguments.training or Training(),
            tokenizer_sample_bytes=arguments.tokenizer_sample_bytes,
            read=Settings(max_document_bytes=4 * arguments.read.max_document_bytes + (1 << 16)),
            workers=workers,
        ),
        found=(files["train"], files["validation"]),
        quiet=quiet,
    )
    return {"splits": summary.splits, "next_config": summary.next_config, "vocab_size": summary.vocab_size}


def _assemble(
    arguments: Arguments,
    job: Job,
    files: Sequence[SourceFile],
    shards: dict[str, list[_Shard]],
    tally: Tally,
    tokens: dict[str, Any] | None,
    request: dict[str, Any],
    partial: Path,
) -> None:
    """Fills OUTPUT.partial/result. Can be done again: what units left stays where it is."""
    result, recipe = partial / "result", arguments.recipe
    shutil.rmtree(result, ignore_errors=True)
    folder = result / DATASET / recipe.name / text_dataset.VERSION
    folder.mkdir(parents=True)
    for entries in shards.values():
        for shard in entries:
            try:
                os.link(shard.path, folder / shard.name)
            except OSError:  # a file system without links
                shutil.copyfile(shard.path, folder / shard.name)
    text_dataset.write_description(
        folder,
        DATASET,
        {split: [(shard.documents, shard.bytes) for shard in entries] for split, entries in shards.items()},
        f"Documents by the recipe {recipe.version} of t5x_like.",
        config=recipe.name,
        features=FEATURES,
    )
    if (partial / "tokens").is_dir():
        (partial / "tokens").rename(result / "tokens")
    data = {
        "format": FORMAT,
        "version": 1,
        "request": digest(request),
        "arguments": {key: value for key, value in request.items() if key != "input"},
        "rules": recipe.version,
        "dataset": f"{DATASET}/{recipe.name}",
        "input": request["input"][:LISTED],
        "input_files": len(files),
        "input_bytes": sum(file.size for file in files),
        **described(job, tally, tokens),
        "versions": _versions(),
    }
    _write_json(result / "recipe.json", typed.to_data(recipe))
    _write_lines(result / "samples.jsonl", tally.samples())
    _write_lines(result / "rejections.jsonl", [dataclasses.asdict(Problem(*entry)) for entry in tally.listed])
    _write_json(result / "corpus.json", data)


def described(job: Job, tally: Tally, tokens: dict[str, Any] | None) -> dict[str, Any]:
    """What was counted, as corpus.json has it.

    Tokens of the funnel are estimates: characters times the tokens that a character of the result has.
    """
    ratio = None
    if tokens is not None:
        counted = sum(split["tokens"] for split in tokens["splits"].values())
        ratio = counted / max(tally.counts["characters"], 1)
    steps = [EXTRACT, *(label(place, step) for place, step in enumerate(all_steps(job.recipe)))]
    funnel = []
    for step in steps:
        sides = {}
        for side in ("in", "out"):
            sides[side] = {
                unit: tally.counts[f"{step}/{side}/{unit}"] for unit in ("documents", "characters", "words")
            }
            if ratio is not None and (step, side) != (EXTRACT, "in"):
                sides[side]["tokens"] = round(ratio * sides[side]["characters"])
        rejected = tally.group(f"{step}/rejected")
        funnel.append(
            {"step": step, **sides, "changed": tally.counts[f"{step}/changed"], "rejected": rejected}
        )
    return {
        "funnel": funnel,
        "tokens_per_character": ratio,
        "problems": dict(sorted(tally.problems.items())),
        "splits": {
            split: {key: tally.counts[f"split/{split}/{key}"] for key in ("documents", "bytes")}
            | ({"tokens": tokens["splits"][split]["tokens"]} if tokens else {})
            for split in SPLITS
        },
        "tokens": tokens,
        "languages": tally.group("language"),
        "lengths": tally.group("length"),
        "clusters": {
            "clusters": tally.counts["clusters/clusters"],
            "documents": tally.counts["clusters/documents"],
            "sizes": tally.group("clusters/size"),
        },
    }


def _write_json(path: Path, data: Any) -> None:
    write_durably(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(entry, ensure_ascii=False, sort_keys=True) for entry in entries)
    write_durably(path, "".join(line + "\n" for line in lines).encode())
