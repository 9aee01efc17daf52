"""Named places at which a process can be made to die, fail or stall, so that a test reaches moments that chance
seldom does.

    T5X_LIKE_FAULT=checkpoint.record:2            the second time there: ends at once, as by kill -9
    T5X_LIKE_FAULT=checkpoint.sync:1+:full        from the first time on: the disk is full
    T5X_LIKE_FAULT=checkpoint.arrays:1+:sleep=2   slow storage; several faults are parted by commas

Without the variable `reach` does nothing. The places are listed in `PLACES`; `python -m t5x_like.faults` uses them.
"""

from __future__ import annotations

import collections
import errno
import os
import signal
import time

PLACES = {
    "run.described": "the run directory has been written, nothing compiled",
    "run.step": "before a train step is dispatched",
    "data.worker": "in a data worker, before a batch is sent",
    "validation.batch": "before a batch of the validation",
    "checkpoint.begin": "a save has been asked for, nothing is written",
    "checkpoint.arrays": "the arrays are written",
    "checkpoint.sync": "before a file is synced to the disk",
    "checkpoint.record": "all files are synced, the record is not written",
    "checkpoint.commit": "the record is written, the folder has not got its name",
    "checkpoint.committed": "the folder has got its name",
    "checkpoint.prune": "before an old checkpoint is removed",
    "checkpoint.pruning": "an old checkpoint has lost its name, its files are there",
    "export.written": "an export is written beside its target, and not named yet",
    "export.aside": "what had the name of an export is moved aside, the new one has not got it",
    "restore.begin": "before the arrays of a checkpoint are read",
}

_reached: collections.Counter[str] = collections.Counter()


def reach(place: str) -> None:
    """Acts out the fault that T5X_LIKE_FAULT has for this place and this visit, if it has one.

    Raises:
      OSError: no space (`full`) or no quota (`quota`) left, where the fault is that.
    """
    if faults := os.environ.get("T5X_LIKE_FAULT"):
        _reached[place] += 1
        for fault in faults.split(","):
            name, nth, action = [*fault.split(":"), "kill"][:3]
            visit = int(nth.rstrip("+"))
            if name == place and (_reached[place] == visit or (nth[-1] == "+" and _reached[place] > visit)):
                _act(action)


def _act(action: str) -> None:
    kind, _, value = action.partition("=")
    if kind == "kill":
        os._exit(128 + signal.SIGKILL)
    if kind in ("full", "quota"):
        number = errno.ENOSPC if kind == "full" else errno.EDQUOT
        raise OSError(number, os.strerror(number))
    if kind == "sleep":
        time.sleep(float(value))
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise ValueError(f"T5X_LIKE_FAULT: no action {kind!r}")
