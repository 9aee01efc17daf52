"""Prints what the speed claims rest on: our figures and those of the peers, taken in one run on this machine.

  python -m benchmarks.run                                   everything that this environment can do
  python -m benchmarks.run --only=step,data --quick
  python -m benchmarks.run --peer_python=/env/torch/bin/python --seqio_python=/env/seqio/bin/python \\
      --t5_checkout=/src/text-to-text-transfer-transformer --json=benchmarks.json

step   train step of T5 1.1 small (8 x 512/114) against Hugging Face on torch, turn by turn, from the same weights;
       bert-mini, electra-small, bert-base: the same for encoders (benchmarks/encoder_shape.py)
data   token store to finished batches, against seqio from token arrays in memory
text   raw text to finished batches, against seqio
start  `--help` and imports (time to the first training step: part step)

Peers live in their own environments: `pip install torch transformers safetensors` for --peer_python, `pip install
seqio==0.0.20 babel gin-config` for --seqio_python with a checkout of google-research/text-to-text-transfer-transformer.
What is missing is skipped with a word. Compare ratios; on a busy machine the figures per CPU second say more.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, did_you_mean

STEPS = ("step", "bert-mini", "electra-small", "bert-base")
PARTS = (*STEPS, "data", "text", "start")
Rows = list[tuple[str, ...]]
FLAGS = flags.FlagValues()
_ONLY = flags.DEFINE_list("only", list(PARTS), "parts: " + ", ".join(PARTS), flag_values=FLAGS)
_QUICK = flags.DEFINE_bool("quick", False, "fewer steps and seconds; noisier", flag_values=FLAGS)
_JSON = flags.DEFINE_string("json", None, "file for all figures", flag_values=FLAGS)
_PEER_PYTHON = flags.DEFINE_string(
    "peer_python",
    None,
    "interpreter with torch and transformers; default: this one, if it has them",
    flag_values=FLAGS,
)
_SEQIO_PYTHON = flags.DEFINE_string(
    "seqio_python", None, "interpreter with seqio; default: this one, if it has it", flag_values=FLAGS
)
_T5_CHECKOUT = flags.DEFINE_string(
    "t5_checkout", None, "checkout that holds t5/data/preprocessors.py, for seqio", flag_values=FLAGS
)


def peer(wanted: str | None, *packages: str) -> str | None:
    """The interpreter for a peer, or None where the packages are missing."""
    if wanted is None:
        return sys.executable if all(importlib.util.find_spec(name) for name in packages) else None
    done = subprocess.run([wanted, "-c", f"import {', '.join(packages)}"], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"{wanted} cannot import {' and '.join(packages)}", where="command line")
    return wanted


def step_parts(parts: list[str], python: str | None) -> tuple[dict[str, Any], Rows]:
    """Train steps of ours and of Hugging Face on torch, model by model."""
    from benchmarks import encoder_shape, shape, step

    found: dict[str, Any] = {}
    rows: Rows = [
        ("train step", "s/step", "CPU s", "tokens/s", "GFLOP/s", "peak MB", "first step s", "loss"),
    ]
    for part in parts:
        label, tokens, options = "T5 1.1 small, 8 x 512/114", shape.TOKENS, {}
        if part != "step":
            work = encoder_shape.SHAPES[part]
            label, tokens = f"{part}, {work.rows} x {encoder_shape.LENGTH}", work.tokens
            options = {"model": part, "devices": 1 if part == "bert-base" else 2}
        sides = step.measure(
            python, steps=2 if _QUICK.value else 6, rounds=1 if _QUICK.value else 3, **options
        )
        found[part] = sides
        rows.append((label, *[""] * 7))
        for name in ("ours", "torch"):
            if name not in sides:
                rows.append(("  torch: skipped, torch and transformers are not installed", *[""] * 7))
                continue
            side = sides[name]
            rows.append(
                (
                    f"  {side['what']}",
                    f"{side['wall_s']:.2f}",
                    f"{side['cpu_s']:.1f}",
                    f"{tokens / side['wall_s']:,.0f}",
                    f"{sides['ours']['gflop'] / side['wall_s']:.0f}",
                    f"{side['peak_rss_mb']:,.0f}",
                    f"{side['first_step_s']:.1f}",
                    f"{side['loss_without_dropout']:.5f}",
                )
            )
        if "torch" in sides:
            ratios = (f"{sides[f'torch_over_ours_{key}']:.2f}x" for key in ("wall_s", "cpu_s"))
            rows.append(("  ours is faster by", *ratios, *[""] * 5))
    return found, rows


def data_parts(parts: list[str], python: str | None) -> tuple[dict[str, Any], Rows]:
    from benchmarks import data

    seconds, rounds = (3.0, 1) if _QUICK.value else (10.0, 3)
    found: dict[str, Any] = {}
    rows: Rows = [
        ("span corruption 512/114, input tokens a second", "tokens/s", "per CPU s", "ours is faster by")
    ]

    def compare(part: str, label: str, ours: Callable[[], dict[str, Any]], **source: Path) -> None:
        """Both sides in turns, medians."""
        mine, theirs = [], []
        checkout = _T5_CHECKOUT.value
        missing = None if python and checkout else "skipped, it needs seqio and --t5_checkout"
        for _ in range(rounds):
            mine.append(ours())
            if python and checkout and not missing:
                answer = data.seqio(python, checkout, tokenizer, 2 * seconds, **source)
                missing = answer if isinstance(answer, str) else None
                theirs.append(answer)
        rate = statistics.median(side["input_tokens_per_s"] for side in mine)
        found[part] = {"ours": mine, "seqio": missing or theirs}
        per_cpu = [side["input_tokens_per_cpu_s"] for side in mine if "input_tokens_per_cpu_s" in side]
        rows.append((label, f"{rate:,.0f}", f"{statistics.median(per_cpu):,.0f}" if per_cpu else "", ""))
        if missing:
            rows.append((f"  seqio: {missing}", "", "", ""))
        else:
            wall = statistics.median(side["input_tokens_per_s"] for side in theirs)
            cpu = statistics.median(side["input_tokens_per_cpu_s"] for side in theirs)
            rows.append((f"  {theirs[0]['what']}", f"{wall:,.0f}", f"{cpu:,.0f}", f"{rate / wall:.1f}x"))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, tokenizer = data.make_corpus(folder)
        prepared = data.from_text(text, tokenizer, folder / "ours")
        if "text" in parts:

            def again() -> dict[str, Any]:
                shutil.rmtree(folder / "again", ignore_errors=True)
                return data.from_text(text, tokenizer, folder / "again")

            compare("text", "from raw text: prepare, then one epoch of batches", again, text=text)
        if "data" in parts:
            data.write_documents(folder / "ours", folder / "documents.npz")
            for workers, label in ((0, "a thread of the trainer"), (2, "2 worker processes")):
                measure = functools.partial(data.store, folder / "ours", workers=workers, seconds=seconds)
                compare(
                    f"data, {workers} workers",
                    f"from the token store: {label}",
                    measure,
                    tokens=folder / "documents.npz",
                )
        found["prepared"] = prepared
    return found, rows


def start_part() -> tuple[dict[str, Any], Rows]:
    """Wall time of `--help` of the training command, and of importing what it imports."""

    def median(*command: str) -> float:
        times = []
        for _ in range(3 if _QUICK.value else 7):
            tick = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - tick)
        return statistics.median(times)

    found = {
        "python": median("-c", "pass"),
        "help": median("-m", "t5x_like.train", "--help"),
        "jax": median("-c", "import jax"),
        "import": median("-c", "import t5x_like.config"),
    }
    names = {
        "python": "python alone",
        "help": "t5x_like.train --help",
        "jax": "import jax",
        "import": "import t5x_like.config",
    }
    return found, [("start", "s"), *((f"  {names[k]}", f"{v:.2f}") for k, v in found.items())]


def show(rows: Rows) -> None:
    """Prints a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())
    print(flush=True)


def main(argv: list[str]) -> int:
    del argv
    for part in _ONLY.value:
        if part not in PARTS:
            raise UserError(f"no part {part!r}", where="--only", help=did_you_mean(part, PARTS))
    load, python = os.getloadavg()[0], platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {python}"
    print(machine, end="\n\n", flush=True)
    figures: dict[str, Any] = {"machine": machine}
    if "start" in _ONLY.value:
        figures["start"], rows = start_part()
        show(rows)
    if {"data", "text"} & set(_ONLY.value):
        found, rows = data_parts(_ONLY.value, peer(_SEQIO_PYTHON.value, "seqio"))
        figures |= found
        show(rows)
    if steps := [part for part in STEPS if part in _ONLY.value]:
        found, rows = step_parts(steps, peer(_PEER_PYTHON.value, "torch", "transformers"))
        figures |= found
        show(rows)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
