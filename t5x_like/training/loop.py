"""Training: a run in its directory, from where an earlier call left off.

What belongs to no single step stands here: the lock, the checkpoint to go on from, what is set up, and going back after
trouble. The steps themselves: training/steps.py.
"""

from __future__ import annotations

import contextlib

from t5x_like.errors import Exit, UserError
from t5x_like.training import distributed, profiling, recovery, start
from t5x_like.training.checkpoints import Store
from t5x_like.training.goodput import Ledger
from t5x_like.training.interrupts import Interrupts
from t5x_like.training.records import Verify
from t5x_like.training.recovery import Trouble
from t5x_like.training.run import Run, to_json
from t5x_like.training.run_dir import open_for_training
from t5x_like.training.screen import first_screen
from t5x_like.training.setup import set_up
from t5x_like.training.steps import Loop


def train(
    run: Run,
    workdir: str,
    *,
    fresh: bool = False,
    profile: range = range(0),
    verify: Verify = "full",
    skip: tuple[int, int] | None = None,
    allow_data_change: bool = False,
    strict: bool = False,
) -> Exit:
    """Trains `run` in `workdir`, from where an earlier call left off.

    Args:
      run: checked, as `config.load` returns it.
      workdir: the run directory.
      fresh: moves a run that is already there aside.
      profile: steps to trace, into the run's folder `profile`.
      verify: how the files of a checkpoint are checked before the run goes on from it.
      skip: (first, count) of batches to leave out from here on.
      allow_data_change: goes on although the data are others than before.
      strict: goes on only where losses are those of an undisturbed run to the bit.

    Returns:
      `DONE`, or `INTERRUPTED` after SIGTERM or Ctrl-C: saved, and the same call continues.

    Raises:
      UserError: what a person can mend, before anything is compiled wherever that is possible.
    """
    ledger = Ledger()
    with (
        distributed.one_voice(),
        open_for_training(workdir, fresh=fresh) as directory,
        Interrupts() as interrupts,
    ):
        distributed.same("configuration", start.config_hash(to_json(run)))
        changes = distributed.from_first(lambda: start.agree(run, directory))
        store = Store(directory.checkpoints, run.checkpoints, verify=verify)
        record = recovery.agreed(lambda: start.own(store.newest_good(), run, directory))
        if record is not None and record.step >= run.steps:
            if directory.writes:  # the end of it may have been killed while old checkpoints were removed
                with contextlib.suppress(UserError):
                    store.sweep(record)
            print(
                f"already done: step {record.step} of {run.steps} is saved in {directory.path}\n"
                "--set=steps=N goes on to step N; --fresh begins anew"
            )
            return Exit.DONE
        skips = recovery.check(run.recovery, directory, store, record, skip)
        begins = record.step if record else 0
        trace = profiling.Profile(profile, directory.path / "profile", begins, run.steps)
        loop = code = None
        while loop is None or code is None:
            with distributed.together():
                setup = set_up(
                    run, directory, record, skips, allow_data_change=allow_data_change, strict=strict
                )
            with distributed.together():
                if directory.writes:
                    store.sweep(record)
                    directory.say(first_screen(run, setup, directory))
                    if setup.mesh.size > 1:
                        directory.say(setup.parameters)
            for change in [*changes, *setup.changed]:
                directory.say(f"changed    {change}")
            loop = Loop(run, directory, setup, store, interrupts, ledger, trace)
            try:
                code = loop.run(record)
            except Trouble as trouble:
                ledger.switch("start")
                record, skips = recovery.roll_back(
                    trouble, run.recovery, directory, store, loop.stage.batches
                )
        directory.say(f"time       {loop.goodput.account(loop.progress.step).summary()}")
        if code == Exit.DONE:
            directory.say(f"done: python -m t5x_like.evaluate --workdir={workdir}")
        else:
            step = loop.progress.step
            directory.say(
                f"{loop.stopped_by}: stopped at step {step} of {run.steps}; the same command continues"
            )
        return code
