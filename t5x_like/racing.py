"""A race: configurations trained under one budget, judged at several points by what they can be used for.

    race = config.load_as("race/bert_vs_electra", Race)
    shares = race_plan.plan(race, workdir)          # steps that the budget buys each contestant
    racing.execute(race, shares, workdir, tasks_dir)

A contestant of any family can enter whose model has an encoder to fine-tune. Everything that is finished stays on disk;
the same call again continues.

    WORKDIR/plan.json                             steps, FLOPs and tokens of each contestant; fixed at the first start
    WORKDIR/<contestant>/seed-<n>/                a run directory of `train`, a checkpoint at each point
    WORKDIR/<contestant>/seed-<n>/results.jsonl   one line a judgement
    WORKDIR/race.json, WORKDIR/report.html        everything in one file each
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from t5x_like import judging, typed
from t5x_like.config import Run
from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.race_plan import Race, Share, read_plan, write_plan
from t5x_like.tasks.results import finite
from t5x_like.training import loop, metrics
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.run import Evaluation, describe, describe_diff
from t5x_like.training.run_dir import write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat:
    """One contestant with one pretraining seed, and where it runs.

    Attributes:
      name: the contestant's.
      run: the contestant's, with what the race decides.
    """

    name: str
    run: Run
    seed: int
    share: Share
    directory: Path

    @property
    def label(self) -> str:
        """Such as bert/0, of contestant and seed."""
        return f"{self.name}/{self.seed}"


def heats(race: Race, shares: dict[str, Share], workdir: Path) -> Iterator[Heat]:
    """Seed by seed, so that a race that is stopped half-way has whole rounds."""
    for seed in race.seeds:
        for contestant in race.contestants:
            share = shares[contestant.name]
            each = share.steps // race.points
            yield Heat(
                name=contestant.name,
                run=dataclasses.replace(
                    contestant.run,
                    name=f"{contestant.name}-seed-{seed}",
                    seed=seed,
                    steps=share.steps,
                    checkpoints=Checkpoints(every=each, keep_last=race.points, keep_best=0),
                    evaluation=Evaluation(every=each, batches=contestant.run.evaluation.batches),
                ),
                seed=seed,
                share=share,
                directory=workdir / contestant.name / f"seed-{seed}",
            )


def pretrain(heat: Heat, say: Callable[[str], None] = print) -> Exit:
    """Trains a heat to its end, or on from where it stopped."""
    say(f"\n== {heat.name}, seed {heat.seed}: {heat.share.steps:,} steps")
    code = loop.train(heat.run, str(heat.directory))
    jax.clear_caches()
    return code


def judge(race: Race, heat: Heat, tasks_dir: Path, say: Callable[[str], None] = print) -> None:
    """Fine-tunes and probes every checkpoint on every task, skipping what is done; the untrained model too, in the
    first seed's heat alone: it is the same whatever the seed of pretraining. The end comes first, so that a race that
    is stopped has its result."""
    path = heat.directory / "results.jsonl"
    done = _results(heat)
    each = heat.share.steps // race.points
    steps = range(0 if heat.seed == race.seeds[0] else each, heat.share.steps + 1, each)
    for step in sorted(steps, key=lambda step: (step != heat.share.steps, step)):
        for method, task, seeds in _judgements(race):
            missing = tuple(s for s in seeds if (step, task, method, s) not in done)
            if not missing:
                continue
            if method == "probe":
                missing = seeds  # in one go: their vectors come from one pass over all of their examples
            for record in _judged(race, heat, step, task, method, missing, str(tasks_dir / task)):
                _append(path, {"step": step, "task": task, "method": method, **record})
                say(
                    f"{heat.name} seed {heat.seed} step {step:>6,} {task} {method} seed "
                    f"{record['seed']}: {record['metric']} {record['value']:.4f} ({record['seconds']:.0f} s)"
                )


def _append(path: Path, record: dict[str, Any]) -> None:
    """Adds a line, behind what a kill may have torn."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(finite(record), allow_nan=False).encode() + b"\n")


def _judgements(race: Race) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(method, task, seeds) of all that is judged at a point, the quick ones first."""
    for task in race.probes:
        yield "probe", task, race.probe_seeds
    for task in race.tasks:
        yield "finetune", task, race.finetune.seeds


def _judged(
    race: Race, heat: Heat, step: int, task: str, method: str, seeds: tuple[int, ...], data: str
) -> Iterator[dict[str, Any]]:
    if method == "finetune":
        config = dataclasses.replace(race.finetune, task=task, data=data)
        return judging.fine_tuned(heat.run, heat.directory, step, config, seeds)
    length = race.finetune.length
    return judging.probed(heat.run, heat.directory, step, task, data, seeds, race.probe_examples, length)


_KEY = ("step", "task", "method", "seed")


def _results(heat: Heat) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What has been judged of a heat, by (step, task, method, seed); a line that a kill has torn is not."""
    path, found = heat.directory / "results.jsonl", {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            record = json.loads(line)
            found[tuple(record[name] for name in _KEY)] = record
    return found


def collect(race: Race, shares: dict[str, Share], workdir: Path) -> dict[str, Any]:
    """Everything that is known of the race, as plain data; what the report is drawn from."""
    results, curves = [], []
    for heat in heats(race, shares, workdir):
        place = {"contestant": heat.name, "pretraining_seed": heat.seed}
        price, each = heat.share.flops(race.count), heat.share.steps // race.points
        for record in _results(heat).values():
            spent = {"flops": record["step"] * price, "tokens": record["step"] * heat.share.tokens}
            results.append({**place, **spent, "point": record["step"] // each, **record})
        curve = heat.directory / "metrics.jsonl"
        for record in metrics.read(curve) if curve.is_file() else ():
            if record.get("kind") in ("train", "eval"):
                curves.append({**place, "flops": record["step"] * price, **record})
    first = race.contestants[0]
    return {
        "name": race.name,
        "budget": race.budget,
        "count": race.count,
        "points": race.points,
        "tasks": list(dict.fromkeys((*race.tasks, *race.probes))),
        "finetune": typed.to_data(race.finetune),
        "contestants": {
            c.name: {
                **dataclasses.asdict(shares[c.name]),
                "model": type(c.run.model).__name__,
                "objective": c.run.objective.summary,
                "config": describe(c.run),
                "differs": describe_diff(first.run, c.run) if c is not first else "",
            }
            for c in race.contestants
        },
        "results": results,
        "curves": curves,
    }


def execute(
    race: Race, shares: dict[str, Share], workdir: Path, tasks_dir: Path, only: str | None = None
) -> Exit:
    """Pretrains and judges every heat that is not finished; `INTERRUPTED` where a signal stopped one.

    Args:
      only: the one heat to run, as `Heat.label` has it.
    """
    check_tasks(race, workdir, tasks_dir)
    for heat in heats(race, shares, workdir):
        if only is not None and heat.label != only:
            continue
        code = pretrain(heat)
        if code != Exit.DONE:
            return code
        judge(race, heat, tasks_dir)
    return Exit.DONE


def check_tasks(race: Race, workdir: Path, tasks_dir: Path) -> None:
    """Reads all tasks before anything is trained, and refuses others than the race was begun with."""
    path = workdir / "plan.json"
    found = judging.check_tasks(dict.fromkeys((*race.tasks, *race.probes)), tasks_dir)
    stored = read_plan(path)
    for name, fingerprint in found.items():
        before = stored["tasks"].setdefault(name, fingerprint)
        if before != fingerprint:
            raise UserError(
                f"the task {name} is not the one that this race was begun with: fingerprint {before} then, "
                f"{fingerprint} now",
                where=str(tasks_dir / name),
                help="give the files it was begun with, or choose another --workdir",
                code=Exit.BAD_DATA,
            )
    write_plan(path, stored)


def report(
    race: Race, shares: dict[str, Share], workdir: Path, reading: str | None = None, png: Path | None = None
) -> None:
    """Writes race.json and report.html, of a finished race or of what there is so far; `png`: also all curves over
    FLOPs as a picture."""
    from t5x_like import race_report

    data = collect(race, shares, workdir)
    write_atomically(workdir / "race.json", json.dumps(finite(data), allow_nan=False) + "\n")
    samples = {contestant.name: shown(contestant.run) for contestant in race.contestants}
    write_atomically(workdir / "report.html", race_report.page(data, samples, reading))
    if png is not None:
        figure = race_report.learning_curves(race_report.comparable(data), list(race_report.METHODS), "flops")
        if figure is not None:
            figure.savefig(png, dpi=110)


def shown(run: Run, rows: int = 3) -> str:
    """HTML of the first rows of a run's first batch: what its objective shows the model. A page inside the page, so
    that the styles of the two keep apart."""
    from t5x_like import inspection, rendering

    batches = Batches(run.data, run.objective, run.batch_size, run.seed)
    inside = rendering.to_html(inspection.inspect(batches, 0), run.name, rows)
    return f'<iframe srcdoc="{html.escape(inside)}"></iframe>'
