"""Pieces of work done by several processes, in an order that does not matter to the result."""

from __future__ import annotations

import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from t5x_like.errors import Exit, UserError


class Progress(Protocol):
    """Is told of finished work."""

    def advance(self, size: int) -> None: ...


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of work.

    Attributes:
      arguments: of the task; None where it was done before.
      consumed: stored bytes that it stands for, for the progress bar.
    """

    arguments: tuple[Any, ...] | None
    consumed: int = 0


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Some processes, started when there is work for them and ended with the `with` block.

    Args:
      workers: processes; 1 works in this one.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, task: Callable[..., None], pieces: Iterable[Piece], progress: Progress) -> int:
        """Does every piece by `task(*arguments)`, which leaves a file behind; returns how many pieces there are.

        Args:
          task: a function that can be pickled.
          pieces: made while work goes on; at most two for each worker are held.
          progress: is told of each piece.

        Raises:
          UserError: the first in the order of pieces that a task raises; or a worker died.
        """
        running: dict[int, tuple[Future[None], int]] = {}
        count = 0

        def wait_for(number: int) -> None:
            future, consumed = running.pop(number)
            future.result()
            progress.advance(consumed)

        try:
            for piece in pieces:
                number, count = count, count + 1
                if piece.arguments is None:
                    progress.advance(piece.consumed)
                elif self._workers == 1:
                    task(*piece.arguments)
                    progress.advance(piece.consumed)
                else:
                    # In order, so that with --bad_input=fail the first problem of the input is the one reported.
                    while len(running) >= 2 * self._workers:
                        wait_for(min(running))
                    running[number] = self._started().submit(task, *piece.arguments), piece.consumed
            while running:
                wait_for(min(running))
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps killed for lack of memory",
                help="fewer --workers; the same command continues where it stopped",
                code=Exit.IO_ERROR,
            ) from None
        return count

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_start_worker)
            # All at once: of one that is started when it is wanted, the library may not notice the death until
            # another has finished its piece.
            vars(executor)["_safe_to_dynamically_spawn_children"] = False
            self._executor = executor
        return self._executor


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # There is a process for each core already; the `tokenizers` library would start as many threads in each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
