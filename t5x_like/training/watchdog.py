"""Ends a process that gets no further, and says where it stands: never a hang without a word.

A stalled collective, a dead file system or a stopped peer leaves a process waiting for ever inside a C call. A thread
looks at the time of the last sign of progress; when it is too old it writes the stacks of all threads to the log and
ends the process with a code that a supervisor restarts. Should the interpreter itself be stuck, so that no thread
runs, faulthandler's timer does so from C.

A process that was itself stopped (SIGSTOP, `scontrol suspend`) and goes on is not ended for that time, unless it was
stopped for longer than twice the limit, when the timer in C ends it.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from t5x_like.errors import Exit


class Watchdog:
    """Context manager; `beat` is called whenever something has been got done.

    Args:
      seconds: without a beat until the end; 0 watches nothing.
      log: file that takes the stacks; standard error gets a line.
      who: of the process, for people, such as `process 1 of 2`.
    """

    def __init__(self, seconds: float, log: Path, who: str = "the process"):
        self._seconds, self._log, self._who = seconds, log, who
        self._what, self._since = "starting", time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: IO[str] | None = None

    def beat(self, what: str) -> None:
        """Something has been got done; `what` comes next."""
        self._what, self._since = what, time.monotonic()

    def __enter__(self) -> Watchdog:
        if self._seconds > 0:
            self._beat_again()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()
        if self._file is not None:
            self._file.close()

    def _beat_again(self) -> None:
        """Arms the timer in C anew: it goes off only if this thread cannot run for as long again."""
        if self._file is None:
            try:
                self._file = self._log.open("a", encoding="utf-8")
            except OSError:  # a full disk: standard error has to do
                self._file = None
        faulthandler.dump_traceback_later(2 * self._seconds, exit=True, file=self._file or sys.stderr)

    def _watch(self) -> None:
        interval = min(self._seconds / 4, 5.0)
        looked = time.monotonic()
        while not self._stop.wait(interval):
            now = time.monotonic()
            late, looked = now - looked - interval, now
            if late > interval:  # this thread could not run either: the process was stopped, as by SIGSTOP
                self._since = min(self._since + late, now)  # there may have been a beat since
            waited = now - self._since
            if waited < self._seconds:
                self._beat_again()
                continue
            line = (
                f"error: {self._who} on {socket.gethostname()} (pid {os.getpid()}) has got no further for "
                f"{waited:.0f} s: {self._what}"
            )
            told = f"{line}\n  help: the same command goes on from the last checkpoint; the stacks are in {self._log}\n"
            os.write(2, told.encode())
            if self._file is not None:
                self._file.write(told)
                self._file.flush()
            faulthandler.dump_traceback(file=self._file or sys.stderr, all_threads=True)
            os._exit(Exit.INTERRUPTED)
