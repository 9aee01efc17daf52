"""Labelled examples out of files: which file is which split, which column is which, and what a label means.

    task, splits = read_splits(definitions.find("rotten_tomatoes"), "data/tasks/rotten_tomatoes")
    splits.train[0]       Example(id="0", texts=("the rock is ...",), label=1, ...)

A split is a file `train`, `validation` (or `valid`, `dev`, `val`) or `test` in one of the formats of
tasks/formats.py, or a split of a folder that TFDS prepared; files published under other names are known by them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash

from t5x_like.data import counter, text_dataset
from t5x_like.data.permutation import permute
from t5x_like.errors import Exit, UserError, did_you_mean, nearest
from t5x_like.tasks import definitions, formats
from t5x_like.tasks.definitions import Task
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
_UNLABELLED = "label -1 marks what has no label; only a test split may go without"
_WHOLE = re.compile(r"^([+-]?[0-9]+)\.0+$")


class Example(NamedTuple):
    """One labelled example.

    Attributes:
      id: of the file, or its number.
      texts: as many as the task has segments; the words, for tagging; context and then candidates, for choice.
      label: an id of `Task.labels`, a number, an id for each word, or a candidate's number; None where not known.
      answers: of a span: the accepted ones, none where the question has no answer.
      starts: of a span: where each answer begins in the context, in characters.
    """

    id: str
    texts: tuple[str, ...]
    label: Any = None
    answers: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


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
            + (", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"),
            where=str(folder),
            help=f"train.jsonl with the columns {', '.join(_wanted(task))}; also .tsv, .csv, TFDS",
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


def is_labelled(task: Task, example: Example) -> bool:
    """Whether an example can be learnt from or judged by."""
    return example.label is not None if task.kind != "span" else example.label is True


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
                _check_columns(task, row, labelled)
            found.append(example(task, row.values, str(number), labelled))
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
    rows = formats.read(paths[0], task.headerless, [*_names(task, "label"), *task.text])
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
            value = _get(task, row.values, "label", task.label)
            tags = value if task.kind == "tagging" and isinstance(value, list) else [value]
            found |= {spelled(tag) for tag in tags if _is_scalar(tag)}
    numbers = {label: formats.number(label) for label in found}
    if all(value is not None for value in numbers.values()):
        return tuple(sorted(found, key=lambda label: numbers[label] or 0.0))
    return tuple(sorted(found))


# ---- columns -------------------------------------------------------------------------------------


def _names(task: Task, role: str, name: str | None = None) -> list[str]:
    """The names under which a column may stand: the task's, the published one."""
    own = name or task.label
    published = task.columns.get(role if role == "label" else own)
    return [own] if published is None else [own, published]


def _wanted(task: Task) -> list[str]:
    """The columns of an example, without the label."""
    return [*task.text, *([task.second] if task.second else []), *task.choices]


def _get(task: Task, values: dict[str, Any], role: str, name: str) -> Any:
    # A published file may use the task's name for something else: MNLI's `label1` stands beside `gold_label`, but
    # QNLI's TSV `label` is its own. The task's name comes first, except where only the published one is there.
    return next((values[n] for n in _names(task, role, name) if n in values), None)


def _check_columns(task: Task, row: Row, labelled: bool) -> None:
    """Raises `UserError` where the first row lacks a column; names those there are."""
    assert isinstance(row.values, dict)
    needed = [("text", name) for name in _wanted(task)]
    needed += [("label", task.label)] if labelled else []
    for role, name in needed:
        known = _names(task, role, name)
        if not any(n in row.values for n in known):
            there = [str(column) for column in row.values]
            best = nearest(name, there)
            raise UserError(
                f"no column {' or '.join(repr(n) for n in known)}; there are: {', '.join(there) or 'none'}",
                where=row.where,
                help=(f"did you mean {best!r}? " if best else "")
                + "Columns are named by the task: --text_columns, --label_column, or a task file",
                code=Exit.BAD_DATA,
            )


# ---- rows ----------------------------------------------------------------------------------------


def example(task: Task, values: dict[str, Any], number: str, labelled: bool) -> Example:
    """A row as an example. Raises `ValueError` that says what is wrong with it."""
    label = _get(task, values, "label", task.label)
    identity = str(values.get("id", values.get("idx", number)))
    if task.kind == "tagging":
        return _tagged(task, values, identity, label, labelled)
    texts = [_text(_get(task, values, "text", name), name) for name in task.text]
    if task.kind == "span":
        return _answered(identity, texts, label, values.get("answer_start"), labelled)
    if task.kind == "choice":
        second = _text(values.get(task.second), task.second) + " " if task.second else ""
        candidates = [second + _text(values.get(name), name) for name in task.choices]
        texts = [" ".join(texts), *candidates]
    if label is None and labelled:
        raise ValueError(f"no label in column {task.label!r}")
    parsed = None if label is None else parse_label(task, label)
    if parsed is None and labelled:
        raise ValueError(_UNLABELLED)
    return Example(identity, tuple(texts), parsed)


def parse_label(task: Task, value: Any) -> int | float | None:
    """A label as the task has it: an id, or a number; None for -1, which marks what is not labelled (of a number:
    where the task has no number so low)."""
    if not _is_scalar(value):
        raise ValueError(f"label {_shown(value)} is neither a text nor a finite number")
    found = formats.number(value)
    if task.kind == "regression":
        if found is None:
            raise ValueError(f"label {_shown(value)} is not a number")
        low, high = task.low, task.high
        if found == -1 and low is not None and low > -1:
            return None
        if (low is not None and found < low) or (high is not None and found > high):
            raise ValueError(f"label {found:g} is outside {low:g} to {high:g}")
        return found
    names = task.labels if task.kind != "choice" else tuple(map(str, range(len(task.choices))))
    if isinstance(value, str) and value in names:
        return names.index(value)
    known = [spelled(name) for name in names]
    if spelled(value) in known:  # a number whose spelling is a name
        return known.index(spelled(value))
    if found == -1:
        return None
    # An id; but where all names are numbers, a number that is none of them is a mistake.
    if (
        found is not None
        and found.is_integer()
        and (task.kind == "choice" or not all(map(_is_number, names)))
    ):
        if 0 <= found < len(names):
            return int(found)
        shown = f" ({', '.join(names)})" if task.kind != "choice" and len(names) <= 10 else ""
        raise ValueError(f"label {_shown(int(found))} is outside 0 to {len(names) - 1}{shown}")
    raise ValueError(
        f"label {_shown(value)} is none of {', '.join(names[:10])}; {did_you_mean(str(value)[:80], names)}"
    )


def spelled(value: Any) -> str:
    """A label's name: 1, 1.0 and "1.0" are one."""
    return _WHOLE.sub(r"\1", str(value))


def _is_scalar(value: Any) -> bool:
    """Whether a value can be a label at all."""
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _is_number(name: str) -> bool:
    return formats.number(name) is not None


def _shown(value: Any) -> str:
    """For a message: no more of it than a line holds."""
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def _text(value: Any, name: str | None) -> str:
    if not isinstance(value, str):
        raise ValueError(f"no text in column {name!r}")
    return value


def _tagged(task: Task, values: dict[str, Any], identity: str, tags: Any, labelled: bool) -> Example:
    words = _get(task, values, "text", task.text[0])
    if isinstance(words, str):
        words = [words]
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"no list of words in column {task.text[0]!r}")
    if tags is None and not labelled:
        return Example(identity, tuple(words))
    tags = tags if isinstance(tags, list) else [tags]
    if len(tags) != len(words):
        raise ValueError(f"{len(words)} words and {len(tags)} tags")
    parsed = tuple(parse_label(task, tag) for tag in as_bio(tags, task.labels))
    if None in parsed and labelled:
        raise ValueError(_UNLABELLED)
    return Example(identity, tuple(words), None if None in parsed else parsed)


def as_bio(tags: Sequence[Any], labels: Sequence[str]) -> list[Any]:
    """Tags in which every entity begins with B: CoNLL-2003 was published as IOB1, where only an entity that follows
    another of its type does. Tags that are not of this kind stay as they are."""
    out, last = [], "O"
    for tag in tags:
        shown = tag
        if isinstance(tag, str) and tag.startswith("I-") and last[1:] != tag[1:] and f"B{tag[1:]}" in labels:
            shown = f"B{tag[1:]}"
        out.append(shown)
        last = tag if isinstance(tag, str) else "O"
    return out


def _answered(identity: str, texts: list[str], answers: Any, starts: Any, labelled: bool) -> Example:
    if isinstance(answers, dict):  # Hugging Face's and TFDS's nesting
        answers, starts = answers.get("text"), answers.get("answer_start")
    if answers is None:
        if labelled:
            raise ValueError("no answers in column 'answers'")
        return Example(identity, tuple(texts))
    answers = [answers] if isinstance(answers, str) else answers
    starts = [starts] if isinstance(starts, int) else starts or []
    if not isinstance(answers, list) or not isinstance(starts, list) or len(answers) != len(starts):
        raise ValueError("answers and answer_start are not two lists of one length")
    context = texts[1]
    for answer, start in zip(answers, starts):
        if not isinstance(answer, str) or not isinstance(start, int) or isinstance(start, bool):
            raise ValueError("an answer is a text and the number of its first character")
        if not answer:
            raise ValueError("an answer is empty; a question without one has no answers at all")
        if not 0 <= start < len(context):
            raise ValueError(
                f"answer_start {_shown(start)} is outside of the context's {len(context)} characters"
            )
        if context[start : start + len(answer)] != answer:
            raise ValueError(
                f"answer {answer[:40]!r} is not at character {start} of the context: "
                f"{context[start : start + len(answer)][:40]!r} is"
            )
    return Example(identity, tuple(texts), True, tuple(answers), tuple(starts))
