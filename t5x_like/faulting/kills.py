"""F01, F02, F36: ended at once, at random moments and at every stage of a save."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import time
from pathlib import Path

from t5x_like.errors import Exit
from t5x_like.failpoints import PLACES
from t5x_like.faulting import tiny, trials
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench
from t5x_like.training.recovery import Recovery
from t5x_like.training.run import Evaluation, Run

CHAIN = 10
"""Kills in one run directory, each followed by the same command, before the run is let through and compared."""


def random_kills(bench: Bench, kills: int, processes: int = 1, seed: int = 0, steps: int = 60) -> Outcome:
    """kill -9 at random moments: of starting, compiling, restoring, training, validating, saving, pruning.

    Every start must go on from the newest checkpoint that was complete when the process before was killed; and the
    losses of every step and the final state must be those of a run that was not disturbed, to the bit. Of several
    processes one, chosen at random, is killed, the others right
    after it: what becomes of those that live on is F06.
    """
    # Of ten kills in a row every one may come before the first save, which is what the guard of F42 would refuse.
    run = dataclasses.replace(tiny.make(bench.data, steps=steps), recovery=Recovery(starts=0))
    if processes > 1:  # which start slowly where they have not a core each: shorter, and without validation
        run = dataclasses.replace(run, steps=20, evaluation=Evaluation(every=0))
    reference, rng = bench.reference(run, processes), random.Random(seed)
    failures: list[str] = []
    done = in_save = early = lost = chains = 0
    while done < kills and len(failures) < 3:
        workdir, before, starts = bench.new("kills"), 0, 0
        chains += 1
        for _ in range(min(CHAIN, kills - done)):
            killed = _kill_once(bench, run, workdir, processes, rng)
            done += killed
            if trouble := _went_on(workdir, before, starts):
                failures.append(f"{workdir.name}: {trouble}")
            if not killed:
                break
            begun = len(_starts(workdir)) > starts  # else what lies there may be of the kill before
            in_save += begun and trials.saving(workdir)
            early += not begun
            before, starts = max(trials.sealed(workdir), default=0), len(_starts(workdir))
            lost = max(lost, _reached(workdir) - before)
        codes, log = bench.finish_all(run, workdir, processes)
        if set(codes) != {Exit.DONE}:
            failures.append(f"{workdir.name}: exit codes {codes}: {log.strip().splitlines()[-1]}")
        elif trouble := _went_on(workdir, before, starts) or trials.differences(reference, workdir):
            failures.append(f"{workdir.name}: {trouble}")
    return judged(
        f"kill -9 at {done} random moments of {chains} runs of {_processes(processes)}: {early} before the first "
        f"step, {in_save} inside a save",
        f"every one resumed from the newest complete checkpoint; losses of all steps and final states bit-equal to "
        f"the undisturbed run; at most {lost} steps done again, with a save every {tiny.EVERY}",
        failures,
        kills=done,
        before_the_first_step=early,
        inside_a_save=in_save,
        runs=chains,
        most_steps_again=lost,
    )


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


def _kill_once(bench: Bench, run: Run, workdir: Path, processes: int, rng: random.Random) -> bool:
    """Starts the command and kills it at a random moment; False where it had ended before."""
    lines = trials.lines(workdir)
    with contextlib.ExitStack() as stack:
        if processes == 1:
            started = [stack.enter_context(bench.start(run, workdir))]
        else:
            started = stack.enter_context(bench.start_all(run, workdir, processes))
        if rng.random() < 0.75:
            further = rng.randint(1, 9 if len(started) == 1 else 3)
            started[0].until(lambda: trials.lines(workdir) >= lines + further)
            time.sleep(rng.uniform(0, 0.25))
        else:  # somewhere on the way to the first step
            time.sleep(rng.uniform(0, 4 * processes))
        first = rng.randrange(processes)
        for process in (started[first], *started):
            process.signal(signal.SIGKILL)
        for process in started:
            process.wait()
        return "done:" not in started[0].log


def _reached(workdir: Path) -> int:
    """The last step that a run has told of."""
    return max((line[0] for line in trials.figures(workdir)), default=0) if trials.lines(workdir) else 0


def _starts(workdir: Path) -> list[int]:
    """The steps that the starts of a run so far began at, as far as they came to beginning."""
    if not (workdir / "events.jsonl").exists():
        return []
    return [e["step"] for e in trials.events(workdir) if e["event"] in ("started", "resumed")]


def _went_on(workdir: Path, newest: int, starts: int) -> str:
    """How the start behind the first `starts` ones went wrong: it must have begun at step `newest` or later."""
    for step in _starts(workdir)[starts:]:
        if step < newest:
            return f"went on from step {step}, where checkpoint {newest} was complete"
    return ""


def failpoints(bench: Bench, places: list[str] | None = None, visits: tuple[int, ...] = (1, 3)) -> Outcome:
    """Ended at once at every named place of training (those of pruning are F36), at several visits where it is visited
    often; then the same command."""
    run = tiny.make(bench.data, steps=12)
    reference, failures, tried = bench.reference(run), [], 0
    trained = [p for p in PLACES if p.startswith(("run.", "validation.", "checkpoint.")) and "prun" not in p]
    for place in places or trained:
        for visit in visits if place.startswith("checkpoint.") else (1,):
            workdir = bench.new(f"{place}-{visit}")
            code, log = bench.finish(run, workdir, fault=f"{place}:{visit}")
            tried += 1
            if code != 137:
                failures.append(f"{place}:{visit} was not reached: exit code {code}: {log[-300:]}")
                continue
            before, starts = max(trials.sealed(workdir), default=0), len(_starts(workdir))
            code, log = bench.finish(run, workdir)
            if code != Exit.DONE:
                failures.append(f"{place}:{visit}: exit code {code}: {log[-300:]}")
            elif trouble := _went_on(workdir, before, starts) or trials.differences(reference, workdir):
                failures.append(f"{place}:{visit}: {trouble}")
    return judged(
        f"ended at {tried} named moments: {', '.join(places or trained)}",
        "each time the newest complete checkpoint was restored, the end bit-equal, nothing left over",
        failures,
        tried=tried,
    )


def pruning(bench: Bench) -> Outcome:
    """F36: ended between un-naming an old checkpoint and deleting it."""
    row = failpoints(bench, ["checkpoint.prune", "checkpoint.pruning"])
    return judged(
        "ended before and in the middle of removing an old checkpoint",
        row.outcome,
        row.figures.get("failures", []),
    )
