"""What a corpus is on disk, and how it is put together from what the last pass left.

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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5x_like import typed
from t5x_like.data import sources, text_dataset
from t5x_like.data.corpus import stored, trail
from t5x_like.data.corpus.passes import EXTRACT, Job, label
from t5x_like.data.corpus.recipe import all_steps, stages
from t5x_like.data.corpus.tally import Tally
from t5x_like.data.documents import Problem, Settings
from t5x_like.data.partial import digest
from t5x_like.data.preparation import Arguments as Preparation
from t5x_like.data.preparation import prepare
from t5x_like.data.prepare_report import Progress
from t5x_like.data.sources import SourceFile
from t5x_like.data.token_writer import write_durably
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.data.units import LISTED, SPLITS
from t5x_like.data.workers import Piece, Pool

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


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of the text dataset: where a unit left it, its name, documents and bytes."""

    path: Path
    name: str
    documents: int
    bytes: int


Shards = dict[str, list[Shard]]
"""By split."""


def shards_of(job: Job, units: int) -> Shards:
    """What the last pass left."""
    last = len(stages(job.recipe)) - 1
    found: dict[str, list[tuple[Path, int, int]]] = {split: [] for split in SPLITS}
    for unit in range(units):
        counts = stored.read_json(job.path(last, unit, "json"))["counts"]
        for split in SPLITS:
            if documents := counts.get(f"split/{split}/documents", 0):
                path = job.path(last, unit, f"{split}.array_record")
                found[split].append((path, documents, counts[f"split/{split}/record_bytes"]))
    return {
        split: [
            Shard(path, text_dataset.shard_name(DATASET, split, index, len(entries)), documents, size)
            for index, (path, documents, size) in enumerate(entries)
        ]
        for split, entries in found.items()
    }


def tokens_of(
    job: Job, shards: Shards, preparation: Preparation, tokenizer: Any, *, quiet: bool
) -> dict[str, Any] | None:
    """The token dataset, made by `prepare` of the shards; None where there is nothing to train on.

    Args:
      job: where the shards are.
      shards: of the text dataset.
      preparation: the tokenizer; input, output and reading are set here.
      tokenizer: what decides it; tokens that another one made are thrown away.
      quiet: show no progress.
    """
    if not shards["train"]:
        return None
    partial = Path(job.partial)
    folder, result = partial / "tokens", partial / "result" / "tokens"
    if result.is_dir() and not folder.exists():  # killed on the way to the result
        result.rename(folder)
    wanted, known = json.dumps(tokenizer).encode(), partial / "tokenizer.json"
    if not known.is_file() or known.read_bytes() != wanted:
        for old in (folder, folder.with_name("tokens.partial")):
            shutil.rmtree(old, ignore_errors=True)
        write_durably(known, wanted)
    files = {
        split: [
            dataclasses.replace(file, name=shard.name)
            for shard in entries
            for file in sources.find([glob.escape(str(shard.path))])
        ]
        for split, entries in shards.items()
    }
    summary = prepare(
        dataclasses.replace(
            preparation,
            output=str(folder),
            # Of records, which hold more than the text.
            read=Settings(max_document_bytes=4 * job.read.max_document_bytes + (1 << 16)),
        ),
        found=(files["train"], files["validation"]),
        quiet=quiet,
    )
    return {"splits": summary.splits, "next_config": summary.next_config, "vocab_size": summary.vocab_size}


def tokens_of_steps(
    job: Job, units: int, pool: Pool, progress: Progress
) -> tuple[Counter[str], Counter[str]]:
    """Tokens that the sides of steps saw, counted by the token dataset's tokenizer; documents, characters and seconds
    of the counting."""
    tokenizer = Path(job.partial) / "tokens" / "tokenizer"
    fingerprint = load_tokenizer(tokenizer).fingerprint
    folder = Path(job.partial) / "counted" / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    progress.stage("counting the tokens of every step", units)
    passes = range(len(stages(job.recipe)))
    outputs = [folder / f"{unit:07d}.json" for unit in range(units)]

    def piece(unit: int) -> Piece:
        trails = [str(job.texts(stage, unit)) for stage in passes]
        done = outputs[unit].is_file()
        return Piece(None if done else (trails, str(tokenizer), fingerprint, str(outputs[unit])), 1)

    pool.run(trail.count, map(piece, range(units)), progress)
    counts, speed = Counter[str](), Counter[str]()
    for output in outputs:
        found = stored.read_json(output)
        counts.update(found["counts"])
        speed.update(found["speed"])
    return counts, speed


def assemble(
    job: Job,
    files: Sequence[SourceFile],
    shards: Shards,
    tally: Tally,
    tokens: dict[str, Any] | None,
    request: dict[str, Any],
) -> Path:
    """Fills OUTPUT.partial/result, and returns it. Can be done again: what units left stays where it is."""
    partial, recipe = Path(job.partial), job.recipe
    result = partial / "result"
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
        "versions": versions(),
    }
    write_json(result / "recipe.json", typed.to_data(recipe))
    _write_lines(result / "samples.jsonl", tally.samples())
    _write_lines(result / "rejections.jsonl", [dataclasses.asdict(Problem(*entry)) for entry in tally.listed])
    write_json(result / "corpus.json", data)
    return result


def described(job: Job, tally: Tally, tokens: dict[str, Any] | None) -> dict[str, Any]:
    """What was counted, as corpus.json has it.

    Tokens of the funnel that were not counted are estimates: characters times the tokens that a character of the
    result has.
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
            if ratio is None or (step, side) == (EXTRACT, "in"):
                continue
            estimate = round(ratio * sides[side]["characters"])
            sides[side]["tokens"] = tally.counts[f"{step}/{side}/tokens"] if job.trail else estimate
        rejected = tally.group(f"{step}/rejected")
        funnel.append(
            {"step": step, **sides, "changed": tally.counts[f"{step}/changed"], "rejected": rejected}
        )
    return {
        "funnel": funnel,
        "tokens_per_character": ratio,
        "tokens_counted": ratio is not None and job.trail,
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


def versions() -> dict[str, str]:
    """Of the packages that a result may depend on."""
    return {name: importlib.metadata.version(name) for name in ("numpy", "xxhash", "zstandard")}


def write_json(path: Path, data: Any) -> None:
    """A JSON file, whole or not there."""
    write_durably(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(entry, ensure_ascii=False, sort_keys=True) for entry in entries)
    write_durably(path, "".join(line + "\n" for line in lines).encode())
