"""Metrics of labelled tasks, as their benchmarks compute them. Shares of one, not percent.

accuracy, f1, macro_f1, matthews   as scikit-learn; f1 of label 1; a prediction of -1 is none of the labels, and
                                   counts against the label that was right (T5's `f1_score_with_invalid`)
pearson, spearman                  scipy.stats; 0 where one side is constant
entity f1, precision, recall       conlleval (Tjong Kim Sang and De Meulder 2003): exact borders and type
exact_match, f1 of answers         squad evaluate-v1.1.py and evaluate-v2.0.py: best of the accepted answers
"""

from __future__ import annotations

import collections
import math
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example

LOWER_IS_BETTER = frozenset({"mse"})


def compute(
    task: Task, examples: Sequence[Example], predictions: Sequence[Any] | np.ndarray
) -> dict[str, float]:
    """The task's metrics.

    Args:
      examples: labelled.
      predictions: one an example: an id (-1: none of the labels), a number, a list of tag ids, or an answer's text.
    """
    predictions = list(predictions)
    if task.kind == "span":
        values = answers([e.answers for e in examples], predictions)
    elif task.kind == "tagging":
        names = [[task.labels[i] for i in e.label] for e in examples]
        values = entities(names, [[task.labels[i] for i in tags] for tags in predictions])
    elif task.kind == "regression":
        values = correlations([e.label for e in examples], predictions)
    else:
        count = len(task.labels) or len(task.choices)
        values = classes(np.array([e.label for e in examples]), np.asarray(predictions), count)
    return {name: values[name] for name in task.metrics}


def better(metric: str, value: float, than: float) -> bool:
    """Whether one value of a metric is better than another; any is better than none (NaN)."""
    if math.isnan(than):
        return True
    return value < than if metric in LOWER_IS_BETTER else value > than


# ---- classification and regression ---------------------------------------------------------------


def classes(labels: np.ndarray, predictions: np.ndarray, count: int) -> dict[str, float]:
    """accuracy, f1 (of label 1), macro_f1, matthews; labels and predictions [N] in 0..count-1, -1 for neither."""
    predictions = np.where((predictions >= 0) & (predictions < count), predictions, count)
    table = np.zeros((count, count + 1), np.float64)
    np.add.at(table, (labels, predictions), 1)
    if count == 2:  # of two labels, what is no label counts as the wrong one
        table[[0, 1], [1, 0]] += table[:, 2]
        table = table[:, :2]
    right = np.diagonal(table)
    predicted, true = table.sum(0)[:count], table.sum(1)
    f1 = 2 * right / np.maximum(predicted + true, 1)
    present = predicted + true > 0
    return {
        "accuracy": float(right.sum() / table.sum()),
        "f1": float(f1[1]),
        "macro_f1": float(f1[present].mean()),
        "matthews": _matthews(table),
    }


def _matthews(table: np.ndarray) -> float:
    """Gorodkin's R_K (2004) of a table of counts [label, prediction]; for two labels Matthews' coefficient."""
    total, right = table.sum(), np.trace(table)
    predicted, true = table.sum(0), table.sum(1)
    padded = np.concatenate([true, np.zeros(len(predicted) - len(true))])
    above = right * total - predicted @ padded
    below = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(above / np.sqrt(below)) if below > 0 else 0.0


def correlations(labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """pearson, spearman, mse of two sequences of numbers."""
    a, b = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    values = {"mse": float(np.mean(np.square(a - b))), "pearson": 0.0, "spearman": 0.0}
    if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
        values["pearson"] = float(stats.pearsonr(a, b)[0])  # pyright: ignore[reportArgumentType]
        values["spearman"] = float(stats.spearmanr(a, b)[0])  # pyright: ignore[reportArgumentType]
    return values


# ---- entities ------------------------------------------------------------------------------------


class Entity(NamedTuple):
    """Words [start, stop) of one type."""

    type: str
    start: int
    stop: int


def chunks(tags: Sequence[str]) -> list[Entity]:
    """The entities of BIO tags by conlleval's rules: an I that follows nothing, or another type, begins one."""
    found, start, kind = [], 0, ""
    for i, tag in enumerate([*tags, "O"]):
        part, _, own = tag.partition("-")
        ends = kind and (part in ("O", "B") or own != kind)
        if ends:
            found.append(Entity(kind, start, i))
            kind = ""
        if part in ("B", "I") and not kind:
            start, kind = i, own or part
    return found


def entities(labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall, f1 of entities over all sentences together, and accuracy of the tags."""
    true = {(i, *entity) for i, tags in enumerate(labels) for entity in chunks(tags)}
    given = {(i, *entity) for i, tags in enumerate(predictions) for entity in chunks(tags)}
    right = len(true & given)
    precision, recall = right / max(len(given), 1), right / max(len(true), 1)
    pairs = [(a, b) for x, y in zip(labels, predictions, strict=True) for a, b in zip(x, y, strict=True)]
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * right / max(len(true) + len(given), 1),
        "accuracy": sum(a == b for a, b in pairs) / max(len(pairs), 1),
    }


# ---- answers -------------------------------------------------------------------------------------

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalise(text: str) -> str:
    """SQuAD's: lower case, ASCII punctuation away, articles away, white space folded; in this order."""
    text = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def overlap(answer: str, prediction: str) -> float:
    """F1 of words between two texts; where one of them has none, whether both have none (evaluate-v2.0.py)."""
    a, b = normalise(answer).split(), normalise(prediction).split()
    if not a or not b:
        return float(a == b)
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * same / (len(a) + len(b))


def answers(accepted: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """exact_match and f1, means over questions. No accepted answer: the empty prediction is right (SQuAD 2.0)."""
    exact = words = 0.0
    for right, prediction in zip(accepted, predictions, strict=True):
        # An accepted answer of articles and punctuation alone is left out, as in evaluate-v2.0.py.
        candidates = [answer for answer in right if normalise(answer)] or [""]
        exact += max(float(normalise(answer) == normalise(prediction)) for answer in candidates)
        words += max(overlap(answer, prediction) for answer in candidates)
    count = max(len(accepted), 1)
    return {"exact_match": exact / count, "f1": words / count}
