"""From the embedded corpus to filled blanks, in one command and without a network.

  python -m t5x_like.quickstart                  (make quickstart)
  python -m t5x_like.quickstart --fresh          start again; the old run is moved aside

Prepares the corpus, pretrains a small T5 on two CPU cores, evaluates it on held-out documents, fills blanks in
held-out sentences and writes a report. Each step is a command that is printed, so it can be typed alone. Run
again, it continues where it stopped, or says that it is done.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, did_you_mean

FLAGS = flags.FlagValues()
_FAMILY = flags.DEFINE_string("family", "t5", "which family: t5", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything goes; default: runs/quickstart-FAMILY", flag_values=FLAGS
)
_SET = flags.DEFINE_multi_string("set", [], "override of the configuration, as for train", flag_values=FLAGS)
_FRESH = flags.DEFINE_bool("fresh", False, "move an older run aside and start again", flag_values=FLAGS)

FAMILIES = {"t5": "t5/quickstart"}
PROMPTS = 12


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


def write_prompts(data: Path, path: Path) -> None:
    """Held-out passages with two blanks each, as JSONL: `inputs` with `<extra_id_0>`, and what was `originals`."""
    import numpy as np

    from t5x_like.data.counter import integers, seed_key
    from t5x_like.data.token_dataset import TokenDataset

    dataset = TokenDataset.open(str(data))
    split = dataset.split("validation")
    documents = split.document_offsets
    prompts: list[str] = []
    for i in range(1, len(documents)):
        begin, length = int(documents[i - 1]), int(documents[i] - documents[i - 1])
        if len(prompts) == PROMPTS or length < 120:
            continue
        middle = begin + length // 2
        text = dataset.tokenizer.decode(split.gather(np.array([middle]), 110)[0].tolist())
        words = text.split()[1:-1]  # the first and the last word may be halves
        starts = integers(seed_key(0, "quickstart", i), (4,), 0, 0, [15, 3, 15, 3])
        first = 8 + int(starts[0])
        second = first + 14 + int(starts[2])
        ends = (first + 1 + int(starts[1]) % 2, second + 1 + int(starts[3]) % 2)
        if ends[1] + 6 > len(words):
            continue
        pieces = [*words[:first], "<extra_id_0>", *words[ends[0] : second], "<extra_id_1>", *words[ends[1] :]]
        originals = [" ".join(words[first : ends[0]]), " ".join(words[second : ends[1]])]
        prompts.append(json.dumps({"inputs": " ".join(pieces), "originals": originals}))
    path.write_text("\n".join(prompts) + "\n", encoding="utf-8")


def main(argv: list[str]) -> int:
    del argv
    if _FAMILY.value not in FAMILIES:
        raise UserError(
            f"no quickstart for {_FAMILY.value!r}",
            where="--family",
            help=did_you_mean(_FAMILY.value, FAMILIES),
        )
    root = Path(_WORKDIR.value or f"runs/quickstart-{_FAMILY.value}")
    data, run, done = root / "data", root / "run", root / "done.json"
    overrides = [f"--set={assignment}" for assignment in _SET.value]
    if done.is_file() and not _FRESH.value and not overrides:
        print(json.loads(done.read_text(encoding="utf-8"))["summary"])
        print("already done; --fresh starts again")
        return Exit.DONE
    done.unlink(missing_ok=True)
    started = time.monotonic()

    _command("prepare", "--input=embedded", f"--output={data}", "--vocab_size=4096")
    _command(
        "train",
        f"--config={FAMILIES[_FAMILY.value]}",
        f"--data={data}",
        f"--workdir={run}",
        "--cpu_devices=2",
        *overrides,
        *(["--fresh"] if _FRESH.value else []),
    )
    _command("evaluate", f"--workdir={run}", f"--json={run / 'evaluation.json'}")
    if not (run / "prompts.jsonl").is_file():
        write_prompts(data, run / "prompts.jsonl")
    _command(
        "infer", f"--workdir={run}", f"--input={run / 'prompts.jsonl'}", f"--output={run / 'samples.jsonl'}"
    )

    from t5x_like import reporting

    figures = reporting.write(run, run / "report.html")
    summary = (
        f"validation loss {figures['loss']:.3f} nats per target token; unigram entropy of the same targets "
        f"{figures['unigram_entropy']:.3f}: {figures['gain']:.3f} nats better\nreport: {run / 'report.html'}"
    )
    print(f"\n{summary}\n{time.monotonic() - started:.0f} s in all")
    done.write_text(json.dumps({"summary": summary, **figures}) + "\n", encoding="utf-8")
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
