"""Compiles the train step of a run for a topology that need not be there: TPUs by their compiler, CPU devices by ours.

    environment.prepare(topology)         # before jax is imported
    mesh = run.mesh.build(devices(topology))
    program = compile_step(stage, mesh)

The step, the state and the batch are those of training (`make_train_step`, `state.abstract`, `abstract_batch`), only
that no array exists. A TPU's compiler is in the package `libtpu` and runs on any x86 Linux; a program that does not
fit is refused by it, and then all that is known is what it says it would need.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

from t5x_like.errors import Exit, UserError
from t5x_like.planning import environment
from t5x_like.planning.environment import LIBTPU_STACK
from t5x_like.planning.stages import Stage
from t5x_like.planning.topologies import Topology
from t5x_like.training import partitioning, state
from t5x_like.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled train step, or the compiler's refusal of one.

    Attributes:
      text: the optimised program (`planning.hlo`); None where it does not fit.
      arguments, outputs, aliased, temporaries, code: bytes a device, as the compiler planned them; 0 where unknown.
      needed: bytes a device that the compiler says it needs at once, where it refused.
      compiler: name and version.
      seconds: that compiling took.
    """

    text: str | None
    arguments: int = 0
    outputs: int = 0
    aliased: int = 0
    temporaries: int = 0
    code: int = 0
    needed: int = 0
    compiler: str = ""
    seconds: float = 0.0


def devices(topology: Topology) -> list[Any]:
    """The topology's devices, for `Mesh.build`; nothing can run on those of a TPU.

    Raises:
      UserError: the compiler is not there, or does not know the topology.
    """
    environment.check(topology)
    if topology.chip.platform == "cpu":
        import jax

        found = jax.devices("cpu")
        if len(found) < topology.devices:
            raise UserError(
                f"{topology.name} needs {topology.devices} simulated devices, and JAX was started with {len(found)}",
                where=f"--topology={topology.name}",
            )
        return found[: topology.devices]
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # the two cores of a chip are one device, as on a v5p
    if topology.per_slice < 4:
        options["chips_per_host_bounds"] = (*topology.shape, *[1] * (3 - len(topology.shape)))
    try:
        description = topologies.get_topology_desc(
            f"{topology.chip.name}:{topology.layout}", "tpu", **options
        )
    except JaxRuntimeError as e:
        raise UserError(
            f"the TPU compiler does not take this topology: {_first_line(e)}",
            where=f"--topology={topology.name}",
        ) from None
    return list(description.devices)


def compile_step(stage: Stage, mesh: Any, store: Path | None = None) -> Program:
    """The train step of one stage on `mesh`, compiled.

    Args:
      store: a folder that keeps compiled programs. What is compiled names the file (a hash of the program before
        compilation, of the devices and of the compiler), so that nothing else is ever taken for it.
    """
    run = stage.run
    schedule = run.schedule.over(run.steps)
    platform = mesh.devices.flat[0].platform
    compiler = (
        " ".join(
            [
                f"libtpu {importlib.metadata.version('libtpu')}",
                *(flag for flag in os.environ.get("LIBTPU_INIT_ARGS", "").split() if flag != LIBTPU_STACK),
            ]
        )
        if platform == "tpu"
        else f"jaxlib {importlib.metadata.version('jaxlib')}"
    )
    begun = time.perf_counter()
    step = make_train_step(
        run.model, run.objective, run.optimizer, schedule, mesh,
        microbatches=run.microbatches, seed=run.seed, clip_global_norm=run.clip_global_norm,
        layout=run.mesh.layout(), partitioner=run.mesh.partitioner,
    )  # fmt: skip
    wanted = state.abstract(run.model, run.optimizer, schedule, mesh, run.mesh.layout())
    lowered = step.lower(wanted, partitioning.abstract_batch(stage.features, run.batch_size, mesh))
    kept = store / f"{_key(lowered.as_text(), mesh, compiler)}.json.zst" if store else None
    if kept is not None and (found := _read(kept)):
        return found
    program = _compile(lowered, compiler, begun, f"{run.name} on {mesh.size} devices")
    if kept is not None:
        _write(kept, program)
    return program


def _compile(lowered: Any, compiler: str, begun: float, what: str) -> Program:
    from jax.errors import JaxRuntimeError

    try:
        compiled = lowered.compile()
    except JaxRuntimeError as e:
        needed = needed_bytes(str(e))
        if needed is None:
            raise UserError(
                f"the compiler refuses this step: {_first_line(e)}",
                where=what,
                code=Exit.INTERNAL,
            ) from None
        return Program(text=None, needed=needed, compiler=compiler, seconds=time.perf_counter() - begun)
    memory: Any = compiled.memory_analysis()
    return Program(
        text=compiled.as_text(),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        compiler=compiler,
        seconds=time.perf_counter() - begun,
    )


def _key(lowered: str, mesh: Any, compiler: str) -> str:
    devices = [str(getattr(d, "coords", "")) for d in mesh.devices.flat]
    kind = mesh.devices.flat[0].device_kind
    return hashlib.sha256(
        "\n".join([compiler, kind, str(mesh.shape), *devices, lowered]).encode()
    ).hexdigest()[:24]


def _read(path: Path) -> Program | None:
    try:
        return Program(**json.loads(zstandard.decompress(path.read_bytes())))
    except (OSError, ValueError, TypeError, zstandard.ZstdError):
        return None


def open_store(path: Path) -> Path:
    """The folder that keeps programs, made where needed; raises `UserError` where nothing can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise UserError(
            f"compiled programs cannot be kept here: {e.strerror}",
            where=f"--programs={path}",
            code=Exit.CANNOT_WRITE,
        ) from None
    return path


def _write(path: Path, program: Program) -> None:
    try:
        path.with_suffix(".part").write_bytes(
            zstandard.compress(json.dumps(dataclasses.asdict(program)).encode())
        )
        path.with_suffix(".part").replace(path)
    except OSError as e:
        raise UserError(
            f"the compiled program cannot be kept: {e}", where=str(path), code=Exit.CANNOT_WRITE
        ) from None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def needed_bytes(message: str) -> int | None:
    """What a TPU's compiler says that a program would need, of its message that it does not fit; None for another
    message."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    for pattern in (
        r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm",
        r"Total hbm usage >= ([\d.]+)([KMGT]?)",
        r"total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\)",
    ):
        if match := re.search(pattern, message):
            return int(float(match[1]) * _UNITS[match[2]])
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
