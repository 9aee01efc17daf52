"""Trains on a SLURM cluster, one task a node: writes the batch script and submits it.

  python -m launch.slurm --name=t5-3b --nodes=4 --gpus=8 --time=24:00:00 --partition=gpu \\
      -- --config=t5/3b --set=mesh.fsdp=32 --data=/share/c4 --workdir=/share/runs/3b

SLURM warns the processes --grace seconds before the time is over, and when a job is to make room: training saves and
leaves with 75, and the job puts itself back into the queue and goes on in the same --workdir, at most --restarts times.
Any other failure ends it. The processes find each other by SLURM's own variables. --dry_run prints the script and the
command, and submits nothing; --script=FILE keeps the script.

Everything behind `--` goes to t5x_like.train as it stands; --setup is a line of shell before it (module load cuda).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import common, xla_flags
from launch.common import RETRY, Shell
from t5x_like.errors import Exit, UserError

ROOT = Path(__file__).resolve().parent.parent


def batch_script(
    *,
    name: str,
    nodes: int,
    gpus: int,
    time: str,
    grace: int,
    train: Sequence[str],
    options: Sequence[str] = (),
    setup: str = "",
    python: str = "python3",
    restarts: int = 100,
    variables: dict[str, str] | None = None,
) -> str:
    """The text of the script. `options`: further options of sbatch, such as --partition=gpu."""
    headers = [
        f"--job-name={name}", f"--nodes={nodes}", "--ntasks-per-node=1", f"--gpus-per-node={gpus}", "--exclusive",
        f"--time={time}", f"--signal=TERM@{grace}", "--requeue", "--open-mode=append", f"--output={name}-%j.log",
        *options,
    ]  # fmt: skip
    command = common.with_environment(variables or {}, common.train_command(train, python))
    # --wait ends what still runs so long after the first process has ended. --kill-on-bad-exit=1 would do so at once,
    # to those too that are about to leave with 75, and srun would tell of a signal in place of it.
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in headers),
        f"cd {shlex.quote(str(ROOT))} || exit {int(Exit.IO_ERROR)}",
        *([setup] if setup else []),
        f"srun --kill-on-bad-exit=0 --wait={grace} {shlex.join(command)}",
        "code=$?",
        f"if [[ $code -eq {RETRY} && ${{SLURM_RESTART_COUNT:-0}} -lt {restarts} ]]; then",
        '  echo "saved; back into the queue"',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


FLAGS = flags.FlagValues()
_NAME = flags.DEFINE_string("name", "t5x-like", "of the job", flag_values=FLAGS)
_NODES = flags.DEFINE_integer("nodes", 1, "nodes", lower_bound=1, flag_values=FLAGS)
_GPUS = flags.DEFINE_integer("gpus", 8, "GPUs of a node", lower_bound=1, flag_values=FLAGS)
_TIME = flags.DEFINE_string("time", "24:00:00", "limit of one turn, as sbatch takes it", flag_values=FLAGS)
_GRACE = flags.DEFINE_integer("grace", 120, "seconds of warning", lower_bound=10, flag_values=FLAGS)
_PARTITION = flags.DEFINE_string("partition", "", "partition", flag_values=FLAGS)
_ACCOUNT = flags.DEFINE_string("account", "", "account", flag_values=FLAGS)
_OPTION = flags.DEFINE_multi_string(
    "option", [], "any other option of sbatch: --option=--qos=low", flag_values=FLAGS
)
_SETUP = flags.DEFINE_string("setup", "", "a line of shell before training", flag_values=FLAGS)
_PYTHON = flags.DEFINE_string("python", str(ROOT / ".venv/bin/python"), "interpreter", flag_values=FLAGS)
_XLA = flags.DEFINE_string("xla_flags", "", "sets of launch/xla_flags.py, with commas", flag_values=FLAGS)
_RESTARTS = flags.DEFINE_integer("restarts", 100, "at most", lower_bound=0, flag_values=FLAGS)
_SCRIPT = flags.DEFINE_string("script", "", "where the script is kept [NAME.sbatch]", flag_values=FLAGS)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print script and command, submit nothing", flag_values=FLAGS)


def main(train: list[str]) -> int:
    """Reads the flags, writes and submits the script."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", _TIME.value):
        raise UserError(f"{_TIME.value!r} is no time", where="--time", help="--time=24:00:00, or 2-00:00:00")
    for option in _OPTION.value:
        if not re.fullmatch(r"--[a-z][a-z-]*(=\S+)?", option):
            raise UserError(f"{option!r} is no option of sbatch", where="--option", help="--option=--qos=low")
    for flag in ("partition", "account"):
        if not re.fullmatch(r"[\w.,-]*", FLAGS[flag].value or ""):
            raise UserError(f"{FLAGS[flag].value!r} cannot be the {flag}", where=f"--{flag}")
    options = [f"--{flag}={FLAGS[flag].value}" for flag in ("partition", "account") if FLAGS[flag].value]
    name = common.check_name(_NAME.value)
    text = batch_script(
        name=name, nodes=_NODES.value, gpus=_GPUS.value, time=_TIME.value, grace=_GRACE.value, train=train,
        options=[*options, *_OPTION.value], setup=_SETUP.value, python=_PYTHON.value, restarts=_RESTARTS.value,
        variables=xla_flags.environment(_XLA.value),
    )  # fmt: skip
    path = Path(_SCRIPT.value or f"{name}.sbatch")
    if _DRY_RUN.value:
        print(text)
    else:
        common.write(path, text)
    shell = Shell(_DRY_RUN.value)
    shell.must(["sbatch", str(path)])
    return 0


if __name__ == "__main__":
    common.start(main, FLAGS)
