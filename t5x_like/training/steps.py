"""The steps of a training run: step, report, validate, save, stop.

    with prefetch(...) as stream:
        for step, batch in stream:
            ... validate and save the state that `step` starts from, where due
            state, sums = train_step(state, batch)

The host stays one step ahead of the device: after step t has been dispatched it waits for step t - 1, so the device
never waits for the host, memory does not fill with queued batches, and the clock tells the truth. Metrics are read
once in `log_every` steps.

Of several processes each feeds its own devices and runs the same loop; the first alone writes, and what one of them
decides all do at the same step (training/distributed.py).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import signal
import time
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from t5x_like.data.prefetch import Prefetch, prefetch
from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach
from t5x_like.objectives.base import Losses
from t5x_like.training import distributed, partitioning, profiling, recovery, start
from t5x_like.training import state as states
from t5x_like.training.checkpoints import Record, Store
from t5x_like.training.goodput import Goodput, Ledger
from t5x_like.training.interrupts import Interrupts
from t5x_like.training.meter import Meter
from t5x_like.training.metrics import Metrics
from t5x_like.training.progress import Eta, Progress, duration, quantity
from t5x_like.training.recovery import Trouble
from t5x_like.training.run import Run, to_json
from t5x_like.training.run_dir import RunDir
from t5x_like.training.setup import Setup
from t5x_like.training.spikes import Spikes
from t5x_like.training.state import TrainState
from t5x_like.training.step import TrainStep
from t5x_like.training.validation import Validator
from t5x_like.training.watchdog import Watchdog


class Loop:
    """One call of `train`, from the compiled step to the last checkpoint."""

    def __init__(
        self, run: Run, directory: RunDir, setup: Setup, store: Store, interrupts: Interrupts,
        ledger: Ledger, trace: profiling.Profile,
    ):  # fmt: skip
        self.config, self.directory, self.setup = run, directory, setup
        self.store, self.interrupts = store, interrupts
        self.ledger, self.trace, self.spikes = ledger, trace, Spikes()
        self.goodput = Goodput(ledger, directory.events(), setup.start)
        self.progress = Progress(setup.start, run.steps, log=directory.log)
        self.stage, self.eta = setup.ahead[0], Eta()
        self.metrics = Metrics(directory, setup.start)
        self.validator = Validator(run, directory, setup.mesh, ledger)
        self.wishes = distributed.Wishes() if jax.process_count() > 1 else None
        self.stopped_by: str | None = None
        self.told_saved: int | None = None
        self.unvalidated = False
        who = (
            "the process"
            if self.wishes is None
            else f"process {jax.process_index()} of {jax.process_count()}"
        )
        self.watchdog = Watchdog(run.recovery.stall_seconds, directory.log_file, who)
        store.say = self.progress.say

    def run(self, record: Record | None) -> Exit:
        """Steps from the record (or from 0) to the end of the run, or to an interrupt."""
        setup, data = self.setup, self.config.data
        step, state = setup.start, None
        # A run that was told to stop saved before it validated; that is made up for, once.
        self.unvalidated = record is not None and distributed.from_first(
            lambda: not self.validator.done(step)
        )
        with contextlib.closing(self.metrics), contextlib.ExitStack() as shown:
            shown.enter_context(self.watchdog)
            shown.push(self._settle)
            shown.callback(self._tell_time)
            shown.callback(lambda: self._say(self.trace.stop()))
            for self.stage in setup.ahead:
                stage = self.stage
                with (
                    prefetch(
                        stage.batches, step, stage.stop, stage.rows, data.workers, data.prefetch
                    ) as stream,
                    concurrent.futures.ThreadPoolExecutor(1) as pool,
                ):
                    begun = state is not None
                    if record is None and not begun and self.config.init_from is not None:
                        state = self._begin(record)  # first: weights that do not fit are refused at once
                    # While the first batches are made and a checkpoint is read:
                    compiling = pool.submit(self._compile)
                    if state is None:
                        state = self._begin(record)
                    if begun:
                        self._turn(step)
                    else:
                        shown.enter_context(self.progress)
                    self._phase("compiling")
                    # What devices exchange first must come at one time.
                    with self.ledger.during("compile"), distributed.together():
                        train_step = compiling.result()
                    self._phase(None)
                    self.meter.reset_clock()
                    with self.ledger.during("train"):
                        step, state = self._steps(train_step, step, state, stream)
                if self.stopped_by:
                    break
            assert state is not None
            return self._finish(step, state)

    def _settle(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        """Lets a save under way finish where something else ends the run; the watchdog looks on."""
        if isinstance(error, UserError) and not distributed.tells_of_others(error):
            self._phase("saving")
            self.store.settle()

    def _begin(self, record: Record | None) -> TrainState:
        """The state to start from, told; the meter."""
        run, setup, stage = self.config, self.setup, self.stage
        state, told = start.begin(run, setup.mesh, self.store, record, stage.batches.tokenizer_fingerprint)
        self.directory.say("\n".join(told))
        begun = {"step": setup.start, "told": told, "config": start.config_hash(to_json(run))}
        self.directory.event("resumed" if record else "started", **begun)
        self._tell_time()
        self.ledger.switch("other")
        self.meter = Meter(
            record.tokens if record else 0,
            int(jax.device_get(state.skipped)),
            stage.flops,
            stage.batches.vocabulary.pad,
            stage.batches.features,
            stage.run.objective.terms,
        )
        self.meter.nonfinite_in_a_row = record.nonfinite_in_a_row if record else 0
        return state

    def _turn(self, step: int) -> None:
        """From one stage to the next."""
        stage, objective = self.stage, self.stage.run.objective
        self.meter.turn(stage.flops, stage.batches.features, objective.terms)
        self.spikes = Spikes()
        self.validator.turn()
        what = f"{objective.summary}, {stage.run.batch_size} examples"
        self.directory.event("phase", step=step, what=what)
        self.progress.say(f"from step {step:,} on: {what}")

    def _compile(self) -> Any:
        """The train step for this very state and batch, ahead of their existence."""
        run, stage, mesh = self.stage.run, self.stage, self.setup.mesh
        schedule, layout = run.schedule.over(run.steps), run.mesh.layout()
        wanted = states.abstract(run.model, run.optimizer, schedule, mesh, layout)
        batch = partitioning.abstract_batch(stage.batches.features, run.batch_size, mesh)
        return stage.train_step.lower(wanted, batch).compile()

    def _steps(
        self, train_step: TrainStep, step: int, state: TrainState, stream: Prefetch
    ) -> tuple[int, TrainState]:
        """The loop itself, for one stage; returns the step it came to, and its state."""
        before = None
        while step < self.stage.stop and not self._stops():
            if step > self.setup.start:
                self._visit(step, state)
            elif self.unvalidated and self.validator.due(step):
                self._validate(step, state)
                if self.directory.writes and (loss := self.validator.loss(step)) is not None:
                    self.store.add_loss(step, loss)
            self._say(self.trace.at(step, before))
            try:
                (_, batch), waited = stream.take(lambda running=before: not _ready(running))
            except UserError:
                self._rescue(step, state)
                raise
            self.ledger.move(waited, "train", "input_wait")
            reach("run.step")
            placed = partitioning.shard_batch(batch, self.setup.mesh)
            with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, sums = train_step(state, placed)
            if self.wishes is not None:
                raised = self.interrupts.raised
                self.wishes.tell(signal.Signals[raised].value if raised else 0)
            jax.block_until_ready(before)
            self.watchdog.beat(f"step {step}")
            if step % self.config.log_every == 0:
                self._report(step)
            self.meter.add(sums, placed, waited)
            self.spikes.clock(self.ledger.stepping)
            step, before = step + 1, sums
        self._report(step)
        self._say(self.trace.at(step, before))
        return step, state

    def _rescue(self, step: int, state: TrainState) -> None:
        """Saves what has been done when the data fail. Several processes do not: the others know nothing of it."""
        if jax.process_count() == 1 and step > self.setup.start:
            self._save(step, state)
            self.store.wait()
            self._tell_saved()

    def _stops(self) -> bool:
        """Whether to end here, for a signal to this process or another; all processes answer alike."""
        if self.wishes is None:
            self.stopped_by = self.interrupts.raised
        elif number := self.wishes.heard():
            self.stopped_by = signal.Signals(number).name
        return self.stopped_by is not None

    def _visit(self, step: int, state: TrainState) -> None:
        """What is due between two steps, on the state that `step` starts from."""
        save = step % self.config.checkpoints.every == 0
        if self.validator.due(step):
            self._validate(step, state)
        if save:
            self._save(step, state)
        if save or self.goodput.due():
            self._tell_time(step)
        self.store.poll()
        self._tell_saved()

    def _finish(self, step: int, state: TrainState) -> Exit:
        """The last checkpoint, and a word on how things stand."""
        run, done = self.config, step >= self.config.steps
        if done and run.evaluation.every:
            self._validate(step, state)
        if step > self.setup.start:
            self._save(step, state)
            with self.ledger.during("checkpoint"):
                self.store.wait()
            self._tell_saved()
            if self.store.saved != step:
                raise UserError(
                    f"the last checkpoint, of step {step}, could not be saved",
                    code=Exit.IO_ERROR,
                    where=str(self.directory.path),
                    help="make room on the disk; the same command goes on from the checkpoint before",
                )
        self.directory.event("done" if done else "interrupted", step=step, signal=self.stopped_by)
        return Exit.DONE if done else Exit.INTERRUPTED

    # ---- the parts ----

    def _report(self, step: int) -> None:
        """Reads the metrics of the steps up to `step`, and stops where none of them can be used any more."""
        run, meter = self.config, self.meter
        if not meter.steps:
            return
        steps, skipped = meter.steps, meter.skipped
        values, seconds = meter.report()
        self.eta.stepped(steps * self.stage.flops, seconds)
        self.metrics.write(step, "train", values)
        for spike in self.spikes.look(step, meter.losses):
            self.directory.event("spike", **dataclasses.asdict(spike))
            self._say(f"note: {spike}")
            if spike.what == "loss" and run.recovery.spikes == "rollback":
                self._go_back(step, spike.step, str(spike))
        every = run.evaluation.every
        work = sum(s.flops * max(s.stop - max(s.start, step), 0) for s in self.setup.stages)
        left = self.eta.seconds(work, -(-run.steps // every) - step // every if every else 0)
        self.progress.update(
            step,
            loss=f"{values['loss']:.4g}",
            speed=f"{quantity(values['tokens_per_second'])} tokens/s, {values['step_seconds']:.3g} s/step, "
                  f"{quantity(values['model_flops_per_second'])}FLOP/s",
            eta=duration(left or 0.0),
        )  # fmt: skip
        if meter.skipped > skipped:
            bad = [step - steps + i for i, loss in enumerate(meter.losses) if math.isnan(loss)]
            self.directory.event("skipped", step=step, updates=meter.skipped - skipped, steps=bad)
            recovery.dump(self.stage.batches, bad[0], self.directory)
            self.progress.say(
                f"warning: {meter.skipped - skipped} of {steps} updates up to step {step} were skipped: "
                "the loss or the gradient was not finite"
            )
        if (bad := meter.nonfinite_in_a_row) >= run.max_nonfinite_steps:
            what = f"the last {bad} losses or gradients were not finite"
            if run.recovery.nonfinite == "rollback":
                self._go_back(step, step - bad, what)
            self._stop_nonfinite(step, what)

    def _go_back(self, step: int, since: int, what: str) -> NoReturn:
        self.store.wait()
        raise Trouble(step, since, what)

    def _stop_nonfinite(self, step: int, what: str) -> NoReturn:
        self.directory.event("stopped", step=step, reason=what)
        self.store.wait()
        raise UserError(
            f"{what}: stopped at step {step}",
            where=str(self.directory.path),
            code=Exit.INTERNAL,
            help="lower the learning rate, set clip_global_norm=1.0 or model.dtype=float32; every "
            "checkpoint that was saved is finite",
        )

    def _validate(self, step: int, state: TrainState) -> None:
        if self.stage.validation is None:
            return
        self._report(step)
        self._phase("validating")
        began = time.perf_counter()
        beat = functools.partial(self.watchdog.beat, "validating")
        values = self.validator(step, state.params, self.stage, beat)
        self.eta.evaluated(time.perf_counter() - began)
        self._phase(None)
        self.metrics.write(step, "eval", values)
        self.directory.event("validated", step=step, loss=values["loss"])
        self.progress.update(step, validation=f"{values['loss']:.4g} at {step}")
        self.meter.reset_clock()

    def _save(self, step: int, state: TrainState) -> None:
        self._report(step)
        if not jax.device_get(_all_finite(state.params)):
            self._stop_nonfinite(step, "the parameters are not finite")
        record = Record(
            step=step,
            tokens=self.meter.tokens_seen,
            validation_loss=self.validator.loss(step),
            config=start.config_hash(to_json(self.config)),
            tokenizer=self.setup.stages[0].batches.tokenizer_fingerprint,
            data=self.setup.stages[0].batches.fingerprint,
            skips=self.stage.batches.skips,
            nonfinite_in_a_row=self.meter.nonfinite_in_a_row,
        )
        self._phase("saving")
        with self.ledger.during("checkpoint"):
            with distributed.together():
                # A save that was under way may have made the folders again, without what makes them a run.
                if self.directory.writes and self._removed():
                    raise UserError(
                        "the run directory, or its config.json, has been removed",
                        where=str(self.directory.path),
                        help="put it back from a copy, or begin anew",
                        code=Exit.IO_ERROR,
                    )
            self.store.save(record, state)
        self._phase(None)

    def _removed(self) -> bool:
        """Whether config.json is known to be gone; where the disk gives no answer, the save will tell."""
        try:
            return not self.directory.config.is_file()
        except OSError:
            return False

    def _phase(self, name: str | None) -> None:
        self.progress.phase(name)
        self.watchdog.beat(name or f"after step {self.progress.step}")

    def _tell_saved(self) -> None:
        if self.store.saved != self.told_saved:
            self.told_saved = self.store.saved
            self.directory.event("saved", step=self.told_saved)
            self.progress.update(self.progress.step, saved=str(self.told_saved))

    def _tell_time(self, step: int | None = None) -> None:
        step = self.progress.step if step is None else step
        self.metrics.write(step, "time", self.goodput.account(step).metrics())
        self.directory.event("clock", **self.goodput.line(step))

    def _say(self, text: str | None) -> None:
        if text:
            self.progress.say(text)


def _ready(sums: Losses | None) -> bool:
    """Whether the step with these sums is over."""
    return sums is None or all(array.is_ready() for array in jax.tree.leaves(sums))


@jax.jit
def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
