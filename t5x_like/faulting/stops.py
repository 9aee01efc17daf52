"""F03 to F07, F34, F38, F42: told to stop, a process lost, stopped or stalled, two runs in one place, slow storage."""

from __future__ import annotations

import dataclasses
import re
import signal
import time

from t5x_like.errors import Exit
from t5x_like.faulting import tiny, trials
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench
from t5x_like.training.recovery import Recovery
from t5x_like.training.run import Run

STALL = 60.0
"""Seconds without a step that the runs here allow; a step of theirs takes milliseconds."""
PAIR_STEPS = 12
"""Of runs of two processes, whose steps are slow where the two have not a core each."""
NOTICE = 60.0
"""Within so many seconds of the loss of a process the others must have ended, on a loaded machine."""


def told_to_stop(bench: Bench) -> Outcome:
    """F03: SIGTERM; the step is finished, saved, and the same command continues."""
    run = tiny.make(bench.data, steps=60)
    reference, workdir, failures = bench.reference(run), bench.new("sigterm"), []
    with bench.start(run, workdir) as process:
        process.until(lambda: trials.lines(workdir) >= 7)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        code, log = process.wait(), process.log
    seconds = time.monotonic() - began
    told = trials.events(workdir, "interrupted")
    if code != Exit.INTERRUPTED or not told:
        failures.append(f"exit code {code}: {log[-300:]}")
    elif max(trials.sealed(workdir)) != told[-1]["step"] or max(trials.losses(workdir)) != told[-1]["step"]:
        failures.append(f"stopped at step {told[-1]['step']}, saved {trials.sealed(workdir)}")
    return _continued(
        bench,
        run,
        workdir,
        failures,
        "SIGTERM while training",
        f"step finished and saved, exit code 75 after {seconds:.1f} s, no step lost; the end bit-equal",
        seconds=round(seconds, 2),
        reference=reference,
    )


def told_twice(bench: Bench) -> Outcome:
    """F05: the second signal ends at once, where the save that the first asked for would take long."""
    run = tiny.make(bench.data, steps=60)
    reference, workdir, failures = bench.reference(run), bench.new("twice"), []
    with bench.start(run, workdir, fault="checkpoint.arrays:4+:sleep=60") as process:
        process.until(lambda: trials.lines(workdir) >= 6)
        process.signal(signal.SIGINT)
        process.until(lambda: "finishing the step" in process.log)
        began = time.monotonic()
        process.signal(signal.SIGINT)
        code, log = process.wait(), process.log
    seconds = time.monotonic() - began
    if code != Exit.INTERRUPTED or seconds > 20 or "left at once" not in log:
        failures.append(f"exit code {code} after {seconds:.1f} s: {log[-300:]}")
    return _continued(
        bench,
        run,
        workdir,
        failures,
        "SIGINT twice, the save made to last a minute",
        f"left {seconds:.1f} s after the second; continued from the last complete checkpoint, the end bit-equal",
        reference=reference,
    )


def _continued(
    bench: Bench,
    run: Run,
    workdir: trials.Path,
    failures: list[str],
    injected: str,
    outcome: str,
    reference: trials.Path,
    processes: int = 1,
    **figures: object,
) -> Outcome:
    """Lets the same command run to its end, and compares."""
    codes, log = bench.finish_all(run, workdir, processes)
    if set(codes) != {Exit.DONE}:
        failures.append(f"not continued: exit codes {codes}: {log[-400:]}")
    elif trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    return judged(injected, outcome, failures, **figures)


def one_of_two_told(bench: Bench) -> Outcome:
    """F04: SIGTERM to one of two processes."""
    run = tiny.make(bench.data, steps=PAIR_STEPS)
    reference, workdir, failures = bench.reference(run, processes=2), bench.new("two-sigterm"), []
    with bench.start_all(run, workdir, 2) as processes:
        processes[0].until(lambda: trials.lines(workdir) >= 3)
        began = time.monotonic()
        processes[1].signal(signal.SIGTERM)
        codes = [process.wait() for process in processes]
        log = processes[0].log
    seconds = time.monotonic() - began
    told = trials.events(workdir, "interrupted")
    if codes != [Exit.INTERRUPTED] * 2 or not told or max(trials.sealed(workdir)) != told[-1]["step"]:
        failures.append(f"exit codes {codes}, saved {trials.sealed(workdir)}: {log[-300:]}")
    return _continued(
        bench,
        run,
        workdir,
        failures,
        "SIGTERM to the second of two processes",
        f"both stopped at the same step, saved and exited with 75 after {seconds:.1f} s; the end bit-equal",
        reference=reference,
        processes=2,
        seconds=round(seconds, 2),
    )


def one_of_two_lost(bench: Bench, victim: int = 1, number: int = signal.SIGKILL) -> Outcome:
    """F06 and, with SIGSTOP, F07: a process is gone, or hangs; the other says so and ends, to be started again."""
    killed = number == signal.SIGKILL
    watch = Recovery() if killed else Recovery(stall_seconds=STALL)
    run = tiny.make(bench.data, steps=PAIR_STEPS, recovery=watch)
    reference = bench.reference(tiny.make(bench.data, steps=PAIR_STEPS), processes=2)
    workdir, failures = bench.new("two-lost" if killed else "two-stopped"), list[str]()
    with bench.start_all(run, workdir, 2) as processes:
        processes[0].until(lambda: trials.lines(workdir) >= 3)
        began = time.monotonic()
        processes[victim].signal(number)
        survivor = processes[1 - victim]
        try:
            code = survivor.wait(STALL + NOTICE)
        except TimeoutError as e:
            code = -1
            failures.append(str(e))
        log = survivor.log
    seconds = time.monotonic() - began
    lines = [line for line in log.splitlines() if line.startswith("error:")]
    if code != Exit.INTERRUPTED or not lines:
        failures.append(f"the other ended with {code} after {seconds:.0f} s: {log[-400:]}")
    how = "SIGKILL" if killed else "SIGSTOP"
    return _continued(
        bench,
        dataclasses.replace(run, recovery=Recovery()),
        workdir,
        failures,
        f"{how} to process {victim} of two",
        f"the other ended with 75 after {seconds:.0f} s and said: {lines[-1][:200] if lines else ''}; started again, "
        "the end bit-equal",
        reference=reference,
        processes=2,
        seconds=round(seconds, 1),
    )


def stalled(bench: Bench) -> Outcome:
    """F07: a step that never ends."""
    run = tiny.make(bench.data, steps=12, recovery=Recovery(stall_seconds=STALL))
    reference, workdir, failures = bench.reference(tiny.make(bench.data, steps=12)), bench.new("stalled"), []
    with bench.start(run, workdir, fault="run.step:8:sleep=3600") as process:
        process.until(lambda: trials.lines(workdir) >= 7)
        began = time.monotonic()
        code, log = process.wait(STALL + NOTICE), process.log
    seconds = time.monotonic() - began
    stacks = (workdir / "log.txt").read_text()
    if code != Exit.INTERRUPTED or "has got no further" not in log:
        failures.append(f"exit code {code}: {log[-300:]}")
    if not re.search(r"failpoints.py.*in _act", stacks):
        failures.append("the stack of the stalled thread is not in log.txt")
    run = dataclasses.replace(run, recovery=Recovery())
    return _continued(
        bench,
        run,
        workdir,
        failures,
        f"a step that takes an hour, with recovery.stall_seconds={STALL:.0f}",
        f"ended with 75 after {seconds:.0f} s, host, process and step named, all stacks in log.txt; the end bit-equal",
        reference=reference,
        seconds=round(seconds, 1),
    )


def two_in_one_place(bench: Bench) -> Outcome:
    """F34."""
    run = tiny.make(bench.data, steps=24)
    reference, workdir, failures = bench.reference(run), bench.new("twofold"), []
    with bench.start(run, workdir) as first:
        first.until(lambda: trials.lines(workdir) >= 2)
        second = bench.new("second")
        with bench.start(run, workdir, log=second.with_suffix(".log")) as other:
            code, log = other.wait(), other.log
        if code != Exit.LOCKED or f"pid {first.pid}" not in log:
            failures.append(f"the second ended with {code}: {log[-300:]}")
        if (code := first.wait()) != Exit.DONE:
            failures.append(f"the first ended with {code}: {first.log[-300:]}")
    if trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    return judged(
        "the same command while it runs already",
        "the second refused with 77, naming host, pid and time of "
        "the first; the first not disturbed, bit-equal",
        failures,
    )


def slow_storage(bench: Bench) -> Outcome:
    """F38: every save takes a second and more; never more than one is under way, and the waiting is accounted for."""
    run = tiny.make(bench.data, steps=12)
    reference, workdir, failures = bench.reference(run), bench.new("slow"), []
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, len(list((workdir / "checkpoints").glob("saving-*"))))
        return False

    with bench.start(run, workdir, fault="checkpoint.arrays:1+:sleep=1") as process:
        process.until(look)
        code, log = process.wait(), process.log
    if most != 1:
        failures.append(f"{most} saves were under way at one time")
    waited = trials.events(workdir, "clock")[-1]["seconds"]["checkpoint"]
    if code != Exit.DONE:
        failures.append(f"exit code {code}: {log[-300:]}")
    elif trouble := trials.differences(reference, workdir):
        failures.append(trouble)
    if waited < 3:
        failures.append(f"only {waited:.1f} s were filed under checkpoint")
    return judged(
        "storage that takes a second longer for each of 6 saves",
        f"one save under way at a time; {waited:.1f} s of waiting filed as checkpoint; bit-equal",
        failures,
        waited=round(waited, 2),
    )


def crash_loop(bench: Bench) -> Outcome:
    """F42: a run that dies at one step each time it is started."""
    run = tiny.make(bench.data, steps=12, recovery=Recovery(starts=3))
    workdir, failures, codes, log = bench.new("crash-loop"), list[str](), list[int](), ""
    for _ in range(5):
        code, log = bench.finish(run, workdir, fault="run.step:2")
        codes.append(code)
        if code != 137:
            break
    if codes != [137, 137, 137, Exit.INTERNAL] or "--skip_batches=0-0" not in log or "new run" in log:
        failures.append(f"exit codes {codes}: {log[-300:]}")
    return judged(
        "ended at the second step of every start, with recovery.starts=3",
        "the fourth start refused with 70 before anything is compiled; --skip_batches and recovery.starts=0 offered",
        failures,
    )
