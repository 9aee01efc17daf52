"""Batches made ahead of the step that wants them: on a thread, or by processes.

    with prefetch(batches, start_step=0, stop_step=1000, workers=2) as stream:
        for step, batch in stream: ...

As a batch is a pure function of its step, worker w of N makes the steps start + w, start + w + N, ... and nothing
else has to be agreed upon: any number of workers gives the same batches in the same order, and no worker has
state that could be lost. Workers are given the configuration (plain values) and send arrays as raw bytes through
a pipe. A worker whose pipe is full waits, so what is made ahead is bounded: `depth` batches in the trainer, one in
each worker, and what a pipe holds (64 KB on Linux: less than one batch, unless batches are tiny).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from t5x_like.data.batches import Batches
from t5x_like.data.example import Batch
from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach

_POLL = 0.005
"""Seconds between two looks whether the device still has work."""


class WorkerError(RuntimeError):
    """A data worker failed with something else than a `UserError`; the message holds its traceback."""


def prefetch(
    batches: Batches,
    start_step: int,
    stop_step: int,
    rows: slice | None = None,
    workers: int = 0,
    depth: int = 2,
) -> Prefetch:
    """An iterator of (step, batch) for the steps [start_step, stop_step), and a context manager.

    Args:
      batches: the data.
      rows: the rows of the global batch that this host feeds; None for all.
      workers: processes; 0 for a thread of this process.
      depth: batches kept ready, at least 1.

    Raises (from the iterator):
      UserError: as `batches` raised it, in a worker too; or a worker was killed.
      WorkerError: a worker failed otherwise.
    """
    if workers == 0:
        return Prefetch(_made_here(batches, start_step, stop_step, rows), depth, [])
    recipe = (batches.data, batches.objective, batches.batch_size, batches.seed, batches.split, batches.skips)
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    resource_tracker.ensure_running()  # its start ends with SIGINT unblocked: it must not come in between
    with _signals_blocked():  # inherited: Ctrl-C reaches the whole group, but only the trainer answers it
        for w in range(min(workers, max(stop_step - start_step, 1))):
            receive, send = context.Pipe(duplex=False)
            steps = range(start_step + w, stop_step, workers)
            process = context.Process(
                target=_work,
                args=(send, recipe, steps, rows),
                name=f"data worker {w} of {workers}",
                daemon=True,
            )
            process.start()
            send.close()  # the worker's end is now its own: when it dies, the pipe ends
            processes.append(process)
            pipes.append(receive)
    return Prefetch(_received(processes, pipes, range(start_step, stop_step)), depth, processes)


class Prefetch:
    """Iterator of (step, batch); made by `prefetch`."""

    def __init__(self, source: Iterator[tuple[int, Batch]], depth: int, processes: list[BaseProcess]):
        self.processes = processes
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=max(depth, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_fill, args=(source, self._ready, self._stop), name="prefetch", daemon=True
        )
        self._thread.start()
        # Also at exit, should nobody call close: multiprocessing would wait for the workers for ever.
        self._finalizer = weakref.finalize(self, _end, self._stop, processes, self._thread)

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        return self

    def __next__(self) -> tuple[int, Batch]:
        return self.take(lambda: False)[0]

    def take(self, busy: Callable[[], bool]) -> tuple[tuple[int, Batch], float]:
        """The next item, and the seconds for which it was waited for while nothing was `busy`.

        Args:
          busy: whether the device is at work; it is asked every few milliseconds until it is not, or the item is there.

        Raises:
          StopIteration: after the last item.
        """
        if self._stop.is_set():
            raise StopIteration
        idle_since = None
        while True:
            if idle_since is None and self._ready.empty() and not busy():
                idle_since = time.perf_counter()
            try:
                item = self._ready.get(timeout=_POLL if idle_since is None else None)
                break
            except queue.Empty:
                continue
        waited = 0.0 if idle_since is None else time.perf_counter() - idle_since
        if isinstance(item, tuple):
            return item, waited
        self.close()
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Ends the thread and the workers; calling it again does nothing."""
        self._finalizer()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fill(source: Iterator[tuple[int, Batch]], ready: queue.Queue[Any], stop: threading.Event) -> None:
    """Moves items into the queue; then None, or the exception that ended them."""

    def put(item: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    try:
        for item in source:
            if not put(item):
                return
        put(None)
    except BaseException as error:  # whatever it is, the trainer has to hear of it
        put(error)


def _end(stop: threading.Event, processes: list[BaseProcess], thread: threading.Thread) -> None:
    stop.set()
    for process in processes:
        process.kill()  # there is nothing to save in a worker; and its pipe ends, which wakes the thread
    for process in processes:
        process.join()
    thread.join()


def _made_here(batches: Batches, start: int, stop: int, rows: slice | None) -> Iterator[tuple[int, Batch]]:
    for step in range(start, stop):
        yield step, batches(step, rows)


# ---- workers ------------------------------------------------------------------------------------


def _work(send: Connection, recipe: tuple[Any, ...], steps: range, rows: slice | None) -> None:
    """The life of a worker."""
    try:
        data, objective, batch_size, seed, split, skips = recipe
        batches = Batches(data, objective, batch_size, seed, split=split, skips=skips)
        for step in steps:
            batch = batches(step, rows)
            reach("data.worker")
            arrays = {name: np.ascontiguousarray(values) for name, values in batch.items()}
            header = {"step": step, "arrays": [(n, a.dtype.str, a.shape) for n, a in arrays.items()]}
            send.send_bytes(json.dumps(header).encode())
            for array in arrays.values():
                send.send_bytes(array.reshape(-1).view(np.uint8).data)
    except (BrokenPipeError, ConnectionResetError):
        return  # the trainer has gone
    except UserError as e:
        error = {"what": e.what, "where": e.where, "help": e.help, "code": int(e.code)}
        send.send_bytes(json.dumps({"user_error": error}).encode())
    except Exception:
        send.send_bytes(json.dumps({"error": traceback.format_exc()}).encode())


def _received(
    processes: list[BaseProcess], pipes: list[Connection], steps: range
) -> Iterator[tuple[int, Batch]]:
    """Batches in the order of their steps, each from the worker whose turn it is."""
    for number, step in enumerate(steps):
        process, pipe = processes[number % len(pipes)], pipes[number % len(pipes)]
        try:
            header = json.loads(pipe.recv_bytes())
            if "user_error" in header:
                told = header["user_error"]
                raise UserError(told["what"], where=told["where"], help=told["help"], code=Exit(told["code"]))
            if "error" in header:
                raise WorkerError(f"{process.name} failed at step {step}:\n{header['error']}")
            batch = {}
            for name, dtype, shape in header["arrays"]:
                batch[name] = np.empty(shape, dtype)
                pipe.recv_bytes_into(batch[name].reshape(-1).view(np.uint8).data)
        except (EOFError, OSError):
            process.join(timeout=5)
            code = process.exitcode
            how = (
                f"signal {signal.Signals(-code).name}"
                if code is not None and code < 0
                else f"exit code {code}"
            )
            raise UserError(
                f"{process.name} (process {process.pid}) ended before step {step}, with {how}",
                where="data.workers",
                help="out of memory? The same command continues from the last checkpoint; fewer --set=data.workers=N "
                "need less",
                code=Exit.IO_ERROR,
            ) from None
        yield header["step"], batch


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Children started inside inherit a mask without SIGINT and SIGTERM; here the signals arrive afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
