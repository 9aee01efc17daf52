"""How long a save keeps the training waiting, beside how long it takes: `python -m benchmarks.checkpoint`.

The train state of a T5-small with AdamW (60 M parameters, 726 MB) is saved by the store that training uses. `blocking`
is the time until `Store.save` returns and the next step may begin; `whole` is the time until the checkpoint is written,
synced, hashed and sealed, which is what a synchronous save would wait for; `orbax` is a synchronous save by Orbax
alone, without sync, hashes and record. One JSON line at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

FLAGS = flags.FlagValues()
_REPEATS = flags.DEFINE_integer("repeats", 5, "saves of each kind", lower_bound=1, flag_values=FLAGS)
_FOLDER = flags.DEFINE_string(
    "folder", None, "where to save; a temporary folder by default", flag_values=FLAGS
)


def size(tree: Any) -> int:
    """Bytes."""
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Medians in seconds."""
    import jax
    from orbax.checkpoint import v1 as ocp

    from t5x_like.models.t5 import T5
    from t5x_like.training import checkpoints, optimizers, partitioning, schedules, state
    from t5x_like.training.checkpoint_reader import paths

    model = T5(vocab_size=32128, d_model=512, d_kv=64, num_heads=8, d_ff=2048, num_layers=6, activation="relu",
               gated=False, tie_embeddings=True)  # fmt: skip
    mesh = partitioning.Mesh().build(jax.devices()[:1])
    train = state.create(model, optimizers.AdamW(), schedules.Constant(rate=1e-3), mesh, seed=0)
    jax.block_until_ready(train)
    store = checkpoints.Store(folder / "ours", checkpoints.Checkpoints(keep_last=1))
    store.directory.mkdir(parents=True)
    blocking, whole, orbax = [], [], []
    for step in range(1, repeats + 2):  # the first warms up
        tick = time.perf_counter()
        store.save(checkpoints.Record(step=step), train)
        blocking.append(time.perf_counter() - tick)
        store.wait()
        whole.append(time.perf_counter() - tick)
        assert store.saved == step
        tick = time.perf_counter()
        ocp.save_checkpointables(str(folder / f"orbax-{step}"), {"state": paths(train)})
        orbax.append(time.perf_counter() - tick)
        shutil.rmtree(folder / f"orbax-{step}")
        print(
            f"{step}: blocking {blocking[-1]:.3f}  whole {whole[-1]:.3f}  orbax {orbax[-1]:.3f} s",
            file=sys.stderr,
        )
    middle = {"blocking": blocking, "whole": whole, "orbax": orbax}
    seconds = {name: round(statistics.median(times[1:]), 4) for name, times in middle.items()}
    return {
        "parameters": model.num_params(),
        "bytes": size(train),
        "saves": repeats,
        **seconds,
        "blocking_share_of_whole": round(seconds["blocking"] / seconds["whole"], 4),
        "blocking_share_of_orbax": round(seconds["blocking"] / seconds["orbax"], 4),
        "jax": jax.__version__,
        "cores": os.cpu_count(),
    }


def main(argv: list[str]) -> int:
    FLAGS(argv)
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
        print(json.dumps(measure(Path(folder), _REPEATS.value or 1)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
