"""What a labelled task is: its columns, labels, metrics and T5 format. GLUE, SQuAD, CoNLL-2003, SWAG, and our own.

GLUE (Wang et al. 2019, arXiv:1804.07461): labels in the order of TFDS, columns as in TFDS; `columns` names them in
the published TSV files where these differ. Metrics and T5's formats: t5/data/glue_utils.py, preprocessors.py, and
Raffel et al. 2020, appendix D.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

from t5x_like import typed
from t5x_like.errors import Exit, UserError, did_you_mean

Kind = Literal["classification", "regression", "tagging", "span", "choice"]
KINDS: tuple[Kind, ...] = ("classification", "regression", "tagging", "span", "choice")

METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "macro_f1", "matthews"),
    "regression": ("pearson", "spearman", "mse"),
    "tagging": ("f1", "precision", "recall", "accuracy"),
    "span": ("f1", "exact_match"),
    "choice": ("accuracy",),
}
"""Kind -> metrics that can be computed; `mse` is better when it is lower, all others when they are higher."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled task.

    Attributes:
      name: also the first word of T5's inputs, unless `prompt` is set.
      kind: what is predicted: one of `labels`; a number; one of `labels` for each word; a stretch of the second
        text; which of the candidate texts.
      text: names of the text columns. classification, regression: one or two; tagging: the words; span: question
        and context; choice: those that make the first segment (joined by spaces), with the candidates in `choices`.
      label: name of the label's column. span: `answers`.
      labels: names in the order of their ids; () takes those of the training data, sorted.
      metrics: of `METRICS`; the first one selects checkpoints.
      choices: columns of the candidates (kind "choice").
      second: for choice: the column that begins every candidate (SWAG's `sent2`), or none.
      low, high: of regression: labels outside are refused.
      prompt: T5's name of the benchmark.
      columns: names of columns in the published files, where they are others.
      headerless: the columns of a published TSV file without a header line.
      variant: what tells its files or splits from those of its sisters: `matched`, `v1.1`.
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    label: str = "label"
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    choices: tuple[str, ...] = ()
    second: str | None = None
    low: float | None = None
    high: float | None = None
    prompt: str | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    headerless: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def metric(self) -> str:
        """The metric that selects checkpoints."""
        return self.metrics[0]

    @property
    def is_pair(self) -> bool:
        """Whether a row of tokens has two segments."""
        return self.kind in ("span", "choice") or (self.kind != "tagging" and len(self.text) == 2)


def check(task: Task, where: str | None = None) -> None:
    """Raises `UserError` where a task cannot be."""
    typed.check(task, Task, where=where)
    allowed = {"classification": (1, 2), "regression": (1, 2), "tagging": (1,), "span": (2,), "choice": (1,)}
    if len(task.text) not in allowed[task.kind]:
        wanted = " or ".join(map(str, allowed[task.kind]))
        raise UserError(f"a {task.kind} task has {wanted} text columns, not {len(task.text)}", where=where)
    if not task.metrics:
        raise UserError("a task needs a metric", where=where, help=_choose(METRICS[task.kind]))
    for metric in task.metrics:
        if metric not in METRICS[task.kind]:
            raise UserError(
                f"a {task.kind} task has no metric {metric!r}",
                where=where,
                help=did_you_mean(metric, METRICS[task.kind]),
            )
    if task.kind == "choice" and len(task.choices) < 2:
        raise UserError(
            "a choice task needs the columns of its candidates",
            where=where,
            help='--task=FILE.json with "choices": ["ending0", "ending1", ...]',
        )
    if len(set(task.labels)) < len(task.labels):
        raise UserError("a label is named twice", where=where)
    if task.kind == "classification" and len(task.labels) == 1:
        raise UserError("a classification task needs two labels or more", where=where)
    binary = [m for m in task.metrics if m == "f1" and task.kind == "classification"]
    if binary and len(task.labels) not in (0, 2):
        raise UserError(
            f"f1 is for two labels, and there are {len(task.labels)}",
            where=where,
            help="macro_f1 is for any number",
        )


def _choose(names: tuple[str, ...]) -> str:
    return "choose of: " + ", ".join(names)


ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
_PAIR = ("sentence1", "sentence2")
_MNLI = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")
_SENTIMENT = ("negative", "positive")
_SQUAD_METRICS = ("f1", "exact_match")

_MNLI_TASK = Task(
    name="mnli",
    kind="classification",
    text=("premise", "hypothesis"),
    labels=_MNLI,
    metrics=("accuracy",),
    columns={"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
    variant="matched",
)

TASKS: tuple[Task, ...] = (
    # GLUE
    Task(
        name="cola",
        kind="classification",
        text=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        headerless=("source", "label", "judgement", "sentence"),
    ),
    Task(name="sst2", kind="classification", text=("sentence",), labels=_SENTIMENT, metrics=("accuracy",)),
    Task(
        name="mrpc",
        kind="classification",
        text=_PAIR,
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        columns={"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
    ),
    Task(
        name="stsb",
        kind="regression",
        text=_PAIR,
        metrics=("spearman", "pearson"),
        low=0.0,
        high=5.0,
        columns={"label": "score"},
    ),
    Task(
        name="qqp",
        kind="classification",
        text=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        columns={"label": "is_duplicate"},
    ),
    _MNLI_TASK,
    dataclasses.replace(_MNLI_TASK, name="mnli_mismatched", prompt="mnli", variant="mismatched"),
    Task(
        name="qnli",
        kind="classification",
        text=("question", "sentence"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
    ),
    Task(name="rte", kind="classification", text=_PAIR, labels=_ENTAILMENT, metrics=("accuracy",)),
    # T5 never trains on WNLI (its format is that of WSC); this is the general format.
    Task(
        name="wnli",
        kind="classification",
        text=_PAIR,
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
    ),
    # Others as published
    Task(
        name="squad",
        kind="span",
        text=("question", "context"),
        label="answers",
        metrics=_SQUAD_METRICS,
        variant="v1.1",
    ),
    Task(
        name="squad_v2",
        kind="span",
        text=("question", "context"),
        label="answers",
        metrics=_SQUAD_METRICS,
        variant="v2.0",
    ),
    Task(
        name="conll2003_ner",
        kind="tagging",
        text=("tokens",),
        label="tags",
        labels=ENTITIES,
        metrics=("f1", "precision", "recall", "accuracy"),
        columns={"label": "ner"},
    ),
    Task(
        name="swag",
        kind="choice",
        text=("sent1",),
        second="sent2",
        choices=("ending0", "ending1", "ending2", "ending3"),
        metrics=("accuracy",),
    ),
    # Those of DATA.md: JSONL files out of pinned packages, benchmarks/labelled_tasks.py
    Task(name="imdb", kind="classification", text=("text",), labels=_SENTIMENT, metrics=("accuracy",)),
    Task(
        name="rotten_tomatoes",
        kind="classification",
        text=("text",),
        labels=_SENTIMENT,
        metrics=("accuracy",),
    ),
    Task(
        name="sentiment_regression",
        kind="regression",
        text=("text",),
        metrics=("pearson", "spearman"),
        low=-4.0,
        high=4.0,
    ),
    Task(
        name="bbc_topics",
        kind="classification",
        text=("text",),
        labels=("business", "entertainment", "politics", "sports", "tech"),
        metrics=("accuracy", "macro_f1"),
    ),
    Task(
        name="sms_spam",
        kind="classification",
        text=("text",),
        labels=("ham", "spam"),
        metrics=("f1", "accuracy"),
    ),
    Task(name="zh_reviews", kind="classification", text=("text",), labels=_SENTIMENT, metrics=("accuracy",)),
)


def names() -> list[str]:
    """The tasks that are defined here."""
    return [task.name for task in TASKS]


def find(name: str) -> Task:
    """A task by its name, or the one that a JSON file describes.

    Args:
      name: one of `names()`, or a path that ends in .json: {"name": ..., "kind": ..., "text": [...], "metrics": [...]}.

    Raises:
      UserError: no such task or file, or one that cannot be.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    for task in TASKS:
        if task.name == name:
            return task
    raise UserError(f"no task {name!r}", where=f"task={name}", help=did_you_mean(name, names()))


def _read(path: Path) -> Task:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read the task: {e.strerror}", where=str(path), code=Exit.BAD_DATA) from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"not a JSON file: {e}", where=str(path), code=Exit.BAD_DATA) from None
    task = typed.from_data(data, Task, where=str(path))
    if not isinstance(task, Task):
        raise UserError("a task is a JSON object", where=str(path), code=Exit.BAD_DATA)
    if "/" in task.name or not task.name.strip():
        raise UserError(f"{task.name!r} cannot be the name of a task", where=str(path))
    check(task, str(path))
    return task
