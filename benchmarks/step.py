"""The train step against Hugging Face on torch: two processes that take turns, step by step, on the same machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Side:
    """A process that does one step each time it is told to (`shape.serve`)."""

    def __init__(self, python: str, module: str, *arguments: str, **environment: str):
        env = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "STARTED_AT": str(time.time())}
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            env=env,
            cwd=ROOT,
            text=True,
        )
        self.facts = self._answer()
        self.steps: list[dict[str, float]] = []

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"a benchmark process ended with exit code {self._process.wait()}")

    def step(self, keep: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        times = self._answer()
        if keep:
            self.steps.append(times)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(module: str, *arguments: str, devices: int = 2) -> Side:
    """Our step as `t5x_like.train` runs it on a CPU: huge pages, and `devices` parts that the CPU is split into."""
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "JAX_NUM_CPU_DEVICES": str(devices)}
    return Side(sys.executable, module, *arguments, **environment)


def measure(
    peer_python: str | None,
    *,
    steps: int,
    rounds: int,
    model: str | None = None,
    devices: int = 2,
) -> dict[str, Any]:
    """Medians over `rounds` pairs of processes of `steps` steps each, taken in turns after one to warm up.

    Args:
      peer_python: interpreter with torch; None measures our side alone.
      model: one of `encoder_shape.SHAPES`; None: T5 1.1 small.
      devices: that our side splits the CPU into: two use both cores in what XLA does not spread over threads, one
        is better where the parameters outweigh the batch (the update is then not done twice).
    """
    mine, theirs, chosen = "benchmarks.our_step", "benchmarks.peers.torch_step", []
    if model is not None:
        mine, theirs, chosen = (
            "benchmarks.our_encoder_step",
            "benchmarks.peers.torch_encoder_step",
            [f"--model={model}"],
        )
    found: dict[str, list[Side]] = {"ours": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            arguments = [*chosen, f"--weights={folder}/weights"]
            pair = {"ours": ours(mine, *arguments, devices=devices)}
            if peer_python:
                pair["torch"] = Side(peer_python, theirs, *arguments)
            for number in range(steps + 1):
                for side in pair.values():
                    side.step(keep=number > 0)
            for name, side in pair.items():
                side.close()
                found[name].append(side)
    result = {name: _summary(sides) for name, sides in found.items() if sides}
    if "torch" in result:
        for key in ("wall_s", "cpu_s"):
            result[f"torch_over_ours_{key}"] = result["torch"][key] / result["ours"][key]
    return result


def _summary(sides: list[Side]) -> dict[str, Any]:
    every = [s for side in sides for s in side.steps]
    return {
        **sides[0].facts,
        "first_step_s": statistics.median(side.facts["first_step_s"] for side in sides),
        "wall_s": statistics.median(s["wall_s"] for s in every),
        "wall_s_min": min(s["wall_s"] for s in every),
        "cpu_s": statistics.median(s["cpu_s"] for s in every),
        "peak_rss_mb": max(s["peak_rss_mb"] for s in every),
        "steps": len(every),
        "processes": len(sides),
    }
