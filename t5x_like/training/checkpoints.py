"""Checkpoints: arrays by Orbax, each step sealed by a record of ours that is written last.

    checkpoints/1000/        what Orbax wrote: `params`, and `rest` (optimizer state, step, skipped)
    checkpoints/1000.json    the record: step, time, validation loss, tokens seen, fingerprints, configuration hash,
                             shape and dtype of every array, size and checksum of every file

A step exists when its record does. The record is written after every file has been synced to disk, and a step is
removed record first; so a kill at any moment, a stale temporary folder or an empty one with a number for a name
cannot be taken for a checkpoint. Orbax casts dtypes silently and does not notice a flipped bit: the records are
why a restore here does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import xxhash

from t5x_like.errors import Exit, UserError
from t5x_like.training.run_dir import sync, write_atomically

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one checkpoint without reading its arrays.

    Attributes:
      step: train steps done.
      saved: seconds since 1970.
      tokens: raw tokens of the corpus consumed so far.
      validation_loss: nats per target token at this very step; None where it was not measured.
      config: hash of the configuration.
      tokenizer, data: fingerprints.
      arrays: path in the state -> "float32[512,64]".
      files: path below the step's folder -> [bytes, xxh3-128].
    """

    step: int
    saved: float = 0.0
    tokens: int = 0
    validation_loss: float | None = None
    config: str = ""
    tokenizer: str = ""
    data: str = ""
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


class Store:
    """The checkpoints of one run directory.

    Args:
      directory: the run's `checkpoints` folder.
      policy: what to keep; not needed for reading.
      say: takes a line for the user.

    Attributes:
      saved: the newest step that this process knows to be safe on disk.
    """

    def __init__(
        self, directory: Path, policy: Checkpoints | None = None, say: Callable[[str], None] = print
    ):
        # Orbax wants an absolute path.
        self.directory, self._policy, self.say = directory.absolute(), policy or Checkpoints(), say
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None
        self._pending_step = -1
        self.saved: int | None = None
        self._failures = 0

    # ---- what there is ----

    def records(self) -> list[Record]:
        """The checkpoints there are, oldest first. What has no readable record is not one."""
        found = []
        for path in self.directory.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
                if path.stem == str(record.step) and (self.directory / path.stem).is_dir():
                    found.append(record)
        return sorted(found, key=lambda r: r.step)

    def newest_good(self) -> Record | None:
        """The newest checkpoint whose files are as they were written; damaged ones are told of and passed over.

        Raises:
          UserError: there are checkpoints, and all of them are damaged (`Exit.CORRUPT`).
        """
        records = self.records()
        damage = ""
        for record in reversed(records):
            damage = self.damage(record)
            if not damage:
                return record
            self.say(f"warning: checkpoint {record.step} is damaged and is not used: {damage}")
        if records:
            raise UserError(
                "no checkpoint of this run is intact",
                where=str(self.directory),
                code=Exit.CORRUPT,
                help=f"restore the files from a copy (the oldest: {damage}), or begin anew by --fresh",
            )
        return None

    def find(self, step: int | Literal["latest", "best"]) -> Record:
        """A checkpoint by step, the newest intact one, or the one of the lowest validation loss.

        Raises:
          UserError: there is none such, names those there are; or it is damaged.
        """
        records = self.records()
        if not records:
            raise UserError(
                "there is no checkpoint",
                where=str(self.directory),
                code=Exit.BAD_DATA,
                help="name a run directory of t5x_like.train by --workdir",
            )
        if step == "latest":
            record = self.newest_good()
            assert record is not None
            return record
        if step == "best":
            measured = [r for r in records if r.validation_loss is not None] or records[-1:]
            record = min(measured, key=_loss)
        else:
            steps = {r.step: r for r in records}
            if step not in steps:
                raise UserError(
                    f"there is no checkpoint of step {step}",
                    where=str(self.directory),
                    help="there are: " + ", ".join(map(str, steps)),
                    code=Exit.BAD_DATA,
                )
            record = steps[step]
        if damage := self.damage(record):
            raise UserError(
                f"checkpoint {record.step} is damaged: {damage}",
                where=str(self.directory),
                help="there are: " + ", ".join(str(r.step) for r in records),
                code=Exit.CORRUPT,
            )
        return record

    def damage(self, record: Record) -> str:
        """What is wrong with the files of a checkpoint, or an empty text. Reads all of them (several GB a second)."""
        for name, (size, digest) in record.files.items():
            path = self.directory / str(record.step) / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size or _digest(path) != digest:
                return f"{path} is not as it was written"
        return ""

    def sweep(self, newest: Record | None) -> None:
        """Makes room for the steps behind `newest`, the checkpoint that a run goes on from: removes what a killed
        save left, sets aside what has a step for its name and is not finished or not intact. Needs the run's lock.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        good = {str(r.step) for r in self.records() if newest is not None and r.step <= newest.step}
        self._remove_unfinished()
        for path in sorted(self.directory.iterdir()):
            if path.suffix in ("", ".json") and path.stem.isdigit() and path.stem not in good:
                self.say(f"note: {path} is not a finished and intact checkpoint: ignored, and set aside")
                path.rename(path.with_name(f"unusable-{path.name}-{time.time_ns()}"))
        self._prune()  # the newest has just been verified: a policy that keeps less now frees its room at once

    def _remove_unfinished(self) -> None:
        """What a killed or failed save wrote; it would take up the room that a full disk has not."""
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    # ---- writing ----

    def save(self, record: Record, state: Any) -> None:
        """Starts saving `state` (anything with `.params` that is a pytree); returns when its buffers are free.

        Waits for the save before. A step that is there already is left as it is.

        Raises:
          UserError: `MAX_FAILURES` saves in a row have failed (`Exit.IO_ERROR`). One that failed is told of, and
            the training goes on towards the next.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        if any(r.step == record.step for r in self.records()):
            return
        if jax.process_index() == 0:
            self._remove_unfinished()
        record = dataclasses.replace(record, saved=time.time(), arrays=_signature(paths(state)))
        self._pending_step = record.step
        try:
            response = ocp.save_checkpointables_async(str(self.directory / str(record.step)), _split(state))
        except (OSError, RuntimeError, ValueError) as e:
            self._failed(record.step, e)
            return
        self._pending = self._worker.submit(self._seal, record, response)

    def poll(self) -> None:
        """Looks whether the save under way has finished: sets `saved`, or tells of the failure as `save` does."""
        if self._pending is None or not self._pending.done():
            return
        pending, self._pending = self._pending, None
        if error := pending.exception():
            self._failed(self._pending_step, error)
        else:
            self._failures, self.saved = 0, self._pending_step

    def wait(self) -> None:
        """Waits for the save under way; then as `poll`."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])
        self.poll()

    def _failed(self, step: int, error: BaseException) -> None:
        self._failures += 1
        reason = _cause(error)
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
        """In the background: the files to the disk, then the record, then the old steps away."""
        folder = self.directory / str(record.step)
        try:
            response.result()
            if jax.process_index() != 0:
                return
            entries = sorted(folder.rglob("*"))
            files = {
                entry.relative_to(folder).as_posix(): (entry.stat().st_size, _digest(entry))
                for entry in entries
                if entry.is_file()
            }
            for entry in [*entries, folder, self.directory]:
                sync(entry)
            record = dataclasses.replace(record, files=files)
            write_atomically(
                self.directory / f"{record.step}.json", json.dumps(dataclasses.asdict(record)) + "\n"
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a retry finds the place free
            raise
        self._prune()

    def _prune(self) -> None:
        records = self.records()
        best = sorted((r for r in records if r.validation_loss is not None), key=_loss)
        keep = {r.step for r in [*records[-self._policy.keep_last :], *best[: self._policy.keep_best]]}
        for record in records:
            if record.step not in keep:
                (self.directory / f"{record.step}.json").unlink()
                shutil.rmtree(self.directory / str(record.step), ignore_errors=True)

    # ---- reading ----

    def restore(self, record: Record, abstract: Any) -> Any:
        """The state of a checkpoint.

        Args:
          record: of the checkpoint.
          abstract: tree of `jax.ShapeDtypeStruct` with shardings, like the state that was saved; arrays are read
            straight into these shardings, whatever mesh they were saved from.

        Raises:
          UserError: names, shapes or dtypes differ; shows them.
        """
        from orbax.checkpoint import v1 as ocp

        self._compare(record, _signature(paths(abstract)), record.arrays)
        loaded = ocp.load_checkpointables(str(self.directory / str(record.step)), _split(abstract))
        flat = paths(loaded["params"], "params/") | loaded["rest"]
        return jax.tree.unflatten(jax.tree.structure(abstract), [flat[path] for path in paths(abstract)])

    def restore_params(self, record: Record, abstract: Any) -> Any:
        """Likewise, the parameters only."""
        from orbax.checkpoint import v1 as ocp

        saved = {path: kind for path, kind in record.arrays.items() if path.startswith("params/")}
        self._compare(record, _signature(paths(abstract, "params/")), saved)
        loaded = ocp.load_checkpointables(str(self.directory / str(record.step)), {"params": abstract})
        return loaded["params"]

    def _compare(self, record: Record, wanted: Mapping[str, str], saved: Mapping[str, str]) -> None:
        differing = [path for path in dict.fromkeys((*saved, *wanted)) if saved.get(path) != wanted.get(path)]
        if not differing:
            return
        shown = [
            f"  {path}: {saved.get(path, 'missing')} in the checkpoint, {wanted.get(path, 'missing')} in the run"
            for path in differing[:3]
        ]
        more = [f"  and {len(differing) - 3} more"] if len(differing) > 3 else []
        head = f"checkpoint {record.step} is not of this model and optimizer: {len(differing)} arrays differ"
        raise UserError(
            "\n".join([head, *shown, *more]),
            where=str(self.directory),
            code=Exit.BAD_DATA,
            help="config.json beside it is the configuration that it belongs to",
        )


def paths(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaf path, such as `params/encoder/norm/scale` -> leaf, in the order of `jax.tree.leaves`."""
    return {
        prefix + jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _loss(record: Record) -> float:
    return float("inf") if record.validation_loss is None else record.validation_loss


def _split(state: Any) -> dict[str, Any]:
    """Parameters as the nested dict that they are; the rest flat, so that no class of Optax ties us to a version."""
    rest = {path: leaf for path, leaf in paths(state).items() if not path.startswith("params/")}
    return {"params": state.params, "rest": rest}


def _signature(leaves: Mapping[str, Any]) -> dict[str, str]:
    return {path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves.items()}


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _cause(error: BaseException) -> str:
    """In one line; tensorstore's messages run over kilobytes."""
    text = str(error).strip() or type(error).__name__
    if "RESOURCE_EXHAUSTED" in text or "No space left" in text:
        return "no space left on the disk"
    return text.splitlines()[0][:200]
