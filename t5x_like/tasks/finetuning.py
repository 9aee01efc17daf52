"""Fine-tuning: a pretrained model, a task, several seeds, the best checkpoint of each.

    result = finetune(FineTune(init="runs/bert", task="rotten_tomatoes", data="data/tasks/rotten_tomatoes",
                               seeds=(0, 1, 2)), output="runs/bert-rt")
    result.median, result.spread

A seed decides the head (and a model without pretraining), the order of the examples and the dropout masks. It is
judged on the validation split several times on the way; the best of these checkpoints is judged on the test split.
All seeds, and all calls in this process with the same model and settings, run one compiled step.

    OUTPUT/finetune.json           what was asked for
    OUTPUT/seeds/<n>.json          a finished seed; the same call again does the missing ones
    OUTPUT/results.json            all of them, median and spread
    OUTPUT/predictions-*.jsonl     of the best seed
    OUTPUT/model/                  of the best seed, see tasks/saved.py
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from t5x_like import typed
from t5x_like.data import counter
from t5x_like.data.permutation import permute
from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead
from t5x_like.tasks import definitions, metrics, pretrained, results, saved, text_fitting, text_to_text
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example
from t5x_like.tasks.fitting import SEED, WEIGHTS, EncoderFitting, Fitting, Prediction, same_length
from t5x_like.tasks.pretrained import Pretrained
from t5x_like.tasks.reading import Splits, read_splits
from t5x_like.tasks.recipe import FineTune, check, recipe, steps_of
from t5x_like.tasks.results import Result, SeedResult
from t5x_like.training import partitioning, run_dir, state
from t5x_like.training.layout import Layout
from t5x_like.training.state import TrainState
from t5x_like.training.step import TrainStep, make_train_step

Say = Callable[[str], None]


def finetune(
    config: FineTune,
    model: Pretrained | None = None,
    *,
    output: str | Path | None = None,
    bad_input: Literal["fail", "skip"] = "fail",
    task: Task | None = None,
    say: Say = print,
) -> Result:
    """Fine-tunes with every seed.

    Args:
      model: what to start from; None loads `config.init`.
      output: where to keep results, predictions and the best model, not a run and not `config.init`; None keeps
        nothing.
      bad_input: rows that cannot be used: refuse, or leave out.
      task: another than `config.task` names.
      say: takes a line for the user.

    Raises:
      UserError: bad settings, data or model; or `output` holds another fine-tuning, or another process works there.
    """
    check(config)
    if output is not None:
        _check_output(Path(output), config.init)
    task = task or definitions.find(config.task)
    definitions.check(task)
    if model is None:
        if config.init is None:
            raise UserError(
                "what to start from?", where="init", help="init=RUN, a run or a Hugging Face directory"
            )
        model = pretrained.load(config.init, _checkpoint(config.checkpoint))
    task, splits = read_splits(task, config.data, bad_input=bad_input, held_out=config.held_out, say=say)
    metric = config.metric or task.metric
    if metric not in task.metrics:
        raise UserError(
            f"{task.name} is not judged by {metric!r}",
            where="metric",
            help=did_you_mean(metric, task.metrics),
        )
    job = Job(config, model, task, splits, metric, say)
    if output is None:
        return job.result([job.run(seed)[0] for seed in config.seeds])
    with run_dir.open_for_training(output) as directory:
        return _kept(job, directory.path)


def _check_output(folder: Path, init: str | None) -> None:
    """Raises `UserError` where fine-tuning would write into what it starts from, or into a run."""
    if init is not None and folder.resolve() == Path(init).resolve():
        raise UserError(
            "output is the directory to start from",
            where=str(folder),
            help="choose another --output",
            code=Exit.CANNOT_WRITE,
        )
    if (folder / "checkpoints").exists():
        raise UserError(
            "this is the directory of a training run",
            where=str(folder),
            help="choose another --output",
            code=Exit.CANNOT_WRITE,
        )


def _checkpoint(text: str) -> int | Literal["latest", "best"]:
    from t5x_like import cli

    return cli.read_step(text)


class Job:
    """A task and a model, joined and ready to be run with any seed."""

    def __init__(
        self, config: FineTune, start: Pretrained, task: Task, splits: Splits, metric: str, say: Say
    ):
        self.config, self.start, self.task, self.metric, self.say = config, start, task, metric, say
        self.fingerprint = splits.fingerprint
        self.layout = _layout(config, start, task, splits)
        self.fitting: Fitting = self.layout.fitting(start.tokenizer)
        train = _training(config, task, splits.train)
        self.examples = {"train": train, "validation": list(splits.validation)}
        if splits.test is not None:
            self.examples["test"] = list(splits.test)
        self.mesh = config.mesh.build()
        partitioning.check_batch(config.batch_size, 1, self.mesh)
        partitioning.check_vocabulary(self.fitting.model.vocab_size, self.mesh, config.mesh.layout())
        self.rows = same_length(
            {name: self.fitting.rows(examples) for name, examples in self.examples.items()}, self.fitting
        )
        count = self.rows["train"].count
        self.steps = steps_of(config, count)
        self.every = config.evaluate_every or max(1, round(count / config.batch_size))
        optimizer, schedule = recipe(config, start, self.steps)
        self.optimizer, self.schedule = optimizer, schedule
        self.step = _train_step(
            self.fitting.model,
            self.fitting.objective,
            optimizer,
            schedule,
            self.mesh,
            config.clip_global_norm,
            config.mesh.layout(),
            config.mesh.partitioner,
        )
        cut = self.rows["train"].truncated
        width = self.rows["train"].arrays["encoder_input_tokens"].shape[-1]
        held = " (held out of train)" if splits.held_out else ""
        say(
            f"{task.name}: {len(train):,} train, {len(splits.validation):,} validation{held}, "
            f"{len(splits.test) if splits.test is not None else 'no'} test; rows of {width} tokens"
            + (f", {cut:,} texts cut" if cut else "")
            + f"; {self.steps:,} steps of {config.batch_size} from {start.origin}"
        )

    def result(self, seeds: Sequence[SeedResult]) -> Result:
        """The seeds together."""
        return Result(
            task=self.task.name,
            metric=self.metric,
            split="test" if "test" in self.examples else "validation",
            steps=self.steps,
            seeds=tuple(seeds),
        )

    def batch(self, seed: int, step: int) -> dict[str, np.ndarray]:
        """Batch `step`: a pure function of (seed, step). Every epoch has an order of its own."""
        rows, size = self.rows["train"], self.config.batch_size
        epoch, index = np.divmod(np.arange(step * size, (step + 1) * size), rows.count)
        keys = counter.fold(counter.seed_key(seed, "fine-tuning"), epoch)
        chosen = permute(index, rows.count, keys)
        batch = {name: array[chosen] for name, array in rows.arrays.items()}
        batch[WEIGHTS] = np.ones(size, np.float32)
        batch[SEED] = np.full(size, seed & 0x7FFFFFFF, np.int32)
        return batch

    def run(self, seed: int) -> tuple[SeedResult, Any]:
        """Fits with one seed. Returns also the parameters that were kept, on the host.

        Raises:
          UserError: no update was finite.
        """
        begun = time.perf_counter()
        now = _created(self, seed)
        best: tuple[float, int, Any] | None = None
        curve, sums, lost = [], [], 0.0
        for step in range(1, self.steps + 1):
            now, parts = self.step(now, partitioning.shard_batch(self.batch(seed, step - 1), self.mesh))
            sums.append((parts["loss"], parts["nonfinite"][0]))
            if step % self.every and step != self.steps:
                continue
            losses = jax.device_get(sums)
            sums = []
            values = self.judge("validation", now.params)
            weight = float(sum(w for (_, w), _ in losses))
            point = {
                "step": step,
                "loss": float(sum(v for (v, _), _ in losses)) / max(weight, 1e-9),
                **values,
            }
            if skipped := sum(bad for _, bad in losses):
                self.say(f"warning: {skipped:.0f} updates skipped: the loss or the gradient was not finite")
                point["skipped"] = float(skipped)
                if (lost := lost + skipped) >= self.steps:
                    raise UserError(
                        f"none of the {self.steps:,} updates of seed {seed} was finite: nothing was learnt",
                        where=self.start.origin,
                        help="weights without NaN; or a lower --set=learning_rate",
                        code=Exit.INTERNAL,
                    )
            curve.append(point)
            self.say(
                f"  seed {seed} step {step:,}/{self.steps:,} loss {point['loss']:.4f} "
                + " ".join(f"{name} {value:.4f}" for name, value in values.items())
            )
            value = values[self.metric]
            if self.config.keep == "last" or best is None or metrics.better(self.metric, value, best[0]):
                best = value, step, jax.device_get(now.params)
        assert best is not None
        value, step, params = best
        kept = next(point for point in curve if point["step"] == step)
        result = SeedResult(
            seed=seed,
            validation={name: kept[name] for name in self.task.metrics},
            test=self.judge("test", params) if "test" in self.examples else None,
            step=step,
            seconds=time.perf_counter() - begun,
            curve=tuple(curve),
        )
        return result, params

    def judge(self, split: str, params: Any) -> dict[str, float]:
        """The task's metrics on a split."""
        predictions = self.predict(split, params)
        return metrics.compute(self.task, self.examples[split], [p.value for p in predictions])

    def predict(self, split: str, params: Any) -> list[Prediction]:
        """Predictions for a split."""
        return self.fitting.predict(params, self.examples[split], self.rows[split], self.config.batch_size)


# ---- parts of a job ------------------------------------------------------------------------------


def _layout(config: FineTune, start: Pretrained, task: Task, splits: Splits) -> saved.Layout:
    """The model with its head, and how its rows are made; refuses what does not fit."""
    model, style = start.model, config.head or start.style
    for name in ("stride", "question_length"):
        if getattr(config, name) is not None and not (task.kind == "span" and isinstance(model, Encoder)):
            raise UserError(f"{name} is for an encoder's windows of a context in span tasks", where=name)
    nullable = task.kind == "span" and any(not e.answers for e in [*splits.train, *splits.validation])
    if not isinstance(model, Encoder):
        text_to_text.check(task)
        if config.dropout is not None:
            model = dataclasses.replace(model, dropout=config.dropout)
        longest = text_fitting.longest_target(task, start.tokenizer, [*splits.train, *splits.validation])
        return saved.Layout(
            task=task, model=model, length=config.length, target_length=longest, batch_size=config.batch_size
        )
    if config.length > model.max_length:
        raise UserError(
            f"length is {config.length}, and the model has positions for {model.max_length}",
            where="length",
            help=f"length={model.max_length}",
        )
    if config.dropout is not None:
        model = dataclasses.replace(model, dropout=config.dropout, attention_dropout=config.dropout)
    labels = len(task.labels) if task.kind in ("classification", "tagging") else 1
    rate = 0.1 if config.dropout is None else config.dropout
    with_head = EncoderWithHead(encoder=model, head=task.kind, num_labels=labels, style=style, dropout=rate)
    with_head.check()
    layout = saved.Layout(
        task=task,
        model=with_head,
        length=config.length,
        double_separator=model.double_separator,
        null_threshold=config.null_threshold if nullable else None,
        batch_size=config.batch_size,
        stride=config.stride,
        question_length=config.question_length,
    )
    fitting = layout.fitting(start.tokenizer)
    assert isinstance(fitting, EncoderFitting)
    fitting.featurizer.check()
    return layout


def _training(config: FineTune, task: Task, examples: Sequence[Example]) -> list[Example]:
    """The training examples: the first so many of a fixed order, pairs in both orders where that is wanted."""
    chosen = list(examples)
    if config.max_examples is not None and config.max_examples < len(chosen):
        order = permute(
            np.arange(config.max_examples), len(chosen), counter.seed_key(0, "examples", task.name)
        )
        chosen = [chosen[i] for i in sorted(order.tolist())]
    if config.both_orders:
        if len(task.text) != 2 or task.kind not in ("classification", "regression"):
            raise UserError(f"{task.name} has no pairs to turn round", where="both_orders")
        chosen += [example._replace(texts=example.texts[::-1]) for example in chosen]
    return chosen


@functools.lru_cache(maxsize=4)
def _train_step(
    model: Any,
    objective: Any,
    optimizer: Any,
    schedule: Any,
    mesh: jax.sharding.Mesh,
    clip: float | None,
    layout: Layout,
    partitioner: Any,
) -> TrainStep:
    """The compiled step: one for all seeds, and for all checkpoints of a race that are fine-tuned alike."""
    how: Any = {"layout": layout, "partitioner": partitioner}
    return make_train_step(model, objective, optimizer, schedule, mesh, clip_global_norm=clip, **how)


def _created(job: Job, seed: int) -> TrainState:
    """The state to start from: a random head on what was pretrained; or all of it random."""
    create = _creation(job.fitting.model, job.optimizer, job.schedule, job.mesh, job.config.mesh.layout())
    # What was read lies on one device, and a mesh may have several.
    everywhere = partitioning.replicated(job.mesh)
    return create(*jax.device_put((jax.random.key(seed), job.start.params), everywhere))


@functools.lru_cache(maxsize=4)
def _creation(
    model: Any, optimizer: Any, schedule: Any, mesh: jax.sharding.Mesh, layout: Layout
) -> Callable[[Any, Any], TrainState]:
    """(key, pretrained parameters or None) -> a state in arrays of its own: the step gives their memory away. One
    program, from which the compiler drops the draws that pretrained parameters replace."""
    transformation = optimizer.build(schedule, model.logical_axes())
    wanted = state.abstract(model, optimizer, schedule, mesh, layout)
    placed = jax.tree.map(lambda leaf: leaf.sharding, wanted)

    def create(key: Any, pretrained: Any) -> TrainState:
        if pretrained is None:
            params = model.init(key)
        elif isinstance(model, EncoderWithHead):
            params = model.with_encoder(model.init(key), pretrained)
        else:
            params = pretrained
        zero = jnp.zeros((), jnp.int32)
        return TrainState(step=zero, params=params, opt_state=transformation.init(params), skipped=zero)

    return jax.jit(create, out_shardings=placed)


def _kept(job: Job, folder: Path) -> Result:
    """Runs the seeds that `folder` lacks, and writes each when it is finished."""
    plain = ("type", "seeds", "mesh", "data", "init", "checkpoint")
    settings = typed.to_data(job.config)
    asked = {name: value for name, value in settings.items() if name not in plain}
    definition = typed.to_data(job.task)
    asked |= {
        "start": job.start.origin,
        "data": job.fingerprint,
        "steps": job.steps,
        "definition": definition,
    }
    results.agree(folder, asked)
    found = results.finished(folder)
    if before := sorted(found.keys() & set(job.config.seeds)):
        job.say(f"finished before: seed {', '.join(map(str, before))}")
    for seed in job.config.seeds:
        if seed in found:
            continue
        result, params = job.run(seed)
        value = result.validation[job.metric]
        if all(metrics.better(job.metric, value, r.validation[job.metric]) for r in found.values()):
            saved.save(folder, job.layout, params, job.start.tokenizer)
            for split in sorted(job.examples.keys() - {"train"}):
                _write_predictions(folder / f"predictions-{split}.jsonl", job, split, params)
        results.finish(folder, result)
        found[seed] = result
        _write_results(folder, job, found)
    return _write_results(folder, job, found)


def _write_results(folder: Path, job: Job, found: dict[int, SeedResult]) -> Result:
    result = job.result([found[seed] for seed in job.config.seeds if seed in found])
    data = {**dataclasses.asdict(result), "start": job.start.origin, "summary": results.summary(result)}
    results.write(folder / "results.json", {**data, "config": typed.to_data(job.config)})
    return result


def _write_predictions(path: Path, job: Job, split: str, params: Any) -> None:
    shown = zip(job.examples[split], job.predict(split, params), strict=True)
    lines = [
        json.dumps(results.finite({"id": e.id, **prediction.shown}), ensure_ascii=False, allow_nan=False)
        + "\n"
        for e, prediction in shown
    ]
    run_dir.write_atomically(path, "".join(lines))
