"""F17, F18: the devices and processes of a run change under it. F21 to F23: its losses go wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from t5x_like.errors import Exit
from t5x_like.faulting import tiny, trials
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench
from t5x_like.training import restore
from t5x_like.training.partitioning import Mesh
from t5x_like.training.recovery import Recovery

TOLERANCE = 2e-5
"""Relative difference of any loss of 40 steps; float32, sums in another order. 1.3e-7 has been measured."""

PARTS = (
    ("1 device", 1, 1, Mesh()),
    ("8 devices", 1, 8, Mesh(data=4, fsdp=2)),
    ("2 processes of 4", 2, 4, Mesh(data=8)),
    ("4 devices", 1, 4, Mesh(data=2, tensor=2)),
)
"""What each quarter of a run is trained on: name, processes, devices of each, mesh."""


def meshes(bench: Bench) -> Outcome:
    """F17 and F18: 1 device, 8, two processes of 4, 4."""
    run = tiny.make(bench.data)
    workdir, failures = bench.new("meshes"), list[str]()
    plain, seen = bench.new("plain"), bench.new("seen").with_suffix(".jsonl")
    expected = plain.with_suffix(".jsonl")
    code, log = bench.finish(run, plain, inject={"seen": str(expected)})
    if code:
        failures.append(f"undisturbed: exit code {code}: {log[-300:]}")
    for number, (name, processes, devices, mesh) in enumerate(PARTS, start=1):
        part = dataclasses.replace(run, steps=run.steps * number // len(PARTS), mesh=mesh)
        flag = f"--cpu_devices={devices}"
        codes, log = bench.finish_all(part, workdir, processes, flag, inject={"seen": str(seen)})
        if any(codes):
            failures.append(f"on {name}: exit codes {codes}: {log[-400:]}")
            break
    worst = 0.0
    if not failures:
        ours, theirs = trials.losses(workdir), trials.losses(plain)
        worst = max(abs((ours[s] or 0.0) - (theirs[s] or 1.0)) / abs(theirs[s] or 1.0) for s in theirs)
        if ours.keys() != theirs.keys() or worst > TOLERANCE:
            failures.append(f"losses differ by up to {worst:.2g}, relative")
        if _rows(seen, run.steps) != _rows(expected, run.steps):
            failures.append("other examples, or in another order")
    return judged(
        f"40 steps in four parts on {', '.join(name for name, *_ in PARTS)}",
        f"every row of every batch the same (checksums); losses within {worst:.1e} of one device, relative "
        f"(at most {TOLERANCE:g} allowed)",
        failures,
        worst=worst,
    )


def _rows(path: Path, steps: int) -> dict[tuple[int, int], str]:
    """(step, row of the global batch) -> checksum, whichever process made it; batches made ahead of the end of a
    part are made again by the next."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        step, row, digest = json.loads(line)
        if found.setdefault((step, row), digest) != digest:
            raise AssertionError(f"row {row} of step {step} was made in two ways")
    return {at: digest for at, digest in found.items() if at[0] < steps}


def one_nonfinite(bench: Bench) -> Outcome:
    """F21: one batch whose loss is not finite."""
    run, workdir, failures = tiny.make(bench.data, steps=12), bench.new("one-nan"), list[str]()
    code, log = bench.finish(run, workdir, inject={"nonfinite": [5]})
    lost = [step for step, loss in trials.losses(workdir).items() if loss is None]
    skipped = trials.events(workdir, "skipped")
    dumped = workdir / "bad_batches" / "5.jsonl"
    if code or lost != [6] or [e["steps"] for e in skipped] != [[5]] or not dumped.exists():
        failures.append(f"exit code {code}, without a loss: {lost}, told: {skipped}: {log[-300:]}")
    return judged(
        "one batch with NaN in its loss",
        "its update left out, counted and told; the batch written down as ids and text; the run finished",
        failures,
    )


def many_nonfinite(bench: Bench) -> Outcome:
    """F22: three in a row, with `stop` and with `rollback`."""
    run, failures = tiny.make(bench.data, steps=16, max_nonfinite_steps=3), list[str]()
    workdir, inject = bench.new("stop"), {"nonfinite": [7, 8, 9]}
    code, log = bench.finish(run, workdir, inject=inject)
    if code != Exit.INTERNAL or "not finite: stopped at step 10" not in log:
        failures.append(f"stop: exit code {code}: {log[-300:]}")
    for step in trials.sealed(workdir):
        arrays = jax.tree.leaves(restore.restore_params(workdir, step)[1])
        if not all(np.isfinite(array).all() for array in arrays):
            failures.append(f"stop: checkpoint {step} is not finite")
    run = dataclasses.replace(run, recovery=Recovery(nonfinite="rollback"))
    undisturbed, workdir = bench.new("rollback"), bench.new("rollback-killed")
    code, log = bench.finish(run, undisturbed, inject=inject)
    back = trials.events(undisturbed, "rolled_back")
    if code or [(e["step"], e["to"], e["first"], e["count"]) for e in back] != [(10, 6, 6, 4)]:
        failures.append(f"rollback: exit code {code}, {back}: {log[-300:]}")
    bench.finish(run, workdir, inject=inject, fault="run.step:14")  # behind the rollback
    code, log = bench.finish(run, workdir, inject=inject)
    if code or trials.figures(workdir) != trials.figures(undisturbed):
        failures.append(f"killed after the rollback: exit code {code}, other figures: {log[-300:]}")
    elif trials.state_digest(workdir) != trials.state_digest(undisturbed):
        failures.append("killed after the rollback: another end")
    return judged(
        "three batches in a row with NaN in their losses",
        "stop: ended with 70, all checkpoints finite; rollback: from step 10 back to checkpoint 6, batches 6 to 9 left "
        "out, on record; killed after that and continued: bit-equal",
        failures,
    )


def spike(bench: Bench) -> Outcome:
    """F23: a batch that throws the loss up, with recovery.spikes=rollback."""
    run = tiny.make(bench.data, steps=60, recovery=Recovery(spikes="rollback"))
    workdir, failures = bench.new("spike"), list[str]()
    code, log = bench.finish(run, workdir, inject={"spike": [45]})
    told, back = trials.events(workdir, "spike"), trials.events(workdir, "rolled_back")
    told = [e for e in told if e["what"] == "loss"]
    if code or [e["step"] for e in told] != [45] or len(back) != 1 or back[0]["to"] > 45:
        failures.append(f"exit code {code}, told {told}, gone back {back}: {log[-300:]}")
    elif (
        max(loss or 99.0 for step, loss in trials.losses(workdir).items() if step > 40)
        > 1.5 * told[0]["usual"]
    ):
        failures.append("the spike is still in the curve")
    return judged(
        "a batch that throws the loss up, with recovery.spikes=rollback",
        "told; gone back to the checkpoint before, "
        "the batch left out, on record; no spike in the curve that was kept",
        failures,
    )
