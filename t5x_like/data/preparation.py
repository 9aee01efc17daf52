"""`prepare`: from sources to a token dataset, in parallel, resumable, the same bytes however it ran.

The input is cut into units that depend on the input alone. A worker turns a unit into one file of tokens, offsets
and counts in `OUTPUT.partial/units`, written under another name and renamed; a unit whose file is there is done.
When all are, their contents are put together in order, and the finished folder is renamed to OUTPUT. Killed at
any moment, the same command goes on with the units that are missing.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import heapq
import importlib.metadata
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from t5x_like.data import sources, text_dataset
from t5x_like.data.documents import HARMLESS, Block, Document, Problem, Settings, blocks, parse
from t5x_like.data.prepare_report import Progress, Summary
from t5x_like.data.sources import SourceFile
from t5x_like.data.token_dataset import TokenDatasetWriter, token_dtype, write_durably
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import Tokenizer, load_tokenizer
from t5x_like.errors import Exit, UserError

SPLITS = ("train", "validation")
_LISTED = 1000
"""Problems of one kind that a unit lists one by one; the rest are counted."""

# Stored bytes of a compressed file stand for more text; this only sets the size of units.
_EXPANSION = {None: 1, "gzip": 3, "zstd": 3, "xz": 4}


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
      write_text_dataset: also write the documents as a TFDS dataset into this folder.
      workers: processes; 0 takes one for each core.
      overwrite: replace a dataset or an unfinished preparation that was made with other arguments.
      unit_bytes: size of a unit; by default from the size of the input.
    """

    input: tuple[str, ...]
    output: str
    tokenizer: str | None = None
    training: Training = Training()
    tokenizer_sample_bytes: int | None = None
    read: Settings = Settings()
    tfds_data_dir: str | None = None
    validation_fraction: float = 0.02
    write_text_dataset: str | None = None
    workers: int = 0
    overwrite: bool = False
    unit_bytes: int | None = None

    @property
    def sample_bytes(self) -> int:
        """`tokenizer_sample_bytes`, its default worked out."""
        return self.tokenizer_sample_bytes or max(1000 * self.training.vocab_size, 4_000_000)


def prepare(arguments: Arguments, *, quiet: bool = False) -> Summary:
    """Makes the token dataset, or finds it made; returns what it holds.

    Args:
      arguments: see `Arguments`.
      quiet: show no progress.

    Raises:
      UserError: input that cannot be read, arguments that cannot be, a dataset made with other arguments.
    """
    started = time.monotonic()
    _check(arguments)
    output = Path(arguments.output)
    files = sources.find(
        arguments.input, text_field=arguments.read.text_field, tfds_data_dir=arguments.tfds_data_dir
    )
    existing = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    request = _request(arguments, files, existing)
    if (output / "manifest.json").is_file() and not arguments.overwrite:
        return _made_before(output, request)
    _refuse_foreign(output, arguments.overwrite)
    partial = output.with_name(output.name + ".partial")
    with _locked(partial), Progress(sum(file.size for file in files), quiet=quiet) as progress:
        _start_or_continue(partial, request, arguments.overwrite)
        tokenizer = _tokenizer(partial, arguments, files, existing, progress)
        unit_bytes = arguments.unit_bytes or _unit_bytes(files)
        job = _Job(
            files=tuple(files),
            read=arguments.read,
            partial=str(partial),
            validation_fraction=arguments.validation_fraction,
            keep_text=arguments.write_text_dataset is not None,
        )
        units = _encode_units(job, unit_bytes, _workers(arguments.workers, files), progress)
        progress.stage("putting the parts together")
        summary = _assemble(job, units, tokenizer, request, arguments, output)
    shutil.rmtree(partial)
    return dataclasses.replace(summary, seconds=time.monotonic() - started)


# ---- arguments and what is there already


def _check(arguments: Arguments) -> None:
    if "://" in arguments.output:
        raise UserError(
            "--output must be a local folder",
            where=arguments.output,
            help="prepare locally, then copy the folder",
        )
    if not arguments.output:
        raise UserError("--output is missing", help="--output=data/mine")
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
    tokenizer: dict[str, Any] = dataclasses.asdict(arguments.training) | {
        "sample_bytes": arguments.sample_bytes
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


def _digest(request: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(request, sort_keys=True).encode())


def _made_before(output: Path, request: dict[str, Any]) -> Summary:
    from t5x_like.data.token_dataset import TokenDataset

    dataset = TokenDataset.open(str(output))
    provenance = dataset.manifest["provenance"]
    if provenance.get("request") != _digest(request):
        raise UserError(
            "a token dataset made from other input or with other arguments is there"
            + _difference(provenance, request),
            where=str(output),
            help="another --output, or --overwrite to replace it",
        )
    return _summary(str(output), dataset.manifest, made_before=True)


def _difference(provenance: dict[str, Any], request: dict[str, Any]) -> str:
    """The first argument that differs, in words."""
    old = provenance.get("arguments", {})
    for key, new in _flat({k: v for k, v in request.items() if k != "input"}).items():
        before = _flat(old).get(key)
        if before != new:
            return f": {key} was {before!r} and is {new!r} now"
    return ": the input differs"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _refuse_foreign(output: Path, overwrite: bool) -> None:
    """Never writes over a folder that is no token dataset."""
    is_dataset = (output / "manifest.json").is_file()
    if output.exists() and not (is_dataset and overwrite) and (output.is_file() or any(output.iterdir())):
        raise UserError(
            "the output exists and is not a token dataset",
            where=str(output),
            help="another --output, or remove it",
            code=Exit.CANNOT_WRITE,
        )


def _locked(partial: Path) -> filelock.BaseFileLock:
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(partial / "lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            "another process prepares the same output",
            where=str(partial),
            help="wait for it",
            code=Exit.LOCKED,
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write here: {error.strerror}", where=str(partial), code=Exit.CANNOT_WRITE
        ) from None
    return lock


def _start_or_continue(partial: Path, request: dict[str, Any], overwrite: bool) -> None:
    request = request | {
        "versions": {name: importlib.metadata.version(name) for name in ("sentencepiece", "numpy")}
    }
    path = partial / "request.json"
    if path.is_file():
        if json.loads(path.read_bytes()) == json.loads(json.dumps(request)):
            return
        if not overwrite:
            raise UserError(
                "an unfinished preparation from other input, with other arguments or other versions is there",
                where=str(partial),
                help="give the same arguments to continue it, or --overwrite to start over",
            )
    for entry in partial.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
    (partial / "units").mkdir()
    write_durably(path, json.dumps(request).encode())


# ---- tokenizer


def _tokenizer(
    partial: Path,
    arguments: Arguments,
    files: Sequence[SourceFile],
    existing: Tokenizer | None,
    progress: Progress,
) -> Tokenizer:
    folder = partial / "tokenizer"
    if not folder.is_dir():
        if existing is None:
            progress.stage("reading a sample for the tokenizer")
            sample = _sample(arguments, files)
            progress.stage(f"training the tokenizer on {sum(map(len, sample)) / 1e6:.1f} MB of text")
            existing = arguments.training.train(sample)
        temporary = partial / "tokenizer.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        existing.save(temporary)
        temporary.rename(folder)
    return load_tokenizer(folder)


def _sample(arguments: Arguments, files: Sequence[SourceFile]) -> list[str]:
    """Documents for training the tokenizer: those with the smallest hashes among the beginnings of all files.

    Of each file its share of four times the wanted bytes is read, so the sample of a large corpus costs little;
    validation documents stay out.
    """
    wanted, total = arguments.sample_bytes, sum(file.size for file in files)
    kept: list[tuple[int, int, str]] = []  # a heap with the largest hash first
    size = number = 0
    for file in files:
        budget = max(1, 4 * wanted * file.size // max(total, 1))
        read = 0
        for block in blocks([file], arguments.read, min(budget, 1 << 20)):
            for item in parse(block, file, arguments.read):
                if isinstance(item, Problem):
                    _fail_if_asked(item, arguments.read)
                    continue
                code = _hash(item.text)
                if _is_validation(code, arguments.validation_fraction):
                    continue
                heapq.heappush(kept, (-_hash(item.text, seed=1), number, item.text))
                number += 1
                size += len(item.text)
                while len(kept) > 1 and size - len(kept[0][2]) >= wanted:
                    size -= len(heapq.heappop(kept)[2])
            read += block.size
            if read >= budget:
                break
    return [text for _, _, text in sorted(kept, key=lambda entry: entry[1])]


def _hash(text: str, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)


def _is_validation(code: int, fraction: float) -> bool:
    return code < int(fraction * 2**64)


def _fail_if_asked(problem: Problem, read: Settings) -> None:
    if read.bad_input == "fail" and problem.kind not in HARMLESS:
        raise problem.error()


# ---- units


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """Plain data that a worker needs."""

    files: tuple[SourceFile, ...]
    read: Settings
    partial: str
    validation_fraction: float
    keep_text: bool

    def unit_path(self, number: int) -> Path:
        return Path(self.partial) / "units" / f"{number:07d}.safetensors"

    def text_path(self, number: int, split: str) -> Path:
        return Path(self.partial) / "units" / f"{number:07d}.{split}.array_record"


def _unit_bytes(files: Sequence[SourceFile]) -> int:
    total = sum(file.size * _EXPANSION[file.compression] for file in files)
    return min(max(total // 64, 1 << 20), 32 << 20)


def _workers(asked: int, files: Sequence[SourceFile]) -> int:
    if asked:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Starting processes costs about a second: not worth it below some 32 MB of text.
    small = sum(file.size * _EXPANSION[file.compression] for file in files) < 32 << 20
    return 1 if small else cores


def _units(job: _Job, unit_bytes: int) -> Iterator[tuple[int, list[Block]]]:
    """Blocks put together into numbered units."""
    number, unit, size = 0, [], 0
    for block in blocks(job.files, job.read, unit_bytes):
        unit.append(block)
        size += block.size
        if size >= unit_bytes:
            yield number, unit
            number, unit, size = number + 1, [], 0
    if unit:
        yield number, unit


def _encode_units(job: _Job, unit_bytes: int, workers: int, progress: Progress) -> int:
    """Does the units that are not done; returns how many there are in all."""
    progress.stage("tokenising")
    if workers == 1:
        count = 0
        for number, unit in _units(job, unit_bytes):
            if not job.unit_path(number).is_file():
                _encode_unit(job, number, unit)
            progress.advance(sum(block.consumed for block in unit))
            count = number + 1
        return count
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    running: dict[int, tuple[concurrent.futures.Future[None], int]] = {}
    count = 0

    def wait_for(number: int) -> None:
        future, consumed = running.pop(number)
        future.result()
        progress.advance(consumed)

    try:
        for number, unit in _units(job, unit_bytes):
            count = number + 1
            consumed = sum(block.consumed for block in unit)
            if job.unit_path(number).is_file():
                progress.advance(consumed)
                continue
            # In order, so that with --bad_input=fail the first problem of the input is the one reported.
            while len(running) >= 2 * workers:
                wait_for(min(running))
            running[number] = pool.submit(_encode_unit, job, number, unit), consumed
        while running:
            wait_for(min(running))
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps killed for lack of memory",
            help="fewer --workers; the same command continues where it stopped",
            code=Exit.IO_ERROR,
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return count


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@functools.lru_cache(maxsize=1)
def _load(folder: str) -> Tokenizer:
    return load_tokenizer(folder)


def _encode_unit(job: _Job, number: int, unit: Sequence[Block]) -> None:
    """Tokenises one unit into its file."""
    tokenizer = _load(str(Path(job.partial) / "tokenizer"))
    texts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    counts: Counter[str] = Counter()
    listed: list[tuple[Any, ...]] = []
    for block in unit:
        for item in parse(block, job.files[block.file], job.read):
            if isinstance(item, Problem):
                _fail_if_asked(item, job.read)
                _note(item, counts, listed)
            else:
                validation = _is_validation(_hash(item.text), job.validation_fraction)
                texts[SPLITS[validation]].append(item)
    arrays: dict[str, np.ndarray] = {}
    stats: dict[str, Any] = {}
    for split, documents in texts.items():
        encoded = tokenizer.encode_documents([document.text for document in documents])
        arrays[f"{split}/ids"] = encoded.ids.astype(token_dtype(tokenizer.vocabulary))
        full = (
            np.diff(encoded.documents, append=len(encoded.ids)) > 0
        )  # a text of control characters has no token
        counts["no_token skipped"] += int((~full).sum())
        documents = [document for document, kept in zip(documents, full, strict=True) if kept]
        arrays[f"{split}/documents"] = encoded.documents[full]
        arrays[f"{split}/sentences"] = encoded.sentences
        text_bytes = sum(len(document.text.encode()) for document in documents)
        unknown = int((encoded.ids == tokenizer.vocabulary.unk).sum())
        stats[split] = {
            "documents": len(documents),
            "bytes": text_bytes,
            "unknown": unknown,
            "record_bytes": 0,
        }
        if job.keep_text and documents:
            path = job.text_path(number, split)
            pairs = ((document.text, document.url) for document in documents)
            stats[split]["record_bytes"] = text_dataset.write_shard(path, pairs)
    stats |= {"problems": dict(+counts), "listed": listed}
    write_durably(job.unit_path(number), save(arrays, {"stats": json.dumps(stats)}))


def _note(problem: Problem, counts: Counter[str], listed: list[tuple[Any, ...]]) -> None:
    counts[f"{problem.kind} {problem.action}"] += 1
    if counts[f"{problem.kind} {problem.action}"] <= _LISTED:
        listed.append(dataclasses.astuple(problem))


# ---- the finished dataset


def _assemble(
    job: _Job, units: int, tokenizer: Tokenizer, request: dict[str, Any], arguments: Arguments, output: Path
) -> Summary:
    folder = Path(job.partial) / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = TokenDatasetWriter(folder, tokenizer, SPLITS)
    totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    shards: dict[str, list[tuple[Path, int, int]]] = {split: [] for split in SPLITS}
    problems: Counter[str] = Counter()
    listed = 0
    names = [field.name for field in dataclasses.fields(Problem)]
    with (folder / "rejections.jsonl").open("w") as rejections:
        for number in range(units):
            stats, arrays = _read_unit(job.unit_path(number))
            problems.update(stats["problems"])
            for problem in stats["listed"]:
                rejections.write(json.dumps(dict(zip(names, problem, strict=True))) + "\n")
                listed += 1
            for split in SPLITS:
                parts = (arrays[f"{split}/{part}"] for part in ("ids", "documents", "sentences"))
                writer.append(split, *parts)
                totals[split].update({k: stats[split][k] for k in ("documents", "bytes", "unknown")})
                if stats[split]["record_bytes"]:
                    entry = (
                        job.text_path(number, split),
                        stats[split]["documents"],
                        stats[split]["record_bytes"],
                    )
                    shards[split].append(entry)
    if not sum(total["documents"] for total in totals.values()):
        raise _nothing_left(folder / "rejections.jsonl", problems)
    provenance = {
        "request": _digest(request),
        "arguments": {key: value for key, value in request.items() if key != "input"},
        "input": [{"name": f.name, "bytes": f.size, "probe": f.probe} for f in job.files[:_LISTED]],
        "input_files": len(job.files),
        "input_bytes": sum(file.size for file in job.files),
        "counts": {split: dict(total) for split, total in totals.items()},
        "problems": dict(sorted(problems.items())),
        "problems_listed": listed,
        "versions": {name: importlib.metadata.version(name) for name in ("sentencepiece", "numpy", "xxhash")},
    }
    if arguments.write_text_dataset:
        _publish_text(Path(arguments.write_text_dataset), shards, job.files, arguments.overwrite)
    manifest = writer.finish(provenance)
    _replace(folder, output)
    return _summary(str(output), manifest)


def _read_unit(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with safe_open(path, framework="numpy") as file:
            stats = json.loads(file.metadata()["stats"])
            return stats, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"an intermediate file is damaged ({error})",
            where=str(path),
            help="remove it and give the same command again",
            code=Exit.BAD_DATA,
        ) from None


def _nothing_left(rejections: Path, problems: Counter[str]) -> UserError:
    if not problems:
        return UserError("the input holds no document", where="--input", code=Exit.BAD_DATA)
    with rejections.open() as file:
        first = json.loads(file.readline())
    return UserError(
        "no document of the input can be used: "
        + ", ".join(f"{count} {kind.split()[0].replace('_', ' ')}" for kind, count in problems.most_common()),
        where=f"{first['file']}:{first['line']} (byte {first['byte']})",
        help=f"the first: {ascii(first['detail'])[1:-1]}" if first["detail"] else None,
        code=Exit.BAD_DATA,
    )


def _publish_text(
    folder: Path,
    shards: dict[str, list[tuple[Path, int, int]]],
    files: Sequence[SourceFile],
    overwrite: bool,
) -> None:
    """Puts the units' ArrayRecord files together as a TFDS dataset; the description is written last."""
    if folder.exists() and any(folder.iterdir()):
        ours = (folder / "dataset_info.json").is_file()
        if not (overwrite or (not ours and all("array_record" in p.name for p in folder.iterdir()))):
            raise UserError(
                "the folder for the text dataset is not empty",
                where=str(folder),
                help="another folder, or --overwrite",
            )
        for path in folder.iterdir():
            if "array_record" in path.name or path.name in ("dataset_info.json", "features.json"):
                path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for split, entries in shards.items():
        for index, (path, _, _) in enumerate(entries):
            shutil.copyfile(path, folder / text_dataset.shard_name("text", split, index, len(entries)))
    text_dataset.write_description(
        folder,
        "text",
        {split: [(documents, size) for _, documents, size in entries] for split, entries in shards.items()},
        "Documents of " + ", ".join(file.name for file in files[:20]),
    )


def _replace(folder: Path, output: Path) -> None:
    """Renames the finished folder to its place; an older dataset there goes only when the new one is whole."""
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    folder.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _summary(path: str, manifest: dict[str, Any], *, made_before: bool = False) -> Summary:
    provenance = manifest["provenance"]
    return Summary(
        path=path,
        fingerprint=manifest["fingerprint"],
        vocab_size=manifest["vocabulary"]["size"],
        splits={
            split: {"tokens": entry["tokens"], **provenance["counts"][split]}
            for split, entry in manifest["splits"].items()
        },
        problems=provenance["problems"],
        made_before=made_before,
    )
