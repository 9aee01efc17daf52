"""Labelled examples out of files: which file is which split, which column is which, and what a label means.

    task, splits = read_splits(definitions.find("rotten_tomatoes"), "data/tasks/rotten_tomatoes")
    splits.train[0]       Example(id="0", texts=("the rock is ...",), label=1, ...)

A split is a file `train`, `validation` (or `valid`, `dev`, `val`) or `test` in one of the formats of
tasks/formats.py, or a split of a folder that TFDS prepared; files published under other names are known by them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import xxhash

from t5x_like.data import counter, text_dataset
from t5x_like.data.permutation import permute
from t5x_like.errors import Exit, UserError
from t5x_like.tasks import definitions, formats
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import (
    Example,
    check_columns,
    column_names,
    is_labelled,
    is_scalar,
    spelled,
    to_example,
    value_of,
    wanted_columns,
)
from t5x_like.tasks.formats import Row

Role = Literal["train", "validation", "test"]
BadInput = Literal["fail", "skip"]
Say = Callable[[str], None]

_STEMS: dict[Role, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}
_CONLL = {"train": "eng.train", "validation": "eng.testa", "test": "eng.testb"}
REPORTED = 10
"""Bad rows shown one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """The examples of a task.

    Attributes:
      train: to fit.
      validation: to choose checkpoints by; a part of the training file where there is no file of its own.
      test: to report, labelled; None where there is none.
      fingerprint: of everything read.
      held_out: whether `validation` was taken off the training file.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example] | None
    fingerprint: str
    held_out: bool


def read_splits(
    task: Task, folder: str | Path, *, bad_input: BadInput = "fail", held_out: float = 0.1, say: Say = print
) -> tuple[Task, Splits]:
    """The task, its labels filled in where the data decides them, and its examples.

    Args:
      folder: holds the files, or was prepared by TFDS.
      bad_input: what to do with a row that cannot be used: refuse, or report it and go on.
      held_out: the share of the training file that becomes the validation split where there is no file for one; the
        same examples whatever the seed.

    Raises:
      UserError: no training file, missing columns, unknown labels, broken rows; with file and line. A file that holds
        no examples.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            "no such folder",
            where=str(folder),
            help=f"the files of {task.name}: train.jsonl, ...",
            code=Exit.BAD_DATA,
        )
    read = functools.partial(read_split, folder=folder, bad_input=bad_input, say=say)
    if task.kind in ("classification", "tagging") and not task.labels:
        task = dataclasses.replace(task, labels=_labels(task, folder))
    train = read(task, role="train")
    if train is None:
        raise UserError(
            f"there is no training file for {task.name}; the folder holds "
            + (", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8]) or "nothing"),
            where=str(folder),
            help=f"train.jsonl with the columns {', '.join(wanted_columns(task))}; also .tsv, .csv, TFDS",
            code=Exit.BAD_DATA,
        )
    definitions.check(task, str(folder))  # the labels may be the data's
    validation, test = read(task, role="validation"), read(task, role="test")
    carved = validation is None
    if validation is None:
        if len(train) < 2:
            raise UserError(
                "one training example, and no validation file", where=str(folder), code=Exit.BAD_DATA
            )
        count = min(max(1, round(len(train) * held_out)), len(train) - 1)
        order = permute(np.arange(len(train)), len(train), counter.seed_key(0, "held out", task.name))
        chosen = set(order[:count].tolist())
        validation = [e for i, e in enumerate(train) if i in chosen]
        train = [e for i, e in enumerate(train) if i not in chosen]
    if test is not None and not all(is_labelled(task, e) for e in test):
        say(f"note: the test split of {task.name} is not labelled: it is not evaluated")
        test = None
    digest = xxhash.xxh3_128()
    for examples in (train, validation, test or []):
        for example in examples:
            digest.update(repr(example).encode("utf-8", errors="surrogatepass"))
        digest.update(b"|")
    return task, Splits(
        train=train, validation=validation, test=test, fingerprint=digest.hexdigest(), held_out=carved
    )


def read_split(
    task: Task, folder: Path, role: Role, *, bad_input: BadInput = "fail", say: Say = print
) -> list[Example] | None:
    """The examples of one split, at least one; None where there is none of this role."""
    source = _source(task, folder, role)
    if source is None:
        return None
    found = read_examples(task, source.rows, bad_input=bad_input, say=say, labelled=role != "test")
    if not found:
        raise UserError(
            f"the {role} split holds no examples" + (" that can be used" if bad_input == "skip" else ""),
            where=source.where,
            help="fill the file, or take it out of the folder",
            code=Exit.BAD_DATA,
        )
    return found


def read_examples(
    task: Task, rows: Iterator[Row], *, bad_input: BadInput = "fail", say: Say = print, labelled: bool = True
) -> list[Example]:
    """Rows as examples.

    Args:
      labelled: every row must have the label's column; else those that lack it are examples without a label.
    """
    found, bad = [], 0
    for number, row in enumerate(rows):
        try:
            if isinstance(row.values, ValueError):
                raise row.values
            if number == 0:
                check_columns(task, row, labelled)
            found.append(to_example(task, row.values, str(number), labelled))
        except ValueError as error:
            if bad_input == "fail":
                raise UserError(
                    str(error),
                    where=row.where,
                    help="--bad_input=skip leaves such lines out",
                    code=Exit.BAD_DATA,
                ) from None
            bad += 1
            if bad <= REPORTED:
                say(f"skipped {row.where}: {error}")
    if bad:
        say(f"{bad} bad line{'s' * (bad > 1)} skipped")
    return found


# ---- files ---------------------------------------------------------------------------------------


class Source(NamedTuple):
    """`where`: the file, or the folder and the split in it; `rows`: what it holds."""

    where: str
    rows: Iterator[Row]


def _source(task: Task, folder: Path, role: Role) -> Source | None:
    """Where a split is, or None."""
    stems = _stems(task, role)
    if text_dataset.is_tfds(folder):
        there = formats.tfds_splits(folder)
        split = next((stem for stem in stems if stem in there), None)
        if split is None:
            return None
        rows = formats.tfds_rows(folder, split, (task.label, task.columns.get("label", "")))
        return Source(f"{folder}, split {split}", rows)
    paths = [folder / f"{stem}{extension}" for stem in stems for extension in formats.EXTENSIONS]
    if task.kind == "tagging":
        paths.append(folder / _CONLL[role])
    paths = [path for path in paths if path.is_file()]
    if not paths:
        return None
    if len(paths) > 1:
        raise UserError(
            f"two files for the {role} split: {paths[0].name} and {paths[1].name}",
            where=str(folder),
            help="leave one of them in the folder",
            code=Exit.BAD_DATA,
        )
    rows = formats.read(paths[0], task.headerless, [*column_names(task, "label"), *task.text])
    return Source(str(paths[0]), rows)


def _stems(task: Task, role: Role) -> list[str]:
    """File names without extension and names of splits, most special first."""
    stems = []
    for stem in _STEMS[role]:
        if task.variant is not None:
            stems += [f"{stem}_{task.variant}", f"{stem}-{task.variant}"]
        stems.append(stem)
    return stems


def _labels(task: Task, folder: Path) -> tuple[str, ...]:
    """The labels of the training data, sorted: by number where they are numbers. What is no label is left out here:
    `parse_label` refuses it."""
    source = _source(task, folder, "train")
    found: set[str] = set()
    for row in source.rows if source is not None else ():
        if isinstance(row.values, dict):
            value = value_of(task, row.values, "label", task.label)
            tags = value if task.kind == "tagging" and isinstance(value, list) else [value]
            found |= {spelled(tag) for tag in tags if is_scalar(tag)}
    numbers = {label: formats.number(label) for label in found}
    if all(value is not None for value in numbers.values()):
        return tuple(sorted(found, key=lambda label: numbers[label] or 0.0))
    return tuple(sorted(found))
