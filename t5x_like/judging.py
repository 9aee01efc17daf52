"""How a contestant of a race is judged at one point: fine-tuning and linear probe on a labelled task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError
from t5x_like.tasks import definitions, pretrained
from t5x_like.tasks.finetuning import finetune
from t5x_like.tasks.pretrained import Pretrained
from t5x_like.tasks.probe import linear_probe

if TYPE_CHECKING:
    from t5x_like.racing import Race
    from t5x_like.training.run import Run

PROBED = ("classification", "regression")


def check_tasks(names: Sequence[str], tasks_dir: Path) -> None:
    """Raises `UserError` where a task has no folder, before anything is trained."""
    for name in names:
        if not (tasks_dir / name).is_dir():
            raise UserError(
                f"no folder for the task {name}",
                where=str(tasks_dir / name),
                help="python -m benchmarks.labelled_tasks makes some; or leave the task out: --set=tasks=...",
                code=Exit.BAD_DATA,
            )


def methods(race: Race, task: str) -> list[tuple[str, tuple[int, ...]]]:
    """How a task is judged, and with which seeds. A probe is for labels of whole texts."""
    probe = race.probe_seeds if definitions.find(task).kind in PROBED else ()
    return [
        (method, seeds) for method, seeds in (("probe", probe), ("finetune", race.finetune.seeds)) if seeds
    ]


def judge(
    race: Race,
    run: Run,
    directory: Path,
    step: int,
    task: str,
    method: str,
    seeds: tuple[int, ...],
    tasks_dir: Path,
) -> Iterator[dict[str, Any]]:
    """One record a seed: `seed`, `metric` and its `value` on the test split, all `metrics`, `seconds`.

    Args:
      directory: of the pretraining run.
      step: of its checkpoint; 0: the untrained model (random numbers of each seed).
    """
    start = _start(run, directory, step)
    found = definitions.find(task)
    data = str(tasks_dir / task)
    if method == "probe":
        length = race.finetune.length
        for result in linear_probe(
            start, found, data, seeds=seeds, max_examples=race.probe_examples, length=length, say=_quiet
        ):
            yield _record(found.metric, result.seed, result.metrics, result.seconds)
        return
    for seed in seeds:  # one at a time: what is finished is on disk
        config = dataclasses.replace(race.finetune, init=None, task=task, data=data, seeds=(seed,))
        (result,) = finetune(config, start, say=_quiet).seeds
        values = result.validation if result.test is None else result.test
        yield _record(config.metric or found.metric, seed, values, result.seconds)


def _record(metric: str, seed: int, values: dict[str, float], seconds: float) -> dict[str, Any]:
    return {"seed": seed, "metric": metric, "value": values[metric], "metrics": values, "seconds": seconds}


def _start(run: Run, directory: Path, step: int) -> Pretrained:
    if step:
        return pretrained.load(str(directory), step)
    return pretrained.of(run.model, None, load_tokenizer(directory / "tokenizer"), "nothing")


def _quiet(text: str) -> None:
    del text
