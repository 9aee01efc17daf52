"""Injects faults into runs of a tiny model, and judges what comes of them: the fault battery.

  python -m t5x_like.faults --output=DIR                          all rows, with 10 random kills
  python -m t5x_like.faults --only=F01,F12 --trials=100 --output=DIR
  python -m t5x_like.faults --processes=1 --output=DIR            without those of two processes

Prints a table (id, fault, injected, outcome, verdict) and writes it to DIR/faults.md and DIR/faults.json, beside the
rows that earlier calls with the same DIR have left there. Every run is a process of its own on simulated CPU devices.
What is mounted, killed and filled up lies below DIR; disks in memory need root, without which those rows are skipped.
The exit code is 0 where every row holds or is skipped, 70 otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from pathlib import Path
from typing import Any

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, did_you_mean

FLAGS = flags.FlagValues()
_ONLY = flags.DEFINE_list("only", [], "ids of the rows, such as F01,F12; all", flag_values=FLAGS)
_TRIALS = flags.DEFINE_integer("trials", 10, "random kills of F01", lower_bound=1, flag_values=FLAGS)
_PROCESSES = flags.DEFINE_integer(
    "processes",
    2,
    "most processes of a run: 1 leaves the rows of two out",
    lower_bound=1,
    upper_bound=2,
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string("output", None, "folder for the runs and the table", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    """Reads the flags, runs the rows one after the other."""
    del argv
    if _OUTPUT.value is None:
        raise UserError("where shall the runs go?", where="--output", help="--output=DIR")
    from t5x_like.faulting.battery import battery
    from t5x_like.faulting.report import Outcome, table
    from t5x_like.faulting.trials import Bench
    from t5x_like.training.run_dir import environment, utc_now

    faults = battery(_TRIALS.value, _PROCESSES.value)
    known = [fault.number for fault in faults]
    for number in _ONLY.value:
        if number not in known:
            raise UserError(f"no row {number!r}", where=f"--only={number}", help=did_you_mean(number, known))
    folder = Path(_OUTPUT.value)
    try:
        bench = Bench(folder / "runs" / f"{time.time_ns()}")
    except OSError as e:
        raise UserError(f"cannot write: {e}", where=str(folder), code=Exit.CANNOT_WRITE) from None
    kept, failed = _earlier(folder / "faults.json"), False
    commit = environment([])["commit"]
    for fault in faults:
        if _ONLY.value and fault.number not in _ONLY.value:
            continue
        began = time.monotonic()
        try:
            outcome = fault.inject(bench)
        except Exception:
            outcome = Outcome(
                injected="",
                outcome=traceback.format_exc().strip().splitlines()[-1],
                verdict="fails",
                figures={"traceback": traceback.format_exc()},
            )
        seconds = round(time.monotonic() - began)
        failed |= outcome.verdict == "fails"
        print(
            f"{fault.number:<5} {outcome.verdict:<8} {seconds:5} s  {fault.title}: {outcome.outcome}",
            flush=True,
        )
        told = {"id": fault.number, "fault": fault.title, **dataclasses.asdict(outcome)}
        kept[fault.number] = told | {"seconds": seconds, "time": utc_now(), "commit": commit}
        rows = [kept[number] for number in sorted(kept)]
        (folder / "faults.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        (folder / "faults.md").write_text(table(rows) + "\n", encoding="utf-8")
    print("\n" + table([kept[number] for number in sorted(kept)]))
    return int(Exit.INTERNAL if failed else Exit.DONE)


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a table that is there already, by their ids."""
    if not path.exists():
        return {}
    try:
        return {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise UserError(
            f"this is no table of faults: {e}",
            where=str(path),
            help="name another --output",
            code=Exit.BAD_DATA,
        ) from None


if __name__ == "__main__":
    cli.run(main, FLAGS)
