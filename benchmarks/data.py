"""The data path: from the token store to finished batches, and from raw text; against seqio on the same text.

All figures are input tokens a second (no padding counted) of span corruption 512/114, on the embedded corpus.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step import ROOT
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.documents import Settings
from t5x_like.data.prefetch import prefetch
from t5x_like.data.preparation import Arguments, prepare
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.tokenizer_training import Training
from t5x_like.objectives.span_corruption import SpanCorruption

CORPUS = ROOT / "t5x_like/data/corpora/public_domain_english.jsonl.xz"
VOCABULARY = 16_000
COPIES = 4  # of the corpus, 48 MB in all, so that start-up does not count for much
BATCH = 256


def make_corpus(folder: Path) -> tuple[Path, Path]:
    """The embedded corpus as one document a line, and a tokenizer trained on it."""
    text = folder / "lines.txt"
    with lzma.open(CORPUS, "rt", encoding="utf-8") as source:
        lines = [" ".join(json.loads(line)["text"].split()) + "\n" for line in source]
    text.write_text("".join(lines * COPIES), encoding="utf-8")
    trained = prepare(
        Arguments(
            input=(str(text),),
            output=str(folder / "trained"),
            training=Training(vocab_size=VOCABULARY),
            read=Settings(documents="line"),
        ),
        quiet=True,
    )
    return text, Path(trained.path) / "tokenizer"


def batches_of(path: Path) -> Batches:
    return Batches(Data(sources=(Source(path=str(path)),)), SpanCorruption(), BATCH, 0)


def store(path: Path, *, workers: int, seconds: float) -> dict[str, float]:
    """From the token store (memory map, warm page cache) to finished batches; `workers` as in `Data`."""
    batches = batches_of(path)
    tokens = int((batches(0)["encoder_input_tokens"] != 0).sum())  # of a batch: the windows are all full
    count = 0
    with prefetch(batches, 1, 10**9, workers=workers, depth=4) as stream:
        for _ in range(4):
            next(stream)
        tick = time.perf_counter()
        while time.perf_counter() - tick < seconds:
            next(stream)
            count += 1
        elapsed = time.perf_counter() - tick
    return {"input_tokens_per_s": count * tokens / elapsed, "workers": workers}


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def from_text(text: Path, tokenizer: Path, output: Path) -> dict[str, float]:
    """Raw text to the batches of one epoch: preparation (all cores, start of its processes included) into the new
    folder `output`, and then the batches."""
    tick, cpu = time.perf_counter(), cpu_seconds()
    prepare(
        Arguments(
            input=(str(text),),
            output=str(output),
            tokenizer=str(tokenizer),
            validation_fraction=0.0,
            read=Settings(documents="line"),
        ),
        quiet=True,
    )
    prepared = time.perf_counter() - tick
    batches = batches_of(output)
    tokens = 0
    for step in range(batches.examples_per_epoch // BATCH):
        tokens += int((batches(step)["encoder_input_tokens"] != 0).sum())
    elapsed, cpu = time.perf_counter() - tick, cpu_seconds() - cpu
    return {
        "input_tokens_per_s": tokens / elapsed,
        "input_tokens_per_cpu_s": tokens / cpu,
        "prepare_s": prepared,
        "batches_s": elapsed - prepared,
    }


def write_documents(path: Path, output: Path) -> None:
    """The token store as one array with document offsets, for the peer to hold in memory."""
    split = TokenDataset.open(str(path)).split("train")
    tokens = split.gather(np.zeros(1, np.int64), split.num_tokens)[0]
    np.savez(output, allow_pickle=False, tokens=tokens, offsets=split.document_offsets)


def seqio(
    python: str, checkout: str, tokenizer: Path, seconds: float, **source: Path
) -> dict[str, Any] | str:
    """The peer's figures, or a word why there are none."""
    flags = [f"--{name}={path}" for name, path in source.items()]
    command = [python, "-m", "benchmarks.peers.seqio_pipeline", f"--t5={checkout}", f"--seconds={seconds}"]
    done = subprocess.run(
        [*command, f"--spm={tokenizer / 'spiece.model'}", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return f"seqio failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}"
    return json.loads(lines[-1])
