"""Writes a run's weights as a Hugging Face directory, with its tokenizer and a model card.

python -m t5x_like.export --workdir=runs/a --output=hf/
python -m t5x_like.export --workdir=runs/a --output=hf/ --checkpoint=latest --overwrite

ELECTRA becomes two directories: the discriminator in --output, and its generator in the folder `generator` inside.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

if TYPE_CHECKING:
    from t5x_like.training.checkpoints import Record
    from t5x_like.training.run import Run

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "folder to write", flag_values=FLAGS)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or a step", flag_values=FLAGS)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replaces what is in --output", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says of a kind of model: its pipeline, what it does, and the classes that load it, each with
    the folder inside the exported one."""

    pipeline: str
    does: str
    loaders: tuple[tuple[str, str], ...]


CARDS = {
    "encoder-decoder": Card(
        pipeline="text2text-generation",
        does="It fills blanks that are marked `<extra_id_0>`, `<extra_id_1>`, ...",
        loaders=(("AutoModelForSeq2SeqLM", ""),),
    ),
    "encoder": Card(
        pipeline="fill-mask",
        does="It says what may stand at the mask token, and can be fine-tuned for tasks with labels",
        loaders=(("AutoModelForMaskedLM", ""),),
    ),
    "generator-discriminator": Card(
        pipeline="feature-extraction",
        does="The discriminator, in this folder, tells which tokens were replaced, and can be fine-tuned for tasks "
        "with labels; the generator, in `generator/`, says what may stand at the mask token",
        loaders=(("AutoModelForPreTraining", ""), ("AutoModelForMaskedLM", "generator")),
    ),
}


def loading(kind: str, folder: str) -> list[str]:
    """The lines of Python that load a model and its tokenizer from `folder`."""
    lines = [
        f'{name}.from_pretrained("{folder}{"/" * bool(inside)}{inside}")'
        for name, inside in CARDS[kind].loaders
    ]
    return [*lines, f'AutoTokenizer.from_pretrained("{folder}")']


def model_card(run: Run, record: Record, command: str) -> str:
    """README.md of the exported directory: what the model is, and what it was trained on and how."""
    loss = "not measured" if record.validation_loss is None else f"{record.validation_loss:.4f}"
    sources = ", ".join(Path(source.path).name for source in run.data.sources) or "unknown"
    card = CARDS[run.model.kind]
    names = ", ".join(dict.fromkeys([name for name, _ in card.loaders] + ["AutoTokenizer"]))
    usage = "\n".join(f"    {line}" for line in loading(run.model.kind, "."))
    return f"""---
library_name: transformers
pipeline_tag: {card.pipeline}
license: unknown
---

# {run.name}

{type(run.model).__name__} with {run.model.num_params():,} parameters, pretrained with {type(run.objective).__name__} by
t5x_like. {card.does}. It was not tuned to follow instructions.

| | |
|---|---|
| steps | {record.step:,} of {run.steps:,}, batch {run.batch_size} |
| tokens seen | {record.tokens:,} |
| validation loss | {loss} ({" + ".join(run.objective.terms)}) |
| data | {sources}; fingerprint `{record.data}` |
| tokenizer | fingerprint `{record.tokenizer}` |
| optimizer, schedule | `{run.optimizer}`, `{run.schedule}` |

Trained by

    {command}

The licence of these weights follows from yours and from that of the training text: set `license` above before
publishing.

    from transformers import {names}
{usage}
"""


def training_command(workdir: Path) -> str:
    """The newest training command of the run, as typed."""
    try:
        lines = (workdir / "command.txt").read_text(encoding="utf-8").split("\n")
    except OSError:
        return "(not recorded)"
    commands = [line.partition("  ")[2] for line in lines if line.strip()]
    return ([c for c in commands if "train" in c] or commands or ["(not recorded)"])[-1]


def main(argv: list[str]) -> int:
    del argv
    if _WORKDIR.value is None or _OUTPUT.value is None:
        missing = "workdir" if _WORKDIR.value is None else "output"
        raise UserError(f"--{missing} is needed", where="command line", help="--workdir=RUN --output=DIR")
    workdir, output = Path(_WORKDIR.value), Path(_OUTPUT.value)
    if output.exists() and not output.is_dir():
        raise UserError("this is a file; a folder is written", where=str(output), code=Exit.CANNOT_WRITE)
    here, run_directory = output.resolve(), workdir.resolve()
    if here == run_directory or here in run_directory.parents or (here / "checkpoints").is_dir():
        raise UserError(
            "this folder holds a run, which an export would replace",
            where=str(output),
            help="name another --output",
            code=Exit.CANNOT_WRITE,
        )
    if output.is_dir() and any(output.iterdir()) and not _OVERWRITE.value:
        raise UserError(
            "the output folder is not empty",
            where=str(output),
            help="--overwrite replaces it",
            code=Exit.CANNOT_WRITE,
        )

    from t5x_like.data.partial import held
    from t5x_like.data.tokenizers import load_tokenizer
    from t5x_like.failpoints import reach
    from t5x_like.hub import directory
    from t5x_like.hub.encoders import export_encoder
    from t5x_like.hub.t5 import export_t5
    from t5x_like.models.t5 import T5
    from t5x_like.training import restore

    run, _, record = restore.open_run(workdir, cli.read_step(_CHECKPOINT.value))
    _, params = restore.restore_params(workdir, record.step)
    tokenizer = load_tokenizer(workdir / "tokenizer")
    # Finished beside the target and then moved: a folder that has this name is whole. What a kill leaves is swept here.
    partial = here.with_name(f".{here.name}.partial")
    made = partial / "export"
    with held(partial):
        for stale in partial.iterdir():
            if stale.is_dir():
                shutil.rmtree(stale)
        if isinstance(run.model, T5):
            export_t5(run.model, params, made, tokenizer)
        else:
            export_encoder(run.model, params, made, tokenizer)
        card = model_card(run, record, training_command(workdir))
        (made / "README.md").write_text(card, encoding="utf-8")
        reach("export.written")
        directory.publish(made, here)
        shutil.rmtree(partial)
    print(f"step {record.step} of {run.name} is in {output}; to load it:")
    print("".join(f"  {line}\n" for line in loading(run.model.kind, str(output))), end="")
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
