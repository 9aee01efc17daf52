"""Labelled tasks as text to text, in the formats that T5 was trained on.

Source: t5/data/preprocessors.py `glue`, `squad`, `stsb`, `copa`; t5/data/postprocessors.py; Raffel et al. 2020,
appendix D. A task T5 was not trained on takes the general rule: `<task> <column>: <text> <column>: <text>`, columns
sorted by name, and the label's name as the answer. SQuAD 2.0 and tagging have no published format: of the former a
question without answer asks for `no answer`; the latter is refused.
"""

from __future__ import annotations

import re
from typing import Any

from t5x_like.errors import UserError
from t5x_like.tasks import formats
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example

NO_ANSWER = "no answer"
STEP = 5
"""A number is written to the nearest 1/5, as STS-B is."""

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SPACES = re.compile(r"\s+")


def check(task: Task) -> None:
    """Raises `UserError` where a task has no text-to-text format."""
    if task.kind == "tagging":
        raise UserError(
            f"{task.name} tags words, and T5 has no text-to-text format for that",
            where=f"task={task.name}",
            help="fine-tune an encoder on it, or T5 on a task of another kind",
        )


def inputs(task: Task, example: Example) -> str:
    """What the encoder reads."""
    if task.kind == "span":
        question, context = map(_padded, example.texts)
        return _folded(f"question: {question} context: {context}")
    if task.kind == "choice":  # as COPA: the candidates are columns like the others
        candidates = {f"choice{i}": text for i, text in enumerate(example.texts[1:], 1)}
        columns = {**candidates, "premise": example.texts[0]}
    else:
        columns = dict(zip(task.text, example.texts, strict=True))
    parts = [f"{name}: {columns[name]}" for name in sorted(columns)]
    return " ".join([task.prompt or task.name, *parts])


def target(task: Task, example: Example) -> str:
    """What the decoder is to say; `<unk>` where there is no label."""
    if task.kind == "span":
        return _folded(_padded(example.answers[0])).strip() if example.answers else NO_ANSWER
    if example.label is None:
        return "<unk>"
    if task.kind == "regression":
        return number(example.label)
    return f"choice{example.label + 1}" if task.kind == "choice" else task.labels[example.label]


def number(value: float) -> str:
    """To the nearest 0.2, halves to the even fifth: STS-B's 0.0 ... 5.0."""
    return f"{round(STEP * value) / STEP + 0.0:.1f}"


def prediction(task: Task, text: str) -> Any:
    """What the decoder said, as a prediction: an id or -1, a number (-1 where it is none), or an answer."""
    text = text.strip()
    if task.kind == "span":
        return "" if text == NO_ANSWER else text
    if task.kind == "regression":
        found = formats.number(text)  # "nan" and "inf" are none
        return -1.0 if found is None else found
    names = (
        [f"choice{i}" for i in range(1, len(task.choices) + 1)] if task.kind == "choice" else [*task.labels]
    )
    return names.index(text) if text in names else -1


def _padded(text: str) -> str:
    """Spaces around ASCII punctuation, white space folded."""
    return _folded(_PUNCTUATION.sub(r" \1 ", text))


def _folded(text: str) -> str:
    return _SPACES.sub(" ", text)
