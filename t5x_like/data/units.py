"""Units of work: a stretch of the input tokenised into one file, by any number of processes, resumably.

Units depend on the input alone. A worker writes a unit under another name and renames it, so a unit whose file is
there is done, whatever was killed when.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from t5x_like.data import text_dataset
from t5x_like.data import workers as processes
from t5x_like.data.documents import HARMLESS, Block, Document, Problem, Settings
from t5x_like.data.partial import damaged
from t5x_like.data.prepare_report import Progress
from t5x_like.data.reading import blocks, parse
from t5x_like.data.sources import SourceFile
from t5x_like.data.token_writer import token_dtype, write_durably
from t5x_like.data.tokenizers import Tokenizer, load_tokenizer
from t5x_like.data.workers import Piece

SPLITS = ("train", "validation")
LISTED = 1000
"""Problems of one kind that a unit lists one by one; the rest are counted."""

# Stored bytes of a compressed file stand for more text; this only sets the size of units.
_EXPANSION = {None: 1, "gzip": 3, "zstd": 3, "xz": 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs to know: plain data.

    Attributes:
      files, read: the input and how it is read.
      partial: folder with the tokenizer and the units.
      validation_fraction: share of documents in the validation split.
      training_files: how many of the files are for training, all others being validation; None where a hash of the
        text decides.
      keep_text: also write the documents as ArrayRecord files.
    """

    files: tuple[SourceFile, ...]
    read: Settings
    partial: str
    validation_fraction: float
    training_files: int | None = None
    keep_text: bool

    def unit_path(self, number: int) -> Path:
        return Path(self.partial) / "units" / f"{number:07d}.safetensors"

    def text_path(self, number: int, split: str) -> Path:
        return Path(self.partial) / "units" / f"{number:07d}.{split}.array_record"


def default_unit_bytes(files: Sequence[SourceFile]) -> int:
    """A sixty-fourth of the text, between 1 and 32 MiB: from the input alone."""
    total = sum(file.size * _EXPANSION[file.compression] for file in files)
    return min(max(total // 64, 1 << 20), 32 << 20)


def default_workers(files: Sequence[SourceFile]) -> int:
    """One process for each core; one alone for less than some 32 MB, where starting more costs more than it gives."""
    if sum(file.size * _EXPANSION[file.compression] for file in files) < 32 << 20:
        return 1
    return processes.cores()


def _units(job: Job, unit_bytes: int) -> Iterator[tuple[int, list[Block]]]:
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


def encode_units(job: Job, unit_bytes: int, workers: int, progress: Progress) -> int:
    """Does the units that are not done; returns how many there are in all."""
    progress.stage("tokenising")
    pieces = (
        Piece(
            None if job.unit_path(number).is_file() else (job, number, unit),
            sum(block.consumed for block in unit),
        )
        for number, unit in _units(job, unit_bytes)
    )
    with processes.Pool(workers) as pool:
        return pool.run(_encode_unit, pieces, progress)


@functools.lru_cache(maxsize=1)
def _load(folder: str) -> Tokenizer:
    return load_tokenizer(folder)


def _encode_unit(job: Job, number: int, unit: Sequence[Block]) -> None:
    """Tokenises one unit into its file."""
    tokenizer = _load(str(Path(job.partial) / "tokenizer"))
    texts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    counts: Counter[str] = Counter()
    listed: list[tuple[Any, ...]] = []
    for block in unit:
        for item in parse(block, job.files[block.file], job.read):
            if isinstance(item, Problem):
                fail_if_asked(item, job.read)
                _note(item, counts, listed)
            else:
                if job.training_files is None:
                    validation = is_validation(text_hash(item.text), job.validation_fraction)
                else:
                    validation = block.file >= job.training_files
                texts[SPLITS[validation]].append(item)
    arrays: dict[str, np.ndarray] = {}
    stats: dict[str, Any] = {}
    for split, documents in texts.items():
        encoded = tokenizer.encode_documents([document.text for document in documents])
        arrays[f"{split}/ids"] = encoded.ids.astype(token_dtype(tokenizer.vocabulary))
        # A text of nothing but control characters has no token.
        full = np.diff(encoded.documents, append=len(encoded.ids)) > 0
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
    if counts[f"{problem.kind} {problem.action}"] <= LISTED:
        listed.append(dataclasses.astuple(problem))


def read_unit(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Counts and arrays of a finished unit.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            stats = json.loads(file.metadata()["stats"])
            return stats, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise damaged(path, error) from None


def text_hash(text: str, seed: int = 0) -> int:
    """64 bits that decide the split (seed 0) and the tokenizer's sample (seed 1)."""
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)


def is_validation(code: int, fraction: float) -> bool:
    """Whether a text of this hash is held out; equal texts are together."""
    return code < int(fraction * 2**64)


def fail_if_asked(problem: Problem, read: Settings) -> None:
    """Raises the problem under `--bad_input=fail`."""
    if read.bad_input == "fail" and problem.kind not in HARMLESS:
        raise problem.error()
