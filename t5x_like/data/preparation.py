"""`prepare`: from sources to a token dataset, in parallel, resumable, the same bytes however it ran.

The input is cut into units (data/units.py), each of which becomes one file in `OUTPUT.partial/units`. When all are
there, their contents are put together in order and the finished folder is renamed to OUTPUT. Killed at any moment,
the same command goes on with what is missing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5x_like.data import changes, sources, text_dataset
from t5x_like.data.byte_bpe import ByteBPETraining
from t5x_like.data.documents import Problem, Settings, nothing_left
from t5x_like.data.partial import (
    check_name,
    difference,
    digest,
    held,
    refuse_foreign,
    remove,
    replace,
    start_or_continue,
)
from t5x_like.data.prepare_report import Progress, Summary
from t5x_like.data.sampling import tokenizer_sample
from t5x_like.data.sources import SourceFile
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.token_writer import TokenDatasetWriter, write_durably
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import Tokenizer, load_tokenizer
from t5x_like.data.units import (
    LISTED,
    SPLITS,
    Job,
    default_unit_bytes,
    default_workers,
    encode_units,
    read_unit,
)
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.errors import Exit, UserError

AnyTraining = Training | WordPieceTraining | ByteBPETraining

_TEXT_RECORD = "t5x_like.json"
"""In a text dataset of ours: what it was made from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What `prepare` is asked to do.

    Attributes:
      input: names of sources (data/sources.py).
      output: local folder to make.
      tokenizer: an existing tokenizer's file or folder; None trains one.
      training: the tokenizer to train.
      tokenizer_sample_bytes: bytes of text that the tokenizer is trained on; by default 1000 for each id of the
        vocabulary, at least 4 MB.
      read: how documents are read and what happens to bad ones.
      tfds_data_dir: where TFDS keeps prepared datasets.
      validation_fraction: share of documents, by a hash of their text, in the validation split.
      validation_input: sources that are the validation split; `input` is then all for training.
      write_text_dataset: also write the documents as a TFDS dataset into this folder.
      workers: processes; 0 takes one for each core.
      overwrite: replace a dataset or an unfinished preparation that was made with other arguments.
      unit_bytes: size of a unit; by default from the size of the input.
    """

    input: tuple[str, ...]
    output: str
    tokenizer: str | None = None
    training: AnyTraining = Training()
    tokenizer_sample_bytes: int | None = None
    read: Settings = Settings()
    tfds_data_dir: str | None = None
    validation_fraction: float = 0.02
    validation_input: tuple[str, ...] = ()
    write_text_dataset: str | None = None
    workers: int = 0
    overwrite: bool = False
    unit_bytes: int | None = None

    @property
    def sample_bytes(self) -> int:
        """`tokenizer_sample_bytes`, its default worked out."""
        return self.tokenizer_sample_bytes or max(1000 * self.training.vocab_size, 4_000_000)


def prepare(
    arguments: Arguments,
    *,
    found: tuple[Sequence[SourceFile], Sequence[SourceFile]] | None = None,
    quiet: bool = False,
) -> Summary:
    """Makes the token dataset, or finds it made; returns what it holds.

    Args:
      arguments: see `Arguments`.
      found: files for training and files held out, instead of `arguments.input` and `validation_input`.
      quiet: show no progress.

    Raises:
      UserError: input that cannot be read, arguments that cannot be, a dataset made with other arguments.
    """
    started = time.monotonic()
    _check(arguments)
    output = Path(arguments.output)
    if found is None and arguments.validation_input:
        found = _find(arguments.input, arguments), _find(arguments.validation_input, arguments)
    training_files = None if found is None else len(found[0])
    files = _find(arguments.input, arguments) if found is None else [*found[0], *found[1]]
    existing = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    request = _request(arguments, files, existing)
    if training_files is not None:
        request["training_files"] = training_files
    text_made = _text_is_made(arguments, request)
    if (output / "manifest.json").is_file() and not arguments.overwrite:
        summary = _made_before(output, request)
        if text_made:
            return summary
    else:
        refuse_foreign(output, "manifest.json", "a token dataset")
    partial = output.with_name(output.name + ".partial")
    size = sum(file.size for file in files)
    with held(partial), Progress(size, quiet=quiet) as progress:
        job = Job(
            files=tuple(files),
            read=arguments.read,
            partial=str(partial),
            validation_fraction=arguments.validation_fraction,
            training_files=training_files,
            keep_text=arguments.write_text_dataset is not None,
        )
        unit_bytes = arguments.unit_bytes or default_unit_bytes(files)
        plan = request | {"unit_bytes": unit_bytes, "keep_text": job.keep_text, "versions": _versions()}
        start_or_continue(partial, plan, arguments.overwrite, _begun)
        (partial / "units").mkdir(exist_ok=True)
        fraction = arguments.validation_fraction if training_files is None else 0.0
        tokenizer = _tokenizer(partial, arguments, files[:training_files], fraction, existing, progress)
        units = encode_units(job, unit_bytes, arguments.workers or default_workers(files), progress)
        progress.stage("putting the parts together")
        summary = _assemble(job, units, tokenizer, request, arguments, output)
        remove(partial)
    return dataclasses.replace(summary, seconds=time.monotonic() - started)


# ---- arguments and what is there already


def _find(names: Sequence[str], arguments: Arguments) -> list[SourceFile]:
    return sources.find(names, text_field=arguments.read.text_field, tfds_data_dir=arguments.tfds_data_dir)


def _check(arguments: Arguments) -> None:
    check_name(arguments.output, "prepare locally, then copy the folder")
    if not 0 <= arguments.validation_fraction < 1:
        raise UserError(
            f"validation_fraction is {arguments.validation_fraction}, expected at least 0 and below 1",
            where="--validation_fraction",
        )
    if arguments.read.max_document_bytes < 1:
        raise UserError("max_document_bytes must be positive", where="--max_document_bytes")
    if arguments.workers < 0:
        raise UserError("workers must be 0 (one for each core) or more", where="--workers")
    if arguments.tokenizer is None:
        arguments.training.check()


def _request(arguments: Arguments, files: Sequence[SourceFile], existing: Tokenizer | None) -> dict[str, Any]:
    """Everything that decides the tokens; equal requests give equal datasets."""
    training = arguments.training
    tokenizer: dict[str, Any] = {
        "model_type": training.model_type,
        **dataclasses.asdict(training),
        "sample_bytes": arguments.sample_bytes,
    }
    return {
        "tokenizer": {"fingerprint": existing.fingerprint} if existing else tokenizer,
        "read": dataclasses.asdict(arguments.read),
        "validation_fraction": arguments.validation_fraction,
        "input": [
            {"name": Path(file.name).name, "bytes": file.size, "probe": file.probe, "records": file.records}
            for file in files
        ],
    }


def _made_before(output: Path, request: dict[str, Any]) -> Summary:
    dataset = TokenDataset.open(str(output))
    provenance = dataset.manifest["provenance"]
    if provenance.get("request") != digest(request):
        raise UserError(
            "a token dataset made from other input or with other arguments is there"
            + difference(provenance.get("arguments", {}), request)
            + _changed_files(provenance.get("input", []), request["input"]),
            where=str(output),
            help="another --output, or --overwrite to replace it",
        )
    return _summary(str(output), dataset.manifest, made_before=True)


def _changed_files(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    """Which input files are others than those that the dataset was made from; it names the first `LISTED`."""
    names = [{**file, "name": Path(file["name"]).name} for file in old]
    found = changes.inputs(names, new[:LISTED])
    return "".join(f"\n  {line}" for line in found[: changes.MOST])


def _text_is_made(arguments: Arguments, request: dict[str, Any]) -> bool:
    """Whether no text dataset is asked for, or the one asked for is there.

    Raises:
      UserError: something else is in its folder.
    """
    if arguments.write_text_dataset is None:
        return True
    folder = Path(arguments.write_text_dataset)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        ours = json.loads((folder / _TEXT_RECORD).read_bytes())["request"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = None
    if ours == digest(request):
        return True
    if ours is None or not arguments.overwrite:
        raise UserError(
            "the folder for the text dataset is not empty, and not from the same input and arguments",
            where=str(folder),
            help="another --write_text_dataset" + (", or --overwrite" if ours else ""),
            code=Exit.CANNOT_WRITE,
        )
    return False


def _versions() -> dict[str, str]:
    return {
        name: importlib.metadata.version(name) for name in ("sentencepiece", "tokenizers", "numpy", "xxhash")
    }


def _begun(partial: Path) -> bool:
    return any((partial / "units").glob("*.safetensors"))


# ---- tokenizer


def _tokenizer(
    partial: Path,
    arguments: Arguments,
    files: Sequence[SourceFile],
    validation_fraction: float,
    existing: Tokenizer | None,
    progress: Progress,
) -> Tokenizer:
    folder = partial / "tokenizer"
    if not folder.is_dir():
        if existing is None:
            progress.stage("reading a sample for the tokenizer")
            sample = tokenizer_sample(files, arguments.read, arguments.sample_bytes, validation_fraction)
            progress.stage(f"training the tokenizer on {sum(map(len, sample)) / 1e6:.1f} MB of text")
            existing = arguments.training.train(sample)
        temporary = partial / "tokenizer.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        existing.save(temporary)
        temporary.rename(folder)
    return load_tokenizer(folder)


# ---- the finished dataset


def _assemble(
    job: Job, units: int, tokenizer: Tokenizer, request: dict[str, Any], arguments: Arguments, output: Path
) -> Summary:
    folder = Path(job.partial) / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = TokenDatasetWriter(folder, tokenizer, SPLITS)
    totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    shards: dict[str, list[tuple[Path, int, int]]] = {split: [] for split in SPLITS}
    problems: Counter[str] = Counter()
    first: Problem | None = None
    with (folder / "rejections.jsonl").open("w") as rejections:
        for number in range(units):
            stats, arrays = read_unit(job.unit_path(number))
            problems.update(stats["problems"])
            for entry in stats["listed"]:
                problem = Problem(*entry)
                rejections.write(json.dumps(dataclasses.asdict(problem)) + "\n")
                first = first or problem
            for split in SPLITS:
                parts = (arrays[f"{split}/{part}"] for part in ("ids", "documents", "sentences"))
                writer.append(split, *parts)
                totals[split].update({k: stats[split][k] for k in ("documents", "bytes", "unknown")})
                if stats[split]["record_bytes"]:
                    documents, size = stats[split]["documents"], stats[split]["record_bytes"]
                    shards[split].append((job.text_path(number, split), documents, size))
    if not sum(total["documents"] for total in totals.values()):
        shutil.rmtree(Path(job.partial) / "units")  # nothing worth keeping for other arguments
        raise nothing_left(Counter({kind.split()[0]: count for kind, count in problems.items()}), first)
    provenance = {
        "request": digest(request),
        "arguments": {key: value for key, value in request.items() if key != "input"},
        "input": [{"name": f.name, "bytes": f.size, "probe": f.probe} for f in job.files[:LISTED]],
        "input_files": len(job.files),
        "input_bytes": sum(file.size for file in job.files),
        "counts": {split: dict(total) for split, total in totals.items()},
        "problems": dict(sorted(problems.items())),
        "versions": _versions(),
    }
    if arguments.write_text_dataset is not None:
        _publish_text(Path(arguments.write_text_dataset), shards, request)
    manifest = writer.finish(provenance)
    replace(folder, output)
    return _summary(str(output), manifest)


def _publish_text(
    folder: Path, shards: dict[str, list[tuple[Path, int, int]]], request: dict[str, Any]
) -> None:
    """Puts the units' ArrayRecord files together as a TFDS dataset."""
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for split, entries in shards.items():
        for index, (path, _, _) in enumerate(entries):
            shutil.copyfile(path, temporary / text_dataset.shard_name("text", split, index, len(entries)))
    text_dataset.write_description(
        temporary,
        "text",
        {split: [(documents, size) for _, documents, size in entries] for split, entries in shards.items()},
        "Documents of " + ", ".join(file["name"] for file in request["input"][:20]),
    )
    write_durably(temporary / _TEXT_RECORD, json.dumps({"request": digest(request)}).encode())
    replace(temporary, folder)


def _summary(path: str, manifest: dict[str, Any], *, made_before: bool = False) -> Summary:
    provenance = manifest["provenance"]
    return Summary(
        path=path,
        fingerprint=manifest["fingerprint"],
        vocab_size=manifest["vocabulary"]["size"],
        next_config=_next_config(manifest["vocabulary"]),
        splits={
            split: {"tokens": entry["tokens"], **provenance["counts"][split]}
            for split, entry in manifest["splits"].items()
        },
        problems=provenance["problems"],
        made_before=made_before,
    )


def _next_config(vocabulary: dict[str, Any]) -> str:
    """A configuration that this vocabulary has the ids for, by the name that train knows it by."""
    if vocabulary.get("sentinels"):
        return "t5/tiny"
    if vocabulary.get("mask") is not None and vocabulary.get("cls") is not None:
        return "bert/tiny" if vocabulary["pad"] == 0 else "roberta/quickstart"
    return "t5/tiny"
