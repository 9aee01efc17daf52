"""The configuration and the parameters of a run, read back from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import jax

from t5x_like.errors import Exit, UserError
from t5x_like.training.checkpoint_reader import Reader
from t5x_like.training.layout import shardings
from t5x_like.training.records import Record
from t5x_like.training.run import Run, read_run
from t5x_like.training.run_dir import RunDir


def restore_params(run_dir: str | Path, step: int | Literal["latest", "best"] = "latest") -> tuple[Run, Any]:
    """The configuration and the parameters of a run, on the default device: for evaluate, infer and export.
    Of a run with phases, the configuration is that of the checkpoint's phase.

    Raises:
      UserError: no run, no such checkpoint, a damaged one, or one of another model.
    """
    run, store, record = open_run(run_dir, step)
    return run, load_params(run, store, record)


def load_params(run: Run, store: Reader, record: Record, mesh: jax.sharding.Mesh | None = None) -> Any:
    """The parameters of a checkpoint, laid out over a mesh; None: on the default device."""
    abstract = run.model.abstract_params()
    placed: Any = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), abstract)
    if mesh is not None:
        layout = run.mesh.layout()
        axes = layout.place(run.model.logical_axes(), abstract, mesh)
        placed = shardings(axes, abstract, mesh, layout.rules)
    return store.restore_params(
        record,
        jax.tree.map(lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), abstract, placed),
    )


def open_run(
    run_dir: str | Path, step: int | Literal["latest", "best"] = "latest"
) -> tuple[Run, Reader, Record]:
    """The configuration of a run at one of its checkpoints (`Run.at`), its checkpoints, and the record of that one."""
    directory = RunDir(run_dir)
    if not directory.config.is_file():
        raise UserError(
            "this is not a run directory: it has no config.json",
            where=str(run_dir),
            help="name the --workdir of a t5x_like.train run",
            code=Exit.BAD_DATA,
        )
    run = read_run(directory.config)
    store = Reader(directory.checkpoints)
    record = store.find(step)
    return run.at(record.step), store, record
