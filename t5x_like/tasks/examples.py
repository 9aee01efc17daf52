"""From a row of a file to a labelled example: which column is which, and what a label means.

    to_example(definitions.find("cola"), {"sentence": "They left.", "label": 1}, "0", True)
    Example(id="0", texts=("They left.",), label=1)

Every mistake is a `ValueError` in words; tasks/reading.py knows the file and the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from t5x_like.errors import Exit, UserError, did_you_mean, nearest
from t5x_like.tasks import formats
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.formats import Row

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


def is_labelled(task: Task, example: Example) -> bool:
    """Whether an example can be learnt from or judged by."""
    return example.label is not None if task.kind != "span" else example.label is True


# ---- columns -------------------------------------------------------------------------------------


def column_names(task: Task, role: str, name: str | None = None) -> list[str]:
    """The names under which a column may stand: the task's, the published one."""
    own = name or task.label
    published = task.columns.get(role if role == "label" else own)
    return [own] if published is None else [own, published]


def wanted_columns(task: Task) -> list[str]:
    """The columns of an example, without the label."""
    return [*task.text, *([task.second] if task.second else []), *task.choices]


def value_of(task: Task, values: dict[str, Any], role: str, name: str) -> Any:
    # A published file may use the task's name for something else: MNLI's `label1` stands beside `gold_label`, but
    # QNLI's TSV `label` is its own. The task's name comes first, except where only the published one is there.
    return next((values[n] for n in column_names(task, role, name) if n in values), None)


def check_columns(task: Task, row: Row, labelled: bool) -> None:
    """Raises `UserError` where the first row lacks a column; names those there are."""
    assert isinstance(row.values, dict)
    needed = [("text", name) for name in wanted_columns(task)]
    needed += [("label", task.label)] if labelled else []
    for role, name in needed:
        known = column_names(task, role, name)
        if not any(n in row.values for n in known):
            there = [str(column) for column in row.values]
            best = nearest(name, there)
            raise UserError(
                f"no column {' or '.join(repr(n) for n in known)}; there are: {', '.join(there) or 'none'}",
                where=row.where,
                help=(f"did you mean {best!r}? " if best else "")
                + "Columns are named by the task: --kind with --text_columns and --label_column, or a task file",
                code=Exit.BAD_DATA,
            )


# ---- rows ----------------------------------------------------------------------------------------


def to_example(task: Task, values: dict[str, Any], number: str, labelled: bool) -> Example:
    """A row as an example. Raises `ValueError` that says what is wrong with it."""
    label = value_of(task, values, "label", task.label)
    identity = str(values.get("id", values.get("idx", number)))
    if task.kind == "tagging":
        return _tagged(task, values, identity, label, labelled)
    texts = [_text(value_of(task, values, "text", name), name) for name in task.text]
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
    if not is_scalar(value):
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


def is_scalar(value: Any) -> bool:
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
    words = value_of(task, values, "text", task.text[0])
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
