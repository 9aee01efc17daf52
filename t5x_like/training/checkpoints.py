"""Checkpoints: arrays by Orbax, each step sealed by a record of ours.

    checkpoints/1000/        what Orbax wrote: `params`, and `rest` (optimizer state, step, skipped)
    checkpoints/1000.json    the record: step, time, validation loss, tokens seen, fingerprints, configuration hash,
                             shape and dtype of every array, size and checksum of every file
    checkpoints/saving-1000  the same folder while it is written; deleting-1000 while it is removed
    checkpoints/unusable-... what was found damaged and set aside; it is never deleted

A step exists when its folder and its record do. Files are synced to the disk, then the record is written, then the
folder gets its name, in one rename; to remove a step begins with the rename back. So a kill or a power cut at any
moment leaves a step whole or not there, and what is left over is known for what it is. Orbax casts dtypes silently
and does not notice a flipped bit: the records are why a restore here does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach
from t5x_like.training import distributed, records
from t5x_like.training.checkpoint_reader import Reader, is_of_step, is_step, loss_of, paths, signature, split
from t5x_like.training.pins import unpinned
from t5x_like.training.records import Record, Verify
from t5x_like.training.run_dir import sync

MAX_FAILURES = 3
"""Saves that may fail in a row before the run stops: one full disk may be mended, a dead one is not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When to save, and what to keep.

    Attributes:
      every: steps between two checkpoints; the last step, SIGTERM and Ctrl-C save as well.
      keep_last: the newest checkpoints that are kept.
      keep_best: besides them, those of the lowest validation loss.
    """

    every: int = 1000
    keep_last: int = 3
    keep_best: int = 1

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("keep_last", 1), ("keep_best", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"checkpoints.{name} is {getattr(self, name)}; it must be at least {least}",
                    where=f"checkpoints.{name}",
                )


class Store(Reader):
    """The checkpoints of one run directory, to write and to read.

    Args:
      directory, say, verify: as in `Reader`.
      policy: what to keep.

    Attributes:
      saved: the newest step that this process knows to be safe on disk.
    """

    def __init__(
        self,
        directory: Path,
        policy: Checkpoints | None = None,
        say: Callable[[str], None] = print,
        verify: Verify = "full",
    ):
        super().__init__(directory, say, verify)
        self._policy = policy or Checkpoints()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None
        self._pending_step = -1
        self.saved: int | None = None
        self._failures = 0

    def sweep(self, newest: Record | None) -> None:
        """Makes room for the steps behind `newest`, the checkpoint that a run goes on from: removes what a killed
        save left, sets aside what has a step for its name and is damaged or lies ahead. Needs the run's lock.
        """
        try:
            self._sweep(newest)
        except OSError as e:
            raise UserError(
                f"the checkpoints' folder cannot be put in order: {e}",
                where=str(self.directory),
                code=Exit.CANNOT_WRITE,
            ) from None

    def _sweep(self, newest: Record | None) -> None:
        self.directory.mkdir(exist_ok=True)
        sync(self.directory.parent)  # so that a power cut leaves its name as well
        self._remove_unfinished()
        good = {str(r.step) for r in self.records() if newest is not None and r.step <= newest.step}
        for path in sorted(self.directory.glob("[0-9]*")):
            if is_of_step(path) and path.stem not in good:
                aside = path.with_name(f"unusable-{path.name}-{time.time_ns()}")
                self.say(f"note: {path} is not a checkpoint to go on from: set aside as {aside.name}")
                path.rename(aside)
        self._prune()  # the newest has just been verified: a policy that keeps less now frees its room at once

    def _remove_unfinished(self) -> None:
        """What a killed or failed save or removal left; it would take up the room that a full disk has not."""
        for kind in ("saving", "deleting"):
            for path in self.directory.glob(f"{kind}-*"):
                step = path.name.removeprefix(f"{kind}-")
                if is_step(step) and not (self.directory / step).exists():
                    (self.directory / f"{step}.json").unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob(
            "*.orbax-checkpoint-tmp*"
        ):  # of versions that saved under the step's name
            shutil.rmtree(path, ignore_errors=True)

    def save(self, record: Record, state: Any) -> None:
        """Starts saving `state` (anything with `.params` that is a pytree); returns when its buffers are free.

        Waits for the save before. A step that is there already is left as it is.

        Raises:
          UserError: `MAX_FAILURES` saves in a row have failed (`Exit.IO_ERROR`). One that failed is told of, and
            the training goes on towards the next.
        """
        from orbax.checkpoint import v1 as ocp

        _pass_over_late_writes()
        self.wait()
        if distributed.from_first(lambda: any(r.step == record.step for r in self.records())):
            return
        if jax.process_index() == 0:
            self._remove_unfinished()
        record = dataclasses.replace(record, saved=time.time(), arrays=signature(paths(state)))
        self._pending_step = record.step
        try:
            with distributed.together():  # Orbax waits for the processes, so all of them enter it, or none
                reach("checkpoint.begin")
                if not self.directory.is_dir():
                    raise FileNotFoundError(f"{self.directory} has been removed")
                if jax.process_index() == 0:
                    _probe(self._saving(record.step))
            response = ocp.save_checkpointables_async(str(self._saving(record.step)), split(state))
        except (OSError, RuntimeError, ValueError, UserError) as e:
            if distributed.tells_of_others(e):
                raise
            self._failed(record.step, _cause(e))
            return
        self._pending = self._worker.submit(self._seal, record, response)

    def poll(self) -> None:
        """Looks whether the save under way has finished: sets `saved`, or tells of the failure as `save` does.

        Of several processes the first learns of its success; a failure all learn of in `wait`.
        """
        if self._pending is None or not self._pending.done():
            return
        if jax.process_count() == 1:
            self.wait()
        elif jax.process_index() == 0 and self._pending.exception() is None:
            self.saved = self._pending_step

    def wait(self) -> None:
        """Waits for the save under way; then as `poll`."""
        if self._pending is None:
            return
        concurrent.futures.wait([self._pending])
        pending, self._pending = self._pending, None
        error = pending.exception()
        reasons = distributed.gather(None if error is None else _cause(error))
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is not None:
            self._failed(self._pending_step, reason)
        else:
            self._failures, self.saved = 0, self._pending_step

    def _failed(self, step: int, reason: str) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise UserError(
                f"{self._failures} checkpoints in a row could not be saved: {reason}",
                where=str(self.directory),
                code=Exit.IO_ERROR,
                help="make room on the disk; the same command then goes on from the last checkpoint",
            )
        self.say(
            f"warning: checkpoint {step} could not be saved: {reason} (training goes on; earlier "
            "checkpoints are kept)"
        )

    def _seal(self, record: Record, response: Any) -> None:
        """In the background: the files to the disk, the record, the name; then the old steps away."""
        folder = self._saving(record.step)
        try:
            response.result()
            reach("checkpoint.arrays")
            if jax.process_index() != 0:
                return
            entries = sorted(folder.rglob("*"))
            files = {
                entry.relative_to(folder).as_posix(): (entry.stat().st_size, records.digest_of(entry))
                for entry in entries
                if entry.is_file()
            }
            for entry in [*entries, folder, self.directory]:
                reach("checkpoint.sync")
                sync(entry)
            reach("checkpoint.record")
            records.write(self._record(record.step), dataclasses.replace(record, files=files))
            reach("checkpoint.commit")
            folder.rename(self._folder(record.step))
            sync(self.directory)
            reach("checkpoint.committed")
        except BaseException:
            if folder.exists():  # a retry finds the place free
                self._record(record.step).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._prune()

    def add_loss(self, step: int, loss: float) -> None:
        """Puts a validation loss into the record of a checkpoint that was saved before it was measured."""
        record, trouble = self.look(step, "none")
        if record is None or trouble:
            return
        with contextlib.suppress(OSError), unpinned(self._record(step)) as free:
            if free:  # a reader holds its lock on the file that this one takes the place of
                records.write(self._record(step), dataclasses.replace(record, validation_loss=loss))

    def settle(self) -> None:
        """Lets a save under way finish, whatever comes of it, and without asking other processes."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])

    def _saving(self, step: int) -> Path:
        return self.directory / f"saving-{step}"

    def _prune(self) -> None:
        there = self.records()
        best = sorted((r for r in there if r.validation_loss is not None), key=loss_of)
        keep = {r.step for r in [*there[-self._policy.keep_last :], *best[: self._policy.keep_best]]}
        for record in there:
            if record.step not in keep:
                try:
                    self._remove(record.step)
                except OSError as e:  # the newest is safe: that is what counts
                    self.say(f"warning: checkpoint {record.step} could not be removed: {_cause(e)}")

    def _remove(self, step: int) -> None:
        """Removes a checkpoint; where somebody reads it, it is its turn after the next save."""
        with unpinned(self._record(step)) as free:
            if free:
                reach("checkpoint.prune")
                gone = self.directory / f"deleting-{step}"
                self._folder(step).rename(gone)
                reach("checkpoint.pruning")
                self._record(step).unlink()
                shutil.rmtree(gone, ignore_errors=True)


def _probe(folder: Path) -> None:
    """Makes a folder with a synced file in it, and removes both. Where that fails, Orbax's threads would wait for a
    folder that never comes, and write tracebacks instead of a line."""
    folder.mkdir()
    try:
        (folder / "probe").write_bytes(b"can this be written?")
        sync(folder / "probe")
    finally:
        shutil.rmtree(folder)


def _cause(error: BaseException) -> str:
    """In one line; tensorstore's messages run over kilobytes."""
    text = str(error).strip() or type(error).__name__
    if "RESOURCE_EXHAUSTED" in text or "No space left" in text:
        return "no space left on the disk"
    return text.splitlines()[0][:200]


def _pass_over_late_writes() -> None:
    """When a save has failed TensorStore's threads still tell of its other files, to an event loop of Orbax's that is
    closed; Python would print a traceback for each."""
    otherwise = sys.unraisablehook
    if getattr(otherwise, "__qualname__", "").startswith(_pass_over_late_writes.__name__):
        return

    def hook(told: Any) -> None:
        if not isinstance(told.exc_value, RuntimeError) or str(told.exc_value) != "Event loop is closed":
            otherwise(told)

    sys.unraisablehook = hook
