"""Which settings make a run fit, and which of those cost least.

    found = suggest(run, topology)
    print(describe(found))

First by arithmetic (`planning.formula`): each setting alone, then combinations. A smaller batch changes what is
learnt, so it is offered only where nothing else is enough. A run that fits is left as it is; else the fastest
combination that should fit is compiled. Where the compiler needs more than the formula said, all are measured with its
ratio and the next is tried.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t5x_like import typed
from t5x_like.errors import UserError
from t5x_like.planning import plans
from t5x_like.planning.plans import Plan
from t5x_like.planning.stages import check, stages
from t5x_like.planning.topologies import GIB, Topology
from t5x_like.training.run import Run, validate

REMATS = ("none", "attention", "full")
TRIES = 4
MOST_TENSOR = 16
MARGIN = 0.95
"""Share of the memory that the formula may fill: compilers fragment it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A combination of settings by formula. `changes`: path -> value, as for --set; empty for the run as it is."""

    run: Run
    changes: dict[str, Any]
    needed: int
    seconds: float

    @property
    def flags(self) -> str:
        return " ".join(f"--set={path}={value}" for path, value in self.changes.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What was found.

    Attributes:
      asked: the run as it is, by formula.
      alone: lever ("remat", "accumulation", "fsdp", "tensor", "batch") -> the mildest setting of it that would be
        enough by itself, or None.
      tried: what was compiled, in order, with its plan; the last fits unless `chosen` is None.
      chosen: the combination that fits, with its plan.
      scale: bytes of the compiler by bytes of the formula, as far as anything was compiled.
    """

    asked: Candidate
    alone: dict[str, Candidate | None]
    tried: tuple[tuple[Candidate, Plan], ...]
    chosen: tuple[Candidate, Plan] | None
    scale: float
    available: int

    def data(self) -> dict[str, Any]:
        def plain(candidate: Candidate | None) -> dict[str, Any] | None:
            if candidate is None:
                return None
            return {"set": candidate.changes, "needed": candidate.needed, "seconds": candidate.seconds}

        return {
            "asked": plain(self.asked),
            "alone": {lever: plain(candidate) for lever, candidate in self.alone.items()},
            "tried": [{**(plain(c) or {}), "fits": plan.fits} for c, plan in self.tried],
            "chosen": None
            if self.chosen is None
            else {**(plain(self.chosen[0]) or {}), "plan": self.chosen[1].data()},
        }


def suggest(run: Run, topology: Topology, *, formula: bool = False, store: Path | None = None) -> Suggestion:
    """See the module's first lines.

    Raises:
      UserError: nothing fits, with the smallest that was found.
    """
    asked = _candidate(run, {}, topology)
    if asked is None:  # its batch or mesh does not go with the topology: say so as a plan would
        check(run, plans.abstract_mesh(run, topology))
        raise AssertionError("a run that checks has a candidate")
    compiles = topology.chip.platform != "gpu" and not formula
    tried: list[tuple[Candidate, Plan]] = []
    scale = 1.0
    candidates = [asked, *_combinations(run, topology)]
    chosen = None
    refused: set[str] = set()
    for _ in range(TRIES):
        room = topology.chip.memory * MARGIN / scale
        fitting = [c for c in candidates if c.needed <= room and c.flags not in refused]
        if not fitting:
            break
        best = min(
            fitting, key=lambda c: (bool(c.changes), "batch_size" in c.changes, c.seconds, len(c.changes))
        )
        plan = plans.make_plan(best.run, topology, formula=not compiles, store=store)
        tried.append((best, plan))
        if plan.fits:
            chosen = best, plan
            break
        refused.add(best.flags)
        needed = max(stage.needed for stage in plan.stages)
        scale = max(scale, needed / best.needed)
    if chosen is None:
        least = min(candidates, key=lambda c: c.needed)
        raise UserError(
            f"nothing was found that fits {topology.name}: the least that was tried needs "
            f"{least.needed * scale / GIB:.1f} of {topology.chip.memory / GIB:.2f} GiB a device",
            where=f"--topology={topology.name}",
            help=f"more chips; or begin with {least.flags or 'a smaller model'}",
        )
    return Suggestion(
        asked=asked,
        alone=_alone(run, topology, scale),
        tried=tuple(tried),
        chosen=chosen,
        scale=scale,
        available=topology.chip.memory,
    )


def _candidate(run: Run, changes: dict[str, Any], topology: Topology) -> Candidate | None:
    """None where these settings cannot be."""
    try:
        for path, value in changes.items():
            run = typed.override(run, f"{path}={value}")
        validate(run)
        mesh = plans.abstract_mesh(run, topology)
        check(run, mesh)
    except UserError:
        return None
    found = [plans.formula_stage(stage, mesh, topology) for stage in stages(run)]
    return Candidate(
        run=run,
        changes=changes,
        needed=max(stage.needed for stage in found),
        seconds=sum(s.times.step * (s.stop - s.start) for s in found) / max(1, found[-1].stop),
    )


def remat_path(run: Run) -> str:
    """Where the model keeps its setting."""
    return "model.remat" if hasattr(run.model, "remat") else "model.encoder.remat"


def _remats(run: Run) -> list[dict[str, Any]]:
    """Settings that recompute more than the run does."""
    path, now = remat_path(run), REMATS.index(plans.remat(run))
    return [{path: value} for value in REMATS[now + 1 :]]


def _accumulations(run: Run, topology: Topology) -> list[dict[str, Any]]:
    """Twice the microbatches, four times, ... down to one row a device."""
    most = run.batch_size // run.microbatches
    return [{"microbatches": run.microbatches * 2**k} for k in range(1, most.bit_length()) if 2**k <= most]


def _powers(most: int) -> list[int]:
    return [2**k for k in range(most.bit_length()) if 2**k <= most and most % 2**k == 0]


def _meshes(run: Run, topology: Topology) -> dict[str, list[dict[str, Any]]]:
    """Wider fsdp axes than the run's, wider tensor axes (inside a slice), and both; copies take the rest."""
    shape = plans.abstract_mesh(run, topology).shape
    fsdp, tensor = shape["fsdp"], shape["tensor"]
    devices, widest = topology.devices, min(MOST_TENSOR, topology.per_slice)

    def setting(**axes: int) -> dict[str, Any]:
        return {"mesh.data": -1, **{f"mesh.{axis}": size for axis, size in axes.items()}}

    return {
        "fsdp": [setting(fsdp=n) for n in _powers(devices // tensor) if n > fsdp],
        "tensor": [setting(tensor=n) for n in _powers(min(devices // fsdp, widest)) if n > tensor],
        "both": [
            setting(fsdp=n, tensor=t)
            for n in _powers(devices)
            for t in _powers(widest)
            if n > fsdp and t > tensor and devices % (n * t) == 0
        ],
    }


def _combinations(run: Run, topology: Topology) -> Iterator[Candidate]:
    """Everything but the batch; then the same with smaller batches, only where nothing of the first would do."""
    meshes = _meshes(run, topology)
    options = (
        [{}, *_remats(run)],
        [{}, *_accumulations(run, topology)],
        [{}, *meshes["fsdp"], *meshes["tensor"], *meshes["both"]],
    )
    found = []
    for parts in itertools.product(*options):
        changes = {path: value for part in parts for path, value in part.items()}
        if changes and (candidate := _candidate(run, changes, topology)):
            found.append(candidate)
    yield from found
    if any(c.needed <= topology.chip.memory * MARGIN for c in found):
        return
    least = min(found, key=lambda c: c.needed, default=None)
    for batch in _batches(run):
        if candidate := _candidate(run, {**(least.changes if least else {}), **batch}, topology):
            yield candidate
        if candidate := _candidate(run, batch, topology):
            yield candidate


def _batches(run: Run) -> list[dict[str, Any]]:
    """Half the batch, a quarter, ..."""
    return [{"batch_size": run.batch_size >> k} for k in range(1, run.batch_size.bit_length())]


def _alone(run: Run, topology: Topology, scale: float) -> dict[str, Candidate | None]:
    meshes = _meshes(run, topology)
    levers = {
        "remat": _remats(run),
        "accumulation": _accumulations(run, topology),
        "fsdp": meshes["fsdp"],
        "tensor": meshes["tensor"],
        "batch": _batches(run),
    }
    room = topology.chip.memory * MARGIN / scale
    found: dict[str, Candidate | None] = {}
    for lever, settings in levers.items():
        candidates = (_candidate(run, changes, topology) for changes in settings)
        found[lever] = next((c for c in candidates if c is not None and c.needed <= room), None)
    return found


def describe(found: Suggestion) -> str:
    """The suggestion as it is printed, and the plan of what was chosen."""
    assert found.chosen is not None
    best, plan = found.chosen
    limit = found.available / GIB
    lines = [
        f"as asked: {found.asked.needed * found.scale / GIB:.1f} of {limit:.2f} GiB a device, by formula"
        + (f" x {found.scale:.2f}, what the compiler took more" if found.scale > 1 else ""),
    ]
    if best.changes:
        lines.append("by itself would be enough:")
    for lever, candidate in found.alone.items() if best.changes else ():
        if candidate is None:
            lines.append(f"  {lever:<14}nothing of it")
        else:
            lines.append(
                f"  {lever:<14}{candidate.flags}: {candidate.needed * found.scale / GIB:.1f} GiB, "
                f"{candidate.seconds:.3g} s a step"
            )
    for candidate, tried in found.tried:
        verdict = "fits" if tried.fits else "does not fit"
        needed = max(stage.needed for stage in tried.stages)
        how = tried.stages[0].how if tried.fits else "compiled"
        lines.append(f"{how}: {candidate.flags or 'as asked'}: {needed / GIB:.2f} GiB, {verdict}")
    lines += [f"suggested: {best.flags}" if best.changes else "it fits as it is", "", plans.describe(plan)]
    return "\n".join(lines)
