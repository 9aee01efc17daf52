"""A run in a process of its own, forked from a server that has imported everything: the very command, started in a
fraction of the time. The injections that need the process's inside are here.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX  # noqa: F401 (imported for the children's sake)
from orbax.checkpoint import v1  # noqa: F401

import t5x_like.training.loop  # noqa: F401
from t5x_like import cli, config, train  # noqa: F401
from t5x_like.data.batches import Batches


def main(job_json: str) -> None:
    """Runs `python -m t5x_like.train`.

    Args:
      job_json: `arguments` of the command, `environment` to add, `output` for what it prints, and `inject`: see
        `_inject`.
    """
    job = json.loads(job_json)
    os.environ.update(job["environment"])
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["train", *job["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "t5x_like.train", *job["arguments"]]
    time.tzset()
    _keep_programs(job["programs"])
    _inject(job.get("inject", {}))
    cli.run(train.main, train.FLAGS, train.PATIENCE)


def _keep_programs(folder: str) -> None:
    """Compiled programs are kept there, however small: a trial is then a second instead of five. Of several processes
    JAX lets only the first write, but the programs of each are its own on a CPU: all are told that they are it."""
    import jax
    from jax._src import compiler

    module: Any = compiler
    module.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0, client=None))

    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _inject(faults: dict[str, Any]) -> None:
    """Puts faults into this process that no failpoint stands for.

    Args:
      faults: `clock`: seconds that the wall clock is wrong by. `nonfinite`: numbers of the batches whose loss has
        NaN weights. `spike`: numbers of the batches whose targets are an id that no other has, and whose first target,
        which is easy, counts against them. `seen`: a file that takes number and checksum of every row of every
        training batch that is made.
    """
    if clock := faults.get("clock"):
        real = time.time
        time.time = lambda: real() + clock
    if faults.keys() & {"nonfinite", "spike", "seen"}:
        make = Batches.__call__
        nonfinite, spike = set(faults.get("nonfinite", ())), set(faults.get("spike", ()))

        def call(self: Batches, step: int, rows: slice | None = None) -> dict[str, np.ndarray]:
            batch = make(self, step, rows)
            if self.split == "train":
                number = self.number(step)
                if number in nonfinite:
                    batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * np.float32(np.nan)
                if number in spike:
                    batch["decoder_target_tokens"][:, 1:] = 498
                    batch["decoder_loss_weights"] = np.ones_like(batch["decoder_loss_weights"])
                    batch["decoder_loss_weights"][:, 0] = 2 - batch["decoder_target_tokens"].shape[1]
                if "seen" in faults:
                    _note(Path(faults["seen"]), step, rows, batch)
            return batch

        Batches.__call__ = call


def _note(path: Path, step: int, rows: slice | None, batch: dict[str, np.ndarray]) -> None:
    import xxhash

    first = (rows.start or 0) if rows else 0
    count = len(next(iter(batch.values())))
    lines = []
    for row in range(count):
        digest = xxhash.xxh3_64_hexdigest(b"".join(batch[name][row].tobytes() for name in sorted(batch)))
        lines.append(json.dumps([step, first + row, digest]) + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
