"""The battery: which fault is injected by what. Rows that tests show alone are in docs/reliability.md."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from t5x_like.faulting import changes, damage, disks, inputs, kills, stops
from t5x_like.faulting.report import Outcome
from t5x_like.faulting.trials import Bench


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row: its id, what it is, and what injects it and judges."""

    number: str
    title: str
    inject: Callable[[Bench], Outcome]


def battery(trials: int, processes: int) -> list[Fault]:
    """All rows, in order. `trials`: kills of F01; `processes`: most that a run has here."""
    several = [
        Fault(
            "F01b",
            "kill -9 at random moments, two processes",
            functools.partial(kills.random_kills, kills=trials, processes=2),
        ),
        Fault("F04", "SIGTERM to one of two processes", stops.one_of_two_told),
        Fault("F06", "one of two processes killed", stops.one_of_two_lost),
        Fault(
            "F06b", "the first of two processes killed", functools.partial(stops.one_of_two_lost, victim=0)
        ),
        Fault("F07b", "one of two processes stopped", functools.partial(stops.one_of_two_lost, number=19)),
        Fault("F17", "another mesh, other processes (F18)", changes.meshes),
    ]
    rows = [
        Fault(
            "F01",
            "kill -9 at random moments, one process",
            functools.partial(kills.random_kills, kills=trials),
        ),
        Fault("F02", "ended at each stage of a commit", kills.failpoints),
        Fault("F03", "SIGTERM", stops.told_to_stop),
        Fault("F05", "SIGINT twice", stops.told_twice),
        Fault("F07", "a step that stalls", stops.stalled),
        Fault("F08", "disk full at a save", disks.full_at_save),
        Fault("F08b", "run directory removed", disks.removed),
        Fault("F09", "disk full for logs", disks.full_for_logs),
        Fault("F10", "read-only run directory", disks.read_only),
        Fault("F11", "inodes, quota", disks.quota),
        Fault(
            "F12",
            "bits flipped in each file",
            functools.partial(damage.every_file, ways=("bits flipped", "zeroed")),
        ),
        Fault(
            "F13",
            "each file truncated, emptied, deleted",
            functools.partial(damage.every_file, ways=("truncated", "emptied", "deleted")),
        ),
        Fault("F16", "clock and time zone", damage.clock),
        Fault("F21", "NaN once", changes.one_nonfinite),
        Fault("F22", "NaN in a row", changes.many_nonfinite),
        Fault("F23", "loss spike", changes.spike),
        Fault("F34", "two runs in one directory", stops.two_in_one_place),
        Fault("F36", "pruning interrupted", kills.pruning),
        Fault("F38", "slow storage", stops.slow_storage),
        Fault("F42", "crash loop", stops.crash_loop),
    ]
    rows += [Fault(number, title, inject) for number, title, inject in inputs.ROWS]
    return sorted(rows + (several if processes > 1 else []), key=lambda fault: fault.number)
