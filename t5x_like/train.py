"""Trains a run: from scratch, from where it stopped, or from the weights of another.

  python -m t5x_like.train --config=t5/tiny --data=data/books --workdir=runs/a
  python -m t5x_like.train --config=t5/small --set=optimizer=AdamW --set=model.dropout=0.1 --data=DIR --workdir=DIR
  python -m t5x_like.train --config=runs/a/config.json --workdir=runs/b

The same command again continues where the run stopped, or says that it is done. SIGTERM and Ctrl-C finish the
step, save and leave with exit code 75; a second one leaves at once. Some values may change when a run is continued
(steps, log_every, evaluation.*, checkpoints.*, mesh.*, data.workers, data.prefetch); others are refused, and
--fresh begins anew and keeps the old run beside it.

On Linux CPUs the process starts itself anew once, with huge pages in malloc (a sixth faster; T5X_LIKE_NO_REEXEC=1
prevents it). Compiled programs are kept in ~/.cache/t5x_like, or where JAX_COMPILATION_CACHE_DIR says
(JAX_ENABLE_COMPILATION_CACHE=false keeps none).
"""

from __future__ import annotations

import re
import sys

from absl import flags

from t5x_like import cli
from t5x_like.errors import UserError

PATIENCE = 30.0
"""Seconds from the last word to the end of the process. Orbax's threads of a save that failed may wait twenty minutes
for others that are no more; those of `distributed` take `LEAVE_SECONDS`."""

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "family/file:function of configs/, FILE.py:function, config.json or a run",
    flag_values=FLAGS,
)
_SET = flags.DEFINE_multi_string(
    "set", [], "path=value, such as model.d_model=128; repeatable", flag_values=FLAGS
)
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory", flag_values=FLAGS)
_DATA = flags.DEFINE_string(
    "data",
    None,
    "token dataset(s) of t5x_like.prepare, with commas; short for --set=data.sources=",
    flag_values=FLAGS,
)
_STEPS = flags.DEFINE_integer("steps", None, "short for --set=steps=", lower_bound=0, flag_values=FLAGS)
_FRESH = flags.DEFINE_bool(
    "fresh", False, "move a run that is in --workdir aside and begin anew", flag_values=FLAGS
)
_VERIFY = flags.DEFINE_enum(
    "verify",
    "full",
    ["full", "size", "true"],
    "how the checkpoint to go on from is checked: every byte, or the sizes of its files only",
    flag_values=FLAGS,
)
FLAGS["verify"].boolean = True  # so that --verify alone is --verify=full
_SKIP_BATCHES = flags.DEFINE_string(
    "skip_batches", None, "batches to leave out from here on, such as 120-125", flag_values=FLAGS
)
_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "print every value of the run and stop", flag_values=FLAGS
)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices",
    None,
    "split the CPU into this many devices, to try out meshes",
    lower_bound=1,
    flag_values=FLAGS,
)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "off"],
    "join the other processes of a TPU slice, GKE or SLURM job, or stay alone",
    flag_values=FLAGS,
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0, where nothing tells it; with the two below",
    flag_values=FLAGS,
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "of this run", lower_bound=1, flag_values=FLAGS)
_PROCESS = flags.DEFINE_integer(
    "process_id", None, "which of them this is, from 0", lower_bound=0, flag_values=FLAGS
)
_PROFILE = flags.DEFINE_string(
    "profile", None, "trace these steps, such as 100-110, into RUN/profile", flag_values=FLAGS
)
_STRICT = flags.DEFINE_bool(
    "strict",
    False,
    "go on only on the devices, the mesh and the JAX of before, which give the same losses to the bit",
    flag_values=FLAGS,
)
_ALLOW_DATA_CHANGE = flags.DEFINE_bool(
    "allow_data_change",
    False,
    "go on although the data are others than those of the checkpoint; the events say what changed",
    flag_values=FLAGS,
)


def _skip() -> tuple[int, int] | None:
    """--skip_batches as (first, count)."""
    if _SKIP_BATCHES.value is None:
        return None
    first, _, last = _SKIP_BATCHES.value.partition("-")
    last = last or first
    if not (
        re.fullmatch(r"[0-9]{1,12}", first) and re.fullmatch(r"[0-9]{1,12}", last) and int(first) <= int(last)
    ):
        raise UserError(
            f"{_SKIP_BATCHES.value!r} is no range of batches",
            where="--skip_batches",
            help="--skip_batches=120-125",
        )
    return int(first), int(last) - int(first) + 1


def main(argv: list[str]) -> int:
    """Reads the flags, and calls `training.loop.train`."""
    del argv
    if _CONFIG.value is None:
        raise UserError("which configuration?", where="--config", help="--config=t5/tiny, for example")
    cli.split_cpu(_CPU_DEVICES.value)
    from t5x_like import config
    from t5x_like.training import distributed

    if not _PRINT_CONFIG.value:
        distributed.connect(_DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS.value)

    overrides = list(_SET.value)
    if _DATA.value is not None:
        overrides.append(f"data.sources={_DATA.value}")
    if _STEPS.value is not None:
        overrides.append(f"steps={_STEPS.value}")
    run = config.load(_CONFIG.value, overrides)
    if _PRINT_CONFIG.value:
        print(config.describe(run, all_values=True))
        return 0
    if _WORKDIR.value is None:
        raise UserError("where shall the run be kept?", where="--workdir", help="--workdir=runs/NAME")

    from t5x_like.training import loop, profiling

    cli.keep_compiled_programs()
    steps = profiling.parse(_PROFILE.value)
    try:
        return loop.train(
            run,
            _WORKDIR.value,
            fresh=_FRESH.value,
            profile=steps,
            verify="size" if _VERIFY.value == "size" else "full",
            skip=_skip(),
            allow_data_change=_ALLOW_DATA_CHANGE.value,
            strict=_STRICT.value,
        )
    except Exception as e:
        distributed.leave(e)
        raise


if __name__ == "__main__":
    if not {"--help", "-h", "--print_config"} & set(sys.argv):
        cli.use_huge_pages()
    cli.run(main, FLAGS, PATIENCE)
