"""The work that both sides of the step benchmark do, and the protocol they are driven by. NumPy only, so that a
peer's own environment can import it.

T5 1.1 small: 8 + 8 layers, D 512, 6 heads of 64, F 1024 gated, V 32128 untied; 8 rows of 512 inputs and 114
targets; Adafactor; dropout 0.1 drawn for every element (Hugging Face has no masks shared along the length).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

VOCABULARY, D_MODEL, D_KV, HEADS, D_FF, LAYERS = 32128, 512, 64, 6, 1024, 8
BATCH, INPUTS, TARGETS = 8, 512, 114
DROPOUT, LEARNING_RATE = 0.1, 1e-3
TOKENS = BATCH * (INPUTS + TARGETS)


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """inputs [8, 512] and targets [8, 114], random ids without padding, int32."""
    rng = np.random.default_rng(seed)
    shapes = ((BATCH, INPUTS), (BATCH, TARGETS))
    inputs, targets = (rng.integers(3, VOCABULARY - 100, shape, dtype=np.int32) for shape in shapes)
    return inputs, targets


def serve(step: Callable[[int], float], *, not_counted_s: float, **facts: Any) -> None:
    """Runs step 0, says that it is done, then one step for each line on stdin, each answered with its times.

    Answers are JSON lines on stdout: first `facts` with `first_step_s` (since the process began, imports and
    compilation included, but not `not_counted_s`, the check of parity), then `wall_s` and `cpu_s` of each step
    with the peak memory so far.
    """
    step(0)
    print(json.dumps({**facts, "first_step_s": _since_start() - not_counted_s}), flush=True)
    for number, _ in enumerate(sys.stdin, 1):
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(number)
        times = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": loss}
        print(json.dumps({**times, "peak_rss_mb": peak_rss_mb()}), flush=True)


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _since_start() -> float:
    """Seconds since `STARTED_AT`, which the parent sets when it starts the process."""
    return time.time() - float(os.environ.get("STARTED_AT", time.time()))
