"""What a run does when its losses go wrong, and when it dies again and again at the same step.

To roll back: the run goes on from the newest intact checkpoint of before the trouble, and leaves out the batches
from there to where it stopped, as PaLM did by hand (Chowdhery et al. 2022, section 5.1: restart before the spike,
skip the batches seen before and during it). Which batches are left out stands in the records of the checkpoints and
in events.jsonl, so that the batch of a step stays a pure function: `Batches(..., skips=...)`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from t5x_like.data.batches import Batches, Skips
from t5x_like.errors import Exit, UserError
from t5x_like.training import distributed, records
from t5x_like.training.checkpoints import Record, Store
from t5x_like.training.run_dir import RunDir, write_atomically

MOST_STALL_SECONDS = 1e8
"""Three years: what the timers of the operating system can hold."""
MOST_DUMPED = 20
"""Bad batches that a run directory keeps for people to look at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """What to do when a run goes wrong.

    Attributes:
      nonfinite: after `max_nonfinite_steps` losses or gradients in a row that were not finite: `stop`, or
        `rollback`, see the module's first lines.
      spikes: of the loss (training/spikes.py): `tell` only, or `rollback`. What is usual is learned anew after a
        restart, so a run that was interrupted may see another spike than one that was not.
      rollbacks: most of a run; then it stops.
      starts: in a row from one step, without a checkpoint saved, before the next is refused; 0 refuses none.
      stall_seconds: without a step, a validation batch or a save before the process shows where it stands and
        ends, so that a supervisor can start it again; 0 waits for ever.
    """

    nonfinite: Literal["stop", "rollback"] = "stop"
    spikes: Literal["tell", "rollback"] = "tell"
    rollbacks: int = 3
    starts: int = 10
    stall_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("rollbacks", "starts", "stall_seconds"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"recovery.{name} is {getattr(self, name)}; it must be at least 0",
                    where=f"recovery.{name}",
                )
        if self.stall_seconds and not 1 <= self.stall_seconds <= MOST_STALL_SECONDS:
            raise UserError(
                f"recovery.stall_seconds is {self.stall_seconds:g}; it is 1 to {MOST_STALL_SECONDS:g}, or 0",
                where="recovery.stall_seconds",
                help="0 waits for ever",
            )


class Trouble(Exception):
    """A run that is to be rolled back.

    Attributes:
      step: the step it came to.
      since: the first step that went wrong.
      what: the reason, for people.
    """

    def __init__(self, step: int, since: int, what: str):
        super().__init__(what)
        self.step, self.since, self.what = step, since, what


def agreed(find: Callable[[], Record | None]) -> Record | None:
    """The checkpoint that the first process finds, on all processes."""

    def fields() -> dict[str, Any] | None:
        record = find()
        return None if record is None else dataclasses.asdict(record)

    found = distributed.from_first(fields)
    return None if found is None else records.from_fields(found)


def check(
    recovery: Recovery, directory: RunDir, store: Store, record: Record | None, skip: tuple[int, int] | None
) -> Skips:
    """Before a run goes on from `record`: tells of the checkpoints that were damaged, refuses a run that dies again
    and again (`check_starts`), and returns the batches to leave out, `skip` among them (`asked_for`)."""
    step, skips = (record.step, record.skips) if record else (0, ())
    for damaged, reason in store.damaged.items():
        directory.event("damaged", step=damaged, reason=reason)
    if skip is not None and skip not in skips:
        skips = asked_for(skip, skips, step)
        directory.event("left_out", step=step, first=skip[0], count=skip[1], reason="asked for")
    else:
        with distributed.together():
            check_starts(directory.events(), step, recovery, directory)
    return skips


def roll_back(
    trouble: Trouble, recovery: Recovery, directory: RunDir, store: Store, batches: Batches
) -> tuple[Record | None, Skips]:
    """What the run goes on from: the newest intact checkpoint of before the trouble (None: the beginning), and the
    batches to leave out from there on.

    Raises:
      UserError: it has been rolled back as often as it may be.
    """
    before = (r for r in reversed(store.records()) if r.step <= trouble.since)
    record = agreed(lambda: next((r for r in before if not store.look(r.step)[1]), None))
    step, times = record.step if record else 0, len(batches.skips)
    if times >= recovery.rollbacks:
        directory.event("stopped", step=trouble.step, reason=trouble.what)
        raise UserError(
            f"{trouble.what}, and {times} stretches of batches have been left out: stopped at step {trouble.step}",
            where=str(directory.path),
            code=Exit.INTERNAL,
            help=f"checkpoint {step} is the last of before the trouble; lower the learning rate, set "
            f"clip_global_norm=1.0 or model.dtype=float32, or allow more: --set=recovery.rollbacks={2 * times + 1}",
        )
    first = batches.number(step)
    count = batches.number(trouble.step - 1) + 1 - first
    directory.event("rolled_back", step=trouble.step, to=step, first=first, count=count, reason=trouble.what)
    directory.say(
        f"{trouble.what}: back from step {trouble.step} to step {step}; "
        f"batches {first} to {first + count - 1} are left out from here on"
    )
    return record, (*batches.skips, (first, count))


def asked_for(skip: tuple[int, int] | None, skips: Skips, step: int) -> Skips:
    """`skips` with the batches that --skip_batches names; asking for them again changes nothing.

    Raises:
      UserError: one of them has been trained on already.
    """
    if skip is None or skip in skips:
        return skips
    number = step
    for first, count in skips:
        number += count if number >= first else 0
    if skip[0] < number:
        raise UserError(
            f"batch {skip[0]} has been trained on: the run goes on at step {step}, with batch {number}",
            where="--skip_batches",
            help=f"--skip_batches={number}-{number + skip[1] - 1}",
        )
    return (*skips, skip)


def check_starts(
    events: Iterable[Mapping[str, Any]], step: int, recovery: Recovery, directory: RunDir
) -> None:
    """Raises `UserError` where a run has been started from `step` too often without getting as far as a checkpoint."""
    starts = 0
    for event in events:
        if event.get("event") in ("started", "resumed"):
            starts = starts + 1 if event.get("step") == step else 0
        elif event.get("event") in ("saved", "rolled_back"):
            starts = 0
        elif event.get("event") == "interrupted":  # told to stop: no crash
            starts = max(starts - 1, 0)
    if recovery.starts and starts >= recovery.starts:
        raise UserError(
            f"this run has been started {starts} times from step {step} and has saved no checkpoint since",
            where=str(directory.path),
            code=Exit.INTERNAL,
            help="log.txt shows how it ended; once that is mended: --set=recovery.starts=0. Should a batch be the "
            f"cause: --skip_batches={step}-{step}",
        )


def dump(batches: Batches, step: int, directory: RunDir) -> None:
    """Writes the batch of a step to bad_batches/STEP.jsonl, ids and text of every row, for people to look at."""
    folder = directory.path / "bad_batches"
    try:
        folder.mkdir(exist_ok=True)
        if len(list(folder.iterdir())) >= MOST_DUMPED:
            return
        rows = []
        for row, origin in enumerate(batches.origins(step)):
            told: dict[str, Any] = {"row": row, "source": origin.stream.name if origin else None}
            if origin:
                told["text"] = batches.tokenizer.decode(np.concatenate(origin.tokens).tolist())
            rows.append(told)
        for name, values in batches(step).items():
            for told, value in zip(rows, values.tolist(), strict=True):
                told[name] = value
        lines = [json.dumps({"step": step, "batch": batches.number(step), **told}) for told in rows]
        write_atomically(folder / f"{step}.jsonl", "\n".join(lines) + "\n")
    except OSError:  # a full disk is no reason to stop
        pass
