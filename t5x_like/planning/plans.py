"""The plan of a run on a topology: what fits where, what a step costs, how long it will take.

plan = make_plan(run, topologies.parse("v5e:16x16"))
print(plan.text())
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from t5x_like.planning import compiling, costs, hlo, roofline
from t5x_like.planning.costs import Costs
from t5x_like.planning.formula import Formula
from t5x_like.planning.roofline import Times
from t5x_like.planning.stages import SECONDS_A_DAY, AnyMesh, Stage, check, stages, state_bytes
from t5x_like.planning.topologies import GIB, Topology
from t5x_like.training.partitioning import AXES, batch_shards, count_slices
from t5x_like.training.run import Run

KINDS = {
    "parameters": "",
    "optimizer": "",
    "batch": "and what tiles pad",
    "activations": "kept from the forward pass for the backward pass",
    "temporaries": "gradients, gathered weights, work space",
    "program": "the compiled code",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage on a topology.

    Attributes:
      memory: kind (`KINDS`) -> bytes a device; without the last four where the compiler refused.
      needed: bytes a device: the sum, or what the compiler said where it refused. The sum can be a little more than
        is needed at one time.
      accepted: by a compiler that refuses what does not fit (a TPU's).
      flops, bytes: of one step on one device; operations are those of matrix products, recomputation included.
      model_flops: of one step on all devices by formula, recomputation left out.
      traffic: kind of collective -> (number, bytes) of one step and device.
      how: "compiled" or "formula".
    """

    start: int
    stop: int
    batch_size: int
    microbatches: int
    rows: float
    tokens: int
    memory: dict[str, int]
    needed: int
    available: int
    flops: float
    bytes: float
    model_flops: float
    traffic: dict[str, tuple[int, int]]
    times: Times
    how: str
    compiler: str
    compile_seconds: float
    unknown_loops: int
    unknown_kernels: int

    accepted: bool = False

    @property
    def fits(self) -> bool:
        """What the compiler says where it refuses what does not fit; else whether the sum is there."""
        return self.accepted or self.needed <= self.available


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a topology. `mesh`: axis -> size."""

    name: str
    parameters: int
    remat: str
    dtype: str
    topology: Topology
    mesh: dict[str, int]
    stages: tuple[StagePlan, ...]

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    @property
    def days(self) -> float:
        """Of all steps, if nothing but steps took time."""
        return sum(s.times.step * (s.stop - s.start) for s in self.stages) / SECONDS_A_DAY

    def mfu(self, stage: StagePlan) -> float:
        """Model operations of a step by those that the chips could do in its time."""
        return stage.model_flops / (stage.times.step * self.topology.chip.flops * self.topology.devices)

    def data(self) -> dict[str, Any]:
        """Plain data, for JSON; times in seconds, memory in bytes."""
        described = []
        for stage in self.stages:
            plain = dataclasses.asdict(stage)
            plain["fits"] = stage.fits
            plain["times"]["step"] = stage.times.step
            plain["mfu"] = self.mfu(stage)
            plain["flops_per_byte"] = stage.flops / stage.bytes if stage.bytes else None
            plain["tokens_per_day"] = stage.tokens * SECONDS_A_DAY / stage.times.step
            described.append(plain)
        return {
            "name": self.name,
            "parameters": self.parameters,
            "remat": self.remat,
            "dtype": self.dtype,
            "topology": self.topology.name,
            "devices": self.topology.devices,
            "mesh": self.mesh,
            "fits": self.fits,
            "days": self.days,
            "stages": described,
        }


def mesh_of(run: Run, topology: Topology, *, compiled: bool) -> AnyMesh:
    """The run's mesh over the topology: of its devices where there is a compiler, else of no devices at all."""
    if compiled:
        return run.mesh.build(compiling.devices(topology))
    return abstract_mesh(run, topology)


def abstract_mesh(run: Run, topology: Topology) -> jax.sharding.AbstractMesh:
    """The run's mesh over as many devices as the topology has, without them."""
    told = topology.slices if topology.chip.platform == "tpu" else None
    slices = count_slices(topology.devices, told, run.mesh.slices)
    return jax.sharding.AbstractMesh(tuple(run.mesh.shape(topology.devices, slices)), AXES)


def make_plan(run: Run, topology: Topology, *, formula: bool = False, store: Path | None = None) -> Plan:
    """Compiles each stage for the topology, or where there is no compiler (or `formula`) works it out by arithmetic.
    `store`: as for `compiling.compile_step`.

    Raises:
      UserError: the mesh or a batch does not fit the number of devices, or there is no compiler.
    """
    compiled = topology.chip.platform != "gpu" and not formula
    mesh = mesh_of(run, topology, compiled=compiled)
    check(run, mesh)
    one = functools.partial(_compiled_stage, store=store) if compiled else formula_stage
    return Plan(
        name=run.name,
        parameters=run.model.num_params(),
        remat=remat(run),
        dtype=_part(run.model, "dtype"),
        topology=topology,
        mesh=dict(mesh.shape),
        stages=tuple(one(stage, mesh, topology) for stage in stages(run)),
    )


def remat(run: Run) -> str:
    """`none`, `attention` or `full`."""
    return _part(run.model, "remat")


def _part(model: Any, field: str) -> str:
    return getattr(model, field, None) or getattr(getattr(model, "encoder", None), field, "")


def _common(stage: Stage, mesh: AnyMesh, topology: Topology) -> dict[str, Any]:
    run = stage.run
    return {
        "start": stage.start,
        "stop": stage.stop,
        "batch_size": run.batch_size,
        "microbatches": run.microbatches,
        "rows": run.batch_size / (batch_shards(mesh) * run.microbatches),  # type: ignore[arg-type]
        "tokens": stage.tokens,
        "available": topology.chip.memory,
        "model_flops": stage.flops,
    }


def formula_stage(stage: Stage, mesh: AnyMesh, topology: Topology) -> StagePlan:
    """By arithmetic (`planning.formula`)."""
    model = Formula(stage)
    memory = model.memory(mesh)
    collectives = model.collectives(mesh)
    flops, moved = model.flops(mesh), model.bytes(mesh)
    spent = roofline.times(
        flops=flops, bytes=moved, device=None, collectives=collectives, where=roofline.places(topology, None),
        topology=topology, rate=topology.flops(_part(stage.run.model, "dtype")),
    )  # fmt: skip
    return StagePlan(
        **_common(stage, mesh, topology),
        memory=memory,
        needed=sum(memory.values()),
        flops=flops,
        bytes=moved,
        traffic=Costs((), collectives, 0).traffic(),
        times=spent,
        how="formula",
        compiler="",
        compile_seconds=0.0,
        unknown_loops=0,
        unknown_kernels=0,
    )


def _compiled_stage(stage: Stage, mesh: Any, topology: Topology, *, store: Path | None) -> StagePlan:
    """By the compiler; where it refuses, what it says of memory, and the rest by arithmetic."""
    program = compiling.compile_step(stage, mesh, store)
    about = {"compiler": program.compiler, "compile_seconds": program.seconds}
    known = state_bytes(stage.run, mesh)
    if program.text is None:
        guess = formula_stage(stage, mesh, topology)
        return dataclasses.replace(
            guess, memory=known, needed=max(program.needed, topology.chip.memory + 1), **about
        )
    found = costs.count(hlo.parse(program.text))
    memory = known | {
        "batch": program.arguments - sum(known.values()),
        "activations": found.kept,
        "temporaries": program.temporaries - found.kept + program.outputs - program.aliased,
        "program": program.code,
    }
    chip, rate = topology.chip, topology.flops(_part(stage.run.model, "dtype"))
    spent = roofline.times(
        flops=found.flops,
        bytes=found.bytes,
        device=found.seconds(rate, chip.bandwidth),
        collectives=found.collectives,
        where=roofline.places(topology, list(mesh.devices.flat)),
        topology=topology,
        rate=rate,
    )
    return StagePlan(
        **_common(stage, mesh, topology),
        memory=memory,
        needed=sum(memory.values()),
        flops=found.flops,
        bytes=found.bytes,
        traffic=found.traffic(),
        times=spent,
        how="compiled",
        unknown_loops=found.unknown_loops,
        unknown_kernels=found.unknown_kernels,
        accepted=chip.platform == "tpu",
        **about,
    )


# ---- words ----------------------------------------------------------------------------------------


def describe(plan: Plan) -> str:
    """The plan as it is printed."""
    topology, chip = plan.topology, plan.topology.chip
    slices = f" in {topology.slices} slices" if topology.slices > 1 else ""
    lines = [
        f"{plan.name}: {plan.parameters:,} parameters, {plan.dtype}, remat={plan.remat}",
        f"{topology.name}: {topology.devices:,} x {chip.title}{slices}; each {chip.flops / 1e12:.3g} TFLOP/s, "
        f"{chip.memory / GIB:.2f} GiB for programs, {chip.bandwidth / 1e9:,.0f} GB/s",
        "mesh " + " ".join(f"{axis}={size}" for axis, size in plan.mesh.items()),
    ]
    for stage in plan.stages:
        lines += ["", *_describe_stage(plan, stage)]
    if not plan.fits:
        lines += ["", "--suggest looks for settings that fit"]
    steps = plan.stages[-1].stop
    lines += ["", f"{steps:,} steps: {_number(plan.days)} days, if nothing but steps took time"]
    return "\n".join(lines)


def _describe_stage(plan: Plan, stage: StagePlan) -> list[str]:
    chip, spent = plan.topology.chip, stage.times
    span = f"steps {stage.start:,} to {stage.stop:,}: " if len(plan.stages) > 1 else ""
    parts = f" in {stage.microbatches} microbatches" if stage.microbatches > 1 else ""
    lines = [
        f"{span}{stage.batch_size:,} rows a step{parts}, {_number(stage.rows)} at a time on a device; "
        f"{stage.tokens:,} tokens"
    ]
    if stage.how == "compiled":
        lines.append(f"compiled by {stage.compiler} in {stage.compile_seconds:.0f} s")
    elif stage.compiler:
        lines.append(
            f"refused by {stage.compiler} after {stage.compile_seconds:.0f} s: what follows is by formula"
        )
    else:
        lines.append("by formula, nothing was compiled: an estimate")
    lines.append("memory a device")
    for kind, size in stage.memory.items():
        lines.append(f"  {kind:<14}{size / GIB:>9.3f} GiB   {KINDS[kind]}".rstrip())
    verdict = "fits" if stage.fits else "DOES NOT FIT"
    lines.append(
        f"  {'needed' if not stage.fits else 'total':<14}{stage.needed / GIB:>9.3f} GiB   "
        f"of {chip.memory / GIB:.2f}: {verdict}"
    )
    ratio = stage.flops * plan.topology.devices / stage.model_flops
    lines += [
        "a step on a device",
        f"  operations    {stage.flops:>9.3g}       {ratio:.2f} x the model's {stage.model_flops:.4g} on all",
        f"  bytes         {stage.bytes:>9.3g}       {_number(stage.flops / stage.bytes)} operations a byte; "
        f"the chip turns at {chip.flops / chip.bandwidth:.0f}",
    ]
    lines += [
        f"  {kind:<19}{total:>9.3g} bytes in {number:,}" for kind, (number, total) in stage.traffic.items()
    ]
    bound = "roofline of every instruction" if stage.how == "compiled" else "roofline of the sums"
    lines += [
        f"seconds a step, at best ({bound})",
        f"  compute {_number(spent.compute)}, memory {_number(spent.memory)}, "
        f"links {_number(spent.links)}, network {_number(spent.network)}",
        f"  device {_number(spent.device)} + collectives that nothing hides {_number(spent.exposed)} "
        f"= {_number(spent.step)}",
        f"  MFU {100 * plan.mfu(stage):.1f} % at most; {stage.tokens * SECONDS_A_DAY / spent.step:.3g} tokens a day",
    ]
    if stage.unknown_loops:
        lines.append(f"  {stage.unknown_loops} loops of unknown length were counted once")
    if stage.unknown_kernels:
        lines.append(f"  operations of {stage.unknown_kernels} kernels are unknown and not counted")
    return lines


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
