"""Trains configurations under one budget, judges them at several points by fine-tuning and by a linear probe, and
writes one report: who learns faster, at equal compute?

  python -m t5x_like.race --config=race/bert_vs_electra --data=data/text --tasks=data/tasks --workdir=races/a
  python -m t5x_like.race --config=race/bert_vs_electra --set=budget=1e14 --data=... --tasks=... --workdir=...
  python -m t5x_like.race --config=race/bert_vs_electra --workdir=races/a --report_only
  python -m t5x_like.race --config=race/bert_vs_electra --data=... --tasks=... --workdir=races/a --only=electra/1

A contestant that needs another tokenizer (T5 beside BERT) brings its own token dataset of the same text:
--set=contestants.2.run.data.sources=data/t5. --tasks holds a folder for each task, as `t5x_like.finetune --data` reads
them. The same command again continues where the race stopped; a contestant that is added to the configuration joins
in. WORKDIR/report.html and WORKDIR/race.json hold everything. Once a race is planned (by the same command with
--report_only), several processes can run parts of it side by side, each with --only=CONTESTANT/SEED; the plain command
then reports.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, did_you_mean

if TYPE_CHECKING:
    from t5x_like.race_plan import Race

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string("config", None, "family/file:function that returns a Race", flag_values=FLAGS)
_SET = flags.DEFINE_multi_string(
    "set", [], "path=value, such as budget=1e14 or contestants.0.run.seed=1", flag_values=FLAGS
)
_DATA = flags.DEFINE_string(
    "data", None, "token dataset(s) of the contestants whose configuration names none", flag_values=FLAGS
)
_TASKS = flags.DEFINE_string("tasks", None, "folder with a folder for each task", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the race is kept", flag_values=FLAGS)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", None, "split the CPU into this many devices", lower_bound=1, flag_values=FLAGS
)
_REPORT_ONLY = flags.DEFINE_bool(
    "report_only", False, "write the report of what there is, and run nothing", flag_values=FLAGS
)
_PNG = flags.DEFINE_string("png", None, "also write the curves over FLOPs as a picture", flag_values=FLAGS)
_ONLY = flags.DEFINE_string(
    "only", None, "run one part of a planned race, CONTESTANT/SEED, and write no report", flag_values=FLAGS
)
_READING = flags.DEFINE_string(
    "reading", None, "text file with a reading of the result, put at the top of the report", flag_values=FLAGS
)


def main(argv: list[str]) -> int:
    """Reads the flags; plans, runs, reports."""
    del argv
    for flag, wanted in (("config", "race/bert_vs_electra"), ("workdir", "races/NAME")):
        if FLAGS[flag].value is None:
            raise UserError(f"--{flag} is missing", where=f"--{flag}", help=f"--{flag}={wanted}")
    cli.split_cpu(_CPU_DEVICES.value)
    from t5x_like import config, race_plan, typed
    from t5x_like.training.run_dir import open_for_training

    race = config.load_as(_CONFIG.value or "", race_plan.Race, _SET.value)
    if _DATA.value is not None:
        contestants = tuple(
            c
            if c.run.data.sources
            else dataclasses.replace(
                c, run=typed.override(c.run, f"data.sources={_DATA.value}", where="--data")
            )
            for c in race.contestants
        )
        race = dataclasses.replace(race, contestants=contestants)
    race_plan.check(race)
    workdir = Path(_WORKDIR.value or "")
    if (workdir / "checkpoints").exists():
        raise UserError(
            "this is the directory of a training run",
            where=str(workdir),
            help="choose another --workdir",
            code=Exit.CANNOT_WRITE,
        )
    cli.keep_compiled_programs()
    if _ONLY.value is not None:
        return _run_part(race, workdir, _ONLY.value)
    with open_for_training(workdir) as directory:
        return _run(race, directory.path)


def _tasks() -> Path:
    if _TASKS.value is None:
        raise UserError(
            "where are the tasks?", where="--tasks", help="--tasks=DIR, with DIR/rotten_tomatoes/..."
        )
    return Path(_TASKS.value)


def _run_part(race: Race, workdir: Path, part: str) -> Exit:
    """One heat. Its own directory is locked, not that of the race: other parts may run."""
    from t5x_like import race_plan, racing

    known = [f"{contestant.name}/{seed}" for seed in race.seeds for contestant in race.contestants]
    if part not in known:
        raise UserError(f"no part {part!r} of this race", where="--only", help=did_you_mean(part, known))
    if not (workdir / "plan.json").is_file():
        raise UserError(
            "this race is not planned yet",
            where=str(workdir),
            help="run the command once with --report_only in place of --only",
        )
    return racing.execute(race, race_plan.plan(race, workdir), workdir, _tasks(), part)


def _run(race: Race, workdir: Path) -> Exit:
    from t5x_like import race_plan, racing

    shares = race_plan.plan(race, workdir)
    for name, share in shares.items():
        print(
            f"{name:<20} {share.steps:>8,} steps x {share.formula_flops:.3e} FLOPs by formula, "
            f"{share.compiled_flops:.3e} compiled; {share.parameters:,} parameters"
        )
    code = Exit.DONE
    if _REPORT_ONLY.value and _TASKS.value is not None:
        racing.check_tasks(race, workdir, _tasks())
    if not _REPORT_ONLY.value:
        code = racing.execute(race, shares, workdir, _tasks())
    reading = _read(_READING.value) if _READING.value else None
    try:
        racing.report(race, shares, workdir, reading, Path(_PNG.value) if _PNG.value else None)
    except OSError as e:
        raise UserError(
            f"cannot write the report: {e.strerror}",
            where=e.filename or str(workdir),
            code=Exit.CANNOT_WRITE,
        ) from None
    print(f"report: {workdir / 'report.html'}")
    return code


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the text: {e}", where=path, code=Exit.BAD_DATA) from None


if __name__ == "__main__":
    if not {"--help", "-h"} & set(sys.argv):
        cli.use_huge_pages()
    cli.run(main, FLAGS)
