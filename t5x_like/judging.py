"""How a contestant of a race is judged at one point: fine-tuning and linear probe on a labelled task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.models.t5 import T5
from t5x_like.tasks import definitions, pretrained, text_to_text
from t5x_like.tasks.finetuning import finetune
from t5x_like.tasks.pretrained import Pretrained
from t5x_like.tasks.probe import linear_probe
from t5x_like.tasks.reading import read_splits
from t5x_like.tasks.recipe import FineTune
from t5x_like.training.run import Run

PROBED = ("classification", "regression")


def check_tasks(names: Iterable[str], tasks_dir: Path) -> dict[str, str]:
    """Reads every task once, before anything is trained; returns the fingerprints of their data.

    Raises:
      UserError: no folder for a task, or files that cannot be used.
    """
    found = {}
    for name in names:
        if not (tasks_dir / name).is_dir():
            raise UserError(
                f"no folder for the task {name}",
                where=str(tasks_dir / name),
                help="python -m benchmarks.labelled_tasks makes some; or leave the task out: --set=tasks=...",
                code=Exit.BAD_DATA,
            )
        _, splits = read_splits(definitions.find(name), str(tasks_dir / name), say=_quiet)
        found[name] = splits.fingerprint
    return found


def check_probes(names: Iterable[str]) -> None:
    """Raises `UserError` for a task that no linear probe can be fitted to."""
    for name in names:
        kind = definitions.find(name).kind
        if kind not in PROBED:
            raise UserError(
                f"a linear probe is for labels of whole texts ({' or '.join(PROBED)}); {name} is {kind}",
                where="probes",
            )


def check_fine_tuning(run: Run, config: FineTune, name: str) -> None:
    """Raises `UserError` for what would be refused at the first point, when a contestant has been trained: a metric
    that the task has not, rows longer than the model's, a task that the model's family cannot do."""
    task = definitions.find(name)
    if config.metric is not None and config.metric not in task.metrics:
        raise UserError(
            f"{name} is not judged by {config.metric!r}",
            where="finetune.metric",
            help=did_you_mean(config.metric, task.metrics),
        )
    if isinstance(run.model, T5):
        text_to_text.check(task)
    elif config.length > run.model.max_length:
        raise UserError(
            f"finetune.length is {config.length}, and the model has positions for {run.model.max_length}",
            where="finetune.length",
            help=f"finetune.length={run.model.max_length}",
        )


def fine_tuned(
    run: Run, directory: Path, step: int, config: FineTune, seeds: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """One record a seed: `seed`, `metric` and its `value` on the test split, all `metrics`, `seconds`.

    Args:
      directory: of the pretraining run.
      step: of its checkpoint; 0: the untrained model (random numbers of each seed).
      config: how, on which task and with which data.
    """
    start = _start(run, directory, step)
    metric = config.metric or definitions.find(config.task).metric
    for seed in seeds:  # one at a time: what is finished is on disk
        (result,) = finetune(dataclasses.replace(config, init=None, seeds=(seed,)), start, say=_quiet).seeds
        values = result.validation if result.test is None else result.test
        yield _record(metric, seed, values, result.seconds)


def probed(
    run: Run,
    directory: Path,
    step: int,
    task: str,
    data: str,
    seeds: tuple[int, ...],
    examples: int,
    length: int,
) -> Iterator[dict[str, Any]]:
    """The same of a linear probe.

    Args:
      examples: most that are fitted, and most that are judged.
      length: most tokens of a text.
    """
    found = definitions.find(task)
    start = _start(run, directory, step)
    for result in linear_probe(
        start, found, data, seeds=seeds, max_examples=examples, length=length, say=_quiet
    ):
        yield _record(found.metric, result.seed, result.metrics, result.seconds)


def _record(metric: str, seed: int, values: dict[str, float], seconds: float) -> dict[str, Any]:
    return {"seed": seed, "metric": metric, "value": values[metric], "metrics": values, "seconds": seconds}


def _start(run: Run, directory: Path, step: int) -> Pretrained:
    if step:
        return pretrained.load(str(directory), step)
    return pretrained.of(run.model, None, load_tokenizer(directory / "tokenizer"), "nothing")


def _quiet(text: str) -> None:
    del text
