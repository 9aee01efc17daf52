"""From the embedded corpus to something that the model can do, in one command and without a network.

  python -m t5x_like.quickstart                     (make quickstart)
  python -m t5x_like.quickstart --family=electra    (make quickstart FAMILY=electra)
  python -m t5x_like.quickstart --fresh             start again; the old run is moved aside

Prepares the corpus, pretrains a small model on two CPU cores, evaluates it on held-out documents, lets it fill blanks
in held-out sentences (ELECTRA: find the words that were swapped) and writes a report. Each step is a command that is
printed, so it can be typed alone. Run again, it continues where it stopped, or says that it is done.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from t5x_like import cli, quickstart_samples
from t5x_like.errors import Exit, UserError, did_you_mean

FLAGS = flags.FlagValues()
_FAMILY = flags.DEFINE_string("family", "t5", "which family: t5, bert, roberta or electra", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything goes; default: runs/quickstart-FAMILY", flag_values=FLAGS
)
_SET = flags.DEFINE_multi_string("set", [], "override of the configuration, as for train", flag_values=FLAGS)
_FRESH = flags.DEFINE_bool("fresh", False, "move an older run aside and start again", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What differs between the quickstarts.

    Attributes:
      config: of the run.
      vocab_size: of the tokenizer, as the configuration has it.
      prepare, infer: flags of these commands.
      samples: from the token dataset to the records that `infer` reads.
    """

    config: str
    vocab_size: int
    prepare: tuple[str, ...] = ()
    infer: tuple[str, ...] = ()
    samples: Callable[[Path], list[dict[str, Any]]]


UNCASED = ("--model_type=wordpiece", "--lowercase")
FAMILIES = {
    "t5": Family(config="t5/quickstart", vocab_size=4096, samples=quickstart_samples.sentinel_blanks),
    "bert": Family(
        config="bert/quickstart",
        vocab_size=2048,
        prepare=UNCASED,
        infer=("--candidates=3",),
        samples=quickstart_samples.mask_blanks,
    ),
    "roberta": Family(
        config="roberta/quickstart",
        vocab_size=2048,
        prepare=("--model_type=bytebpe",),
        infer=("--candidates=3",),
        samples=quickstart_samples.mask_blanks,
    ),
    "electra": Family(
        config="electra/quickstart",
        vocab_size=1024,
        prepare=UNCASED,
        infer=("--mode=detect",),
        samples=quickstart_samples.swapped_words,
    ),
}


def _command(module: str, *arguments: str) -> None:
    """Runs `python -m t5x_like.MODULE`, shown as a person would type it; raises what it ended with."""
    print(f"\n$ python -m t5x_like.{module} {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", f"t5x_like.{module}", *arguments])
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # the terminal told the command as well: it saves and ends by itself
            continue
    if code == Exit.INTERRUPTED:
        raise UserError(
            "stopped before the end; nothing is lost",
            code=Exit.INTERRUPTED,
            help="run the same command again: it continues where it stopped",
        )
    if code:
        raise UserError(
            f"{module} ended with exit code {code}; its message stands above",
            code=Exit(code) if code in set(Exit) else Exit.INTERNAL,
        )


def main(argv: list[str]) -> int:
    del argv
    if _FAMILY.value not in FAMILIES:
        raise UserError(
            f"no quickstart for {_FAMILY.value!r}",
            where="--family",
            help=did_you_mean(_FAMILY.value, FAMILIES),
        )
    family = FAMILIES[_FAMILY.value]
    root = Path(_WORKDIR.value or f"runs/quickstart-{_FAMILY.value}")
    data, run, done = root / "data", root / "run", root / "done.json"
    overrides = [f"--set={assignment}" for assignment in _SET.value]
    if done.is_file() and not _FRESH.value and not overrides:
        print(json.loads(done.read_text(encoding="utf-8"))["summary"])
        print("already done; --fresh starts again")
        return Exit.DONE
    done.unlink(missing_ok=True)
    started = time.monotonic()

    _command(
        "prepare",
        "--input=embedded",
        f"--output={data}",
        f"--vocab_size={family.vocab_size}",
        *family.prepare,
    )
    _command(
        "train",
        f"--config={family.config}",
        f"--data={data}",
        f"--workdir={run}",
        "--cpu_devices=2",
        *overrides,
        *(["--fresh"] if _FRESH.value else []),
    )
    _command("evaluate", f"--workdir={run}", f"--json={run / 'evaluation.json'}")
    prompts, samples = run / "prompts.jsonl", run / "samples.jsonl"
    if not prompts.is_file():
        lines = (json.dumps(record) + "\n" for record in family.samples(data))
        prompts.write_text("".join(lines), encoding="utf-8")
    _command("infer", f"--workdir={run}", f"--input={prompts}", f"--output={samples}", *family.infer)

    from t5x_like import reporting

    figures = reporting.write(run, run / "report.html")
    summary = f"{reporting.headline(figures)}\nreport: {run / 'report.html'}"
    print(f"\n{summary}\n{time.monotonic() - started:.0f} s in all")
    done.write_text(json.dumps({"summary": summary, **figures}) + "\n", encoding="utf-8")
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
