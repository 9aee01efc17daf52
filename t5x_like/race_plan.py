"""The rules of a race, and what its budget buys each contestant.

Compute is counted in floating point operations of a train step: by formula (matrix products, forward and twice that
backward) and from the compiled program; the budget is spent by the one that `Race.count` names, or by seconds of steps
that are timed here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax

from t5x_like import judging, typed
from t5x_like.config import Run, validate
from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.tasks import definitions, recipe, results
from t5x_like.tasks.recipe import FineTune
from t5x_like.training import partitioning, state
from t5x_like.training.meter import step_flops, token_slots
from t5x_like.training.run import describe
from t5x_like.training.run_dir import write_atomically
from t5x_like.training.step import make_train_step

Count = Literal["formula", "compiled", "seconds"]
TIMED_STEPS = 5
MOST_POINTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """A name and the run that bears it. Steps, seed, data, checkpoints and validation are the race's to set."""

    name: str
    run: Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Race:
    """What is compared, and how.

    Attributes:
      contestants: two or more, told apart by their names.
      budget: of one contestant and one seed: FLOPs, or seconds of training steps where `count` is "seconds".
      count: FLOPs by formula, FLOPs of the compiled program, or wall time (timed on this machine when planned).
      points: judgements on the way, equally far apart, the last at the end; the untrained model is judged too.
      seeds: of pretraining: parameters, data order, masks.
      tasks: what the contestants are fine-tuned on; names of `tasks.definitions`.
      finetune: how; its seeds are the repetitions at each point. Its task and init are the race's to set.
      probes: tasks with labels of whole texts, for the linear probe; () leaves it out.
      probe_seeds: repetitions of the linear probe.
      probe_examples: most examples of a task that the probe is trained and tested on.
    """

    name: str
    contestants: tuple[Contestant, ...]
    budget: float
    count: Count = "formula"
    points: int = 4
    seeds: tuple[int, ...] = (0,)
    tasks: tuple[str, ...] = ()
    finetune: FineTune = FineTune()
    probes: tuple[str, ...] = ()
    probe_seeds: tuple[int, ...] = (0, 1, 2)
    probe_examples: int = 8000


def check(race: Race) -> None:
    """Raises `UserError` where the race cannot be run."""
    typed.check(race, Race)
    recipe.check(race.finetune)
    names = [contestant.name for contestant in race.contestants]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two contestants are called {name!r}", where="contestants")
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
            raise UserError(
                f"{name!r} cannot be the name of a contestant: it names a folder (letters, digits, - _ .)",
                where="contestants",
            )
    for field in ("budget", "points", "probe_examples"):
        if not getattr(race, field) > 0:
            raise UserError(f"{field} is {getattr(race, field)}; it must be positive", where=field)
    if race.points > MOST_POINTS:
        raise UserError(f"points is {race.points:,}; at most {MOST_POINTS:,} are possible", where="points")
    for field in ("contestants", "seeds", "tasks", "probe_seeds"):
        if not getattr(race, field):
            raise UserError(f"a race needs {field}", where=field)
    for field in ("seeds", "probe_seeds", "tasks", "probes"):
        values = getattr(race, field)
        if len(set(values)) < len(values):
            raise UserError(f"{field} has something twice: {values}", where=field)
    for field in ("seeds", "probe_seeds"):
        if min(getattr(race, field)) < 0:
            raise UserError(f"{field} are {getattr(race, field)}; none may be negative", where=field)
    known = definitions.names()
    for field in ("tasks", "probes"):
        for task in getattr(race, field):
            if task not in known:
                raise UserError(f"no task {task!r}", where=field, help=did_you_mean(task, known))
    judging.check_probes(race.probes)
    for contestant in race.contestants:
        if contestant.run.phases:
            raise UserError(
                f"contestant {contestant.name!r} has phases: its steps differ in what they cost, and a race counts one",
                where="phases",
                help="leave phases out of the contestants of a race",
            )
        with _of(contestant):
            validate(contestant.run)
            for task in race.tasks:
                judging.check_fine_tuning(contestant.run, race.finetune, task)


@contextlib.contextmanager
def _of(contestant: Contestant) -> Iterator[None]:
    """Puts the contestant's name in front of what is refused inside."""
    try:
        yield
    except UserError as e:
        raise UserError(
            f"contestant {contestant.name!r}: {e.what}", where=e.where, help=e.help, code=e.code
        ) from None


# ---- what the budget buys -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """What the budget buys a contestant.

    Attributes:
      steps: a multiple of `Race.points`.
      formula_flops, compiled_flops: of one step.
      step_seconds: median of a few steps on the machine that planned; None where FLOPs are counted.
      tokens: of one step, padding included.
      parameters: of the whole model; `encoder_parameters`: of what is fine-tuned.
    """

    steps: int
    formula_flops: float
    compiled_flops: float
    step_seconds: float | None
    tokens: int
    parameters: int
    encoder_parameters: int

    def flops(self, count: Count) -> float:
        """FLOPs of one step as the race counts them (by formula where it counts seconds)."""
        return self.compiled_flops if count == "compiled" else self.formula_flops


def plan(race: Race, workdir: Path, say: Callable[[str], None] = print) -> dict[str, Share]:
    """The share of each contestant; read back where the race was planned before.

    Raises:
      UserError: a budget that buys less than a step for each point; or the directory holds another race.
    """
    path = workdir / "plan.json"
    described = {c.name: describe(c.run, all_values=True) for c in race.contestants}
    plain = ("type", "seeds", "task", "data", "init")
    rules: dict[str, Any] = {"budget": race.budget, "count": race.count, "points": race.points}
    rules["finetune"] = {k: v for k, v in typed.to_data(race.finetune).items() if k not in plain}
    rules["probe_examples"] = race.probe_examples
    stored = read_plan(path)
    if stored:
        if (found := results.difference(stored["rules"], rules)) is not None:
            name, there, here = found
            raise UserError(
                f"this race was begun with {name} {there}, not {here}",
                where=str(path),
                help="choose another --workdir",
            )
        for name, text in described.items():
            if stored["configs"].get(name, text) != text:
                raise UserError(
                    f"contestant {name!r} was begun with another configuration",
                    where=str(path),
                    help="give it a new name, or choose another --workdir",
                )
    shares: dict[str, Share] = stored.get("shares", {})
    for contestant in race.contestants:
        if contestant.name not in shares:
            say(f"counting a step of {contestant.name}")
            with _of(contestant):
                shares[contestant.name] = _share(race, contestant.run)
    configs = stored.get("configs", {}) | described
    write_plan(path, {"rules": rules, "configs": configs, "shares": shares, "tasks": stored.get("tasks", {})})
    return {contestant.name: shares[contestant.name] for contestant in race.contestants}


def read_plan(path: Path) -> dict[str, Any]:
    """What plan.json holds, shares as `Share`; nothing before there is one."""
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["shares"] = {name: Share(**share) for name, share in stored["shares"].items()}
        if not all(isinstance(stored[part], dict) for part in ("rules", "configs", "tasks")):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            "the plan of this race cannot be read",
            where=str(path),
            help="put it back from a copy; or choose another --workdir",
            code=Exit.BAD_DATA,
        ) from None
    return stored


def write_plan(path: Path, stored: dict[str, Any]) -> None:
    """The inverse of `read_plan`; writes nothing where that is what the file holds, for other parts may be reading."""
    shares = {name: dataclasses.asdict(share) for name, share in stored["shares"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**stored, "shares": shares}, indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def _share(race: Race, run: Run) -> Share:
    mesh = run.mesh.build()
    batches = Batches(run.data, run.objective, run.batch_size, run.seed)
    run.objective.check(run.model, batches.vocabulary)
    formula = step_flops(run.model, batches.features, run.batch_size)
    schedule = run.schedule.over(1000)
    unrolled = _unrolled(
        run.model
    )  # a scanned stack is a loop, whose body the compiler's analysis counts once
    layout = run.mesh.layout()
    step = make_train_step(
        unrolled,
        run.objective,
        run.optimizer,
        schedule,
        mesh,
        seed=run.seed,
        clip_global_norm=run.clip_global_norm,
        layout=layout,
        partitioner=run.mesh.partitioner,
    )
    wanted = state.abstract(unrolled, run.optimizer, schedule, mesh, layout)
    compiled = step.lower(
        wanted, partitioning.abstract_batch(batches.features, run.batch_size, mesh)
    ).compile()
    counted = compiled_flops(compiled, mesh.size)
    seconds = _timed(run, unrolled, compiled, schedule, mesh, batches) if race.count == "seconds" else None
    price = {"formula": formula, "compiled": counted, "seconds": seconds}[race.count]
    assert price
    each = int(race.budget / price / race.points)
    if each < 1:
        raise UserError(
            f"the budget of {race.budget:.3g} buys {race.budget / price:.2f} steps of {run.name}, and there are "
            f"{race.points} points to reach",
            where="budget",
            help=f"budget={price * race.points * 10:.3g} buys 10 steps for each point",
        )
    if each > recipe.MOST_STEPS // race.points:
        raise UserError(
            f"the budget of {race.budget:.3g} buys {race.budget / price:.3g} steps of {run.name}; at most "
            f"{recipe.MOST_STEPS:,} are counted",
            where="budget",
        )
    run.schedule.over(each * race.points)  # refused here where its warm-up is longer
    encoder = getattr(run.model, "encoder", run.model)
    return Share(
        steps=each * race.points,
        formula_flops=formula,
        compiled_flops=counted,
        step_seconds=seconds,
        tokens=token_slots(batches.features, run.batch_size),
        parameters=run.model.num_params(),
        encoder_parameters=encoder.num_params(),
    )


def _unrolled(model: Any) -> Any:
    """The model with separate layers, those of an encoder inside it too."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        if field.name == "scan_layers":
            changes["scan_layers"] = False
        elif dataclasses.is_dataclass(inner := getattr(model, field.name)):
            changes[field.name] = _unrolled(inner)
    return dataclasses.replace(model, **changes)


def compiled_flops(compiled: jax.stages.Compiled, devices: int) -> float:
    """Floating point operations of a compiled program on all devices, as XLA's own analysis counts them: every
    operation of the optimised program, elementwise ones and recomputation included, loop bodies once."""
    analysis = compiled.cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    return float((found or {}).get("flops", 0.0)) * devices


def _timed(
    run: Run, model: Any, step: Any, schedule: Any, mesh: jax.sharding.Mesh, batches: Batches
) -> float:
    """Median seconds of a step, the first one left out."""
    current = state.create(model, run.optimizer, schedule, mesh, run.seed, run.mesh.layout())
    seconds = []
    for number in range(TIMED_STEPS + 1):
        batch = partitioning.shard_batch(batches(number), mesh)
        begun = time.perf_counter()
        current, sums = step(current, batch)
        jax.block_until_ready(sums)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])
