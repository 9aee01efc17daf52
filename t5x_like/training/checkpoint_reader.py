"""Reading checkpoints: which there are, which of them is intact, and its arrays.

How they come to be, and what lies where: training/checkpoints.py.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import jax

from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach
from t5x_like.training import records
from t5x_like.training.pins import pin
from t5x_like.training.records import Record, Verify


class Reader:
    """The checkpoints of a run directory, to read from.

    Args:
      directory: the run's `checkpoints` folder.
      say: takes a line for the user.
      verify: how files are checked before they are used.

    Attributes:
      damaged: step -> what is wrong with it, of those that `newest_good` passed over.
    """

    def __init__(self, directory: Path, say: Callable[[str], None] = print, verify: Verify = "full"):
        # Orbax wants an absolute path.
        self.directory, self.say = directory.absolute(), say
        self.damaged: dict[int, str] = {}
        self._verify: Verify = verify
        self._pins = list[IO[bytes]]()

    def steps(self) -> list[int]:
        """Every step that there is anything of, save what was being written or removed; oldest first.

        Raises:
          UserError: the folder cannot be read: that is another thing than to be empty.
        """
        try:
            names = {path.stem for path in self.directory.iterdir() if is_of_step(path)}
        except FileNotFoundError:
            return []
        except OSError as e:
            raise UserError(
                f"the checkpoints cannot be read: {e.strerror or e}",
                where=str(self.directory),
                code=Exit.IO_ERROR,
            ) from None
        return sorted(int(name) for name in names if not self._unfinished(name))

    def records(self) -> list[Record]:
        """The checkpoints there are, oldest first; whether their files are intact is not looked at."""
        found = []
        for step in self.steps():
            record, trouble = self.look(step, "none")
            if record is not None and not trouble:
                found.append(record)
        return found

    def look(self, step: int, verify: Verify | Literal["none"] | None = None) -> tuple[Record | None, str]:
        """The record of a step, where it can be read, and what is wrong with the checkpoint, or an empty text."""
        folder, path = self._folder(step), self._record(step)
        how: Verify | Literal["none"] = verify or self._verify
        try:
            record = records.read(path)
        except FileNotFoundError:
            return None, f"{path} is missing"
        except (OSError, ValueError) as e:
            return None, str(e)
        if folder.is_symlink() or not folder.is_dir():
            return record, f"{folder} is {'a link' if folder.is_symlink() else 'missing'}"
        return record, "" if how == "none" else records.damage(folder, record, how)

    def newest_good(self) -> Record | None:
        """The newest checkpoint whose files are as they were written; damaged ones are told of and passed over.

        Raises:
          UserError: there are checkpoints, and all of them are damaged (`Exit.CORRUPT`).
        """
        self.damaged = {}
        for step in reversed(self.steps()):
            record, trouble = self.look(step)
            if record is not None and not trouble:
                return record
            folder = self._folder(step)
            if record is None and not self._record(step).exists() and not any(folder.glob("*")):
                continue  # an empty folder with a number for a name was never a checkpoint
            self.damaged[step] = trouble
            self.say(f"warning: checkpoint {step} is damaged and is not used: {trouble}")
        if self.damaged:
            oldest = self.damaged[min(self.damaged)]
            raise UserError(
                "no checkpoint of this run is intact",
                where=str(self.directory),
                code=Exit.CORRUPT,
                help=f"restore the files from a copy (the oldest: {oldest}), or begin anew by --fresh",
            )
        return None

    def find(self, step: int | Literal["latest", "best"]) -> Record:
        """A checkpoint by step, the newest intact one, or the one of the lowest validation loss. A run that goes on
        meanwhile does not prune it until `close`, or the end of this process.

        Raises:
          UserError: there is none such, names those there are; or it is damaged.
        """
        while True:
            record = self._find(step)
            try:
                file = pin(self._record(record.step))
            except OSError:
                continue  # pruned just now
            if self._folder(record.step).is_dir():
                self._pins.append(file)
                return record
            file.close()

    def close(self) -> None:
        """Lets go of what `find` has found."""
        while self._pins:
            self._pins.pop().close()

    def _find(self, step: int | Literal["latest", "best"]) -> Record:
        if step == "latest":
            record = self.newest_good()
            if record is not None:
                return record
        there = self.records()
        if not there:
            raise UserError(
                "there is no checkpoint",
                where=str(self.directory),
                code=Exit.BAD_DATA,
                help="name a run directory of t5x_like.train by --workdir",
            )
        if step == "best":
            record = min([r for r in there if r.validation_loss is not None] or there[-1:], key=loss_of)
        elif step not in (steps := {r.step: r for r in there}):
            raise UserError(
                f"there is no checkpoint of step {step}",
                where=str(self.directory),
                help="there are: " + ", ".join(map(str, steps)),
                code=Exit.BAD_DATA,
            )
        else:
            record = steps[step]
        if damage := self.look(record.step)[1]:
            raise UserError(
                f"checkpoint {record.step} is damaged: {damage}",
                where=str(self.directory),
                help="there are: " + ", ".join(str(r.step) for r in there if r.step != record.step),
                code=Exit.CORRUPT,
            )
        return record

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

        self._compare(record, signature(paths(abstract)), record.arrays)
        reach("restore.begin")
        with self._read(record):
            loaded = ocp.load_checkpointables(str(self._folder(record.step)), split(abstract))
        flat = paths(loaded["params"], "params/") | loaded["rest"]
        return jax.tree.unflatten(jax.tree.structure(abstract), [flat[path] for path in paths(abstract)])

    def restore_params(self, record: Record, abstract: Any) -> Any:
        """Likewise, the parameters only."""
        from orbax.checkpoint import v1 as ocp

        saved = {path: kind for path, kind in record.arrays.items() if path.startswith("params/")}
        self._compare(record, signature(paths(abstract, "params/")), saved)
        with self._read(record):
            loaded = ocp.load_checkpointables(str(self._folder(record.step)), {"params": abstract})
        return loaded["params"]

    @contextlib.contextmanager
    def _read(self, record: Record) -> Iterator[None]:
        """Tells of what cannot be read because it is damaged: sizes alone do not show that, and a disk may fail now."""
        try:
            yield
        except Exception:
            if not (trouble := self.look(record.step, "full")[1]):
                raise
            raise UserError(
                f"checkpoint {record.step} is damaged: {trouble}",
                where=str(self.directory),
                help="without --verify=size the same command goes on from the newest intact one",
                code=Exit.CORRUPT,
            ) from None

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

    def _unfinished(self, step: str) -> bool:
        """Whether a step was being saved or removed, so that its record stands for nothing."""
        return any((self.directory / f"{kind}-{step}").exists() for kind in ("saving", "deleting"))

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    def _record(self, step: int) -> Path:
        return self.directory / f"{step}.json"


def is_step(name: str) -> bool:
    """Whether a checkpoint can have this name: 12, and not 012, 1² or a number of a hundred digits."""
    return name.isascii() and name.isdecimal() and len(name) < 17 and str(int(name)) == name


def is_of_step(path: Path) -> bool:
    """Whether the folder or the record of a checkpoint can have this name."""
    return path.suffix in ("", ".json") and is_step(path.stem)


def paths(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaf path, such as `params/encoder/norm/scale` -> leaf, in the order of `jax.tree.leaves`."""
    return {
        prefix + jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def loss_of(record: Record) -> float:
    """To order by: what was not measured, or is no number, comes last."""
    loss = record.validation_loss
    return math.inf if loss is None or math.isnan(loss) else loss


def split(state: Any) -> dict[str, Any]:
    """Parameters as the nested dict that they are; the rest flat, so that no class of Optax ties us to a version."""
    rest = {path: leaf for path, leaf in paths(state).items() if not path.startswith("params/")}
    return {"params": state.params, "rest": rest}


def signature(leaves: Mapping[str, Any]) -> dict[str, str]:
    return {path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves.items()}
