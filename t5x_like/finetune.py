"""Fine-tunes a pretrained model on a labelled task with several seeds, and predicts with the result.

  python -m t5x_like.finetune --init=runs/bert --task=rotten_tomatoes --data=data/tasks/rotten_tomatoes \\
      --seeds=3 --output=runs/bert-rt
  python -m t5x_like.finetune --init=hf/bert --task=mrpc --data=glue/MRPC --output=runs/mrpc \\
      --set=learning_rate=2e-5 --set=epochs=4
  python -m t5x_like.finetune --init=runs/t5 --task=my_task.json --data=my_data/ --output=runs/mine
  python -m t5x_like.finetune --init=runs/bert --task=topics --kind=classification --text_columns=title,body \\
      --data=topics/ --output=runs/topics
  python -m t5x_like.finetune --output=runs/bert-rt --predict=new.jsonl --predictions=out.jsonl
  python -m t5x_like.finetune --output=runs/bert-rt --export=hf/bert-rt

--init is a run directory, a Hugging Face directory or the --output of an earlier fine-tuning; --output is another
folder than that, and not a run's. --data is a folder with
train, validation (or dev) and test as .jsonl, .tsv (GLUE's), .csv, SQuAD's .json or CoNLL's columns, or a folder that
TFDS prepared. A stopped command goes on when it is given again: seeds that are finished are kept, and more may be
added. OUTPUT/results.json holds every seed, median and spread; OUTPUT/model the best seed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError, did_you_mean

if TYPE_CHECKING:
    from t5x_like.tasks.definitions import Task
    from t5x_like.tasks.reading import BadInput
    from t5x_like.tasks.recipe import FineTune

FLAGS = flags.FlagValues()
_INIT = flags.DEFINE_string("init", None, "what to start from: a directory", flag_values=FLAGS)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "of a run: latest, best or a step", flag_values=FLAGS
)
_TASK = flags.DEFINE_string(
    "task", None, "name of a task, or a .json file that describes one", flag_values=FLAGS
)
_DATA = flags.DEFINE_string("data", None, "folder of the task's files", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "where results and the best model go", flag_values=FLAGS)
_SEEDS = flags.DEFINE_string("seeds", "1", "how many (3 is 0,1,2), or a list (0,7)", flag_values=FLAGS)
_SET = flags.DEFINE_multi_string(
    "set", [], "name=value of a setting: epochs, batch_size, learning_rate, length, ...", flag_values=FLAGS
)
_BAD_INPUT = flags.DEFINE_enum(
    "bad_input",
    "fail",
    ["fail", "skip"],
    "a line that cannot be used: stop, or report and go on",
    flag_values=FLAGS,
)
_KIND = flags.DEFINE_string(
    "kind",
    None,
    "of a task of your own: classification, regression, tagging, span, choice",
    flag_values=FLAGS,
)
_TEXT_COLUMNS = flags.DEFINE_list("text_columns", ["text"], "of a task of your own", flag_values=FLAGS)
_LABEL_COLUMN = flags.DEFINE_string("label_column", "label", "of a task of your own", flag_values=FLAGS)
_LABELS = flags.DEFINE_list(
    "labels", [], "their names in the order of their ids; default: those there are", flag_values=FLAGS
)
_METRICS = flags.DEFINE_list(
    "metrics", [], "of a task of your own; default: all of its kind", flag_values=FLAGS
)
OF_ONES_OWN = ("text_columns", "label_column", "labels", "metrics")
"""Flags that mean something beside --kind alone."""
_PREDICT = flags.DEFINE_string(
    "predict", None, "file of examples to predict with --output's model", flag_values=FLAGS
)
_PREDICTIONS = flags.DEFINE_string("predictions", "-", ".jsonl to write; - prints", flag_values=FLAGS)
_EXPORT = flags.DEFINE_string(
    "export", None, "writes --output's model as a Hugging Face directory", flag_values=FLAGS
)
_LIST = flags.DEFINE_bool("list", False, "prints the tasks that are known by name", flag_values=FLAGS)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", None, "split the CPU into this many devices", lower_bound=1, flag_values=FLAGS
)


def read_seeds(text: str) -> tuple[int, ...]:
    """`3` is (0, 1, 2); `0,7` is (0, 7)."""
    from t5x_like.tasks.recipe import MOST_SEEDS

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and len(part) <= 10 for part in parts):
        raise UserError(
            f"--seeds is a number of seeds or a list of them, not {text[:40]!r}",
            where="--seeds",
            help="--seeds=3",
        )
    numbers = tuple(map(int, parts))
    if "," in text:
        return numbers
    (count,) = numbers
    if not 1 <= count <= MOST_SEEDS:
        raise UserError(f"{count} seeds; 1 to {MOST_SEEDS} are possible", where="--seeds", help="--seeds=3")
    return tuple(range(count))


def task_of(name: str) -> Task:
    """The task of the flags: a known one, a file's, or one described by --kind and its companions."""
    from t5x_like.tasks import definitions

    if _KIND.value is None:
        found = definitions.find(name)
        for flag in OF_ONES_OWN:
            if FLAGS[flag].present:
                raise UserError(
                    f"--{flag} describes a task of your own, and {found.name} has its own columns, labels and metrics",
                    where="command line",
                    help=f"--task=NAME --kind={found.kind} --{flag}=...; or a task file",
                )
        return found
    if _KIND.value not in definitions.KINDS:
        raise UserError(
            f"no kind of task {_KIND.value!r}",
            where="--kind",
            help=did_you_mean(_KIND.value, definitions.KINDS),
        )
    kind: Any = _KIND.value
    default = [m for m in definitions.METRICS[kind] if not (kind == "classification" and m == "f1")]
    task = definitions.Task(
        name=name,
        kind=kind,
        text=tuple(_TEXT_COLUMNS.value),
        label=_LABEL_COLUMN.value,
        labels=tuple(_LABELS.value),
        metrics=tuple(_METRICS.value or default),
    )
    definitions.check(task, "command line")
    return task


def _bad_input() -> BadInput:
    """--bad_input."""
    return "skip" if _BAD_INPUT.value == "skip" else "fail"


def settings() -> FineTune:
    """The settings of the flags."""
    from t5x_like import typed
    from t5x_like.tasks.recipe import FineTune

    for flag, wanted in (("init", "--init=RUN"), ("task", "--task=rotten_tomatoes"), ("data", "--data=DIR")):
        if FLAGS[flag].value is None:
            raise UserError(f"--{flag} is missing", where=f"--{flag}", help=wanted)
    config = FineTune(
        init=_INIT.value,
        checkpoint=_CHECKPOINT.value,
        task=_TASK.value or "",
        data=_DATA.value or "",
        seeds=read_seeds(_SEEDS.value),
    )
    for assignment in _SET.value:
        config = typed.override(config, assignment)
    return config


def predict(folder: Path, source: Path, target: str, bad_input: BadInput = "fail") -> None:
    """Writes a prediction for each example of a file; prints metrics where all of them are labelled."""
    from t5x_like.tasks import formats, metrics, reading, results, saved
    from t5x_like.tasks.examples import is_labelled
    from t5x_like.training.run_dir import write_atomically

    fitted = saved.load(folder)
    task, fitting = fitted.layout.task, fitted.layout.fitting(fitted.tokenizer)
    if not source.is_file():
        raise UserError("no such file", where=str(source), code=Exit.IO_ERROR)
    rows = formats.read(source, task.headerless, [task.label, *task.text])
    examples = reading.read_examples(task, rows, bad_input=bad_input, labelled=False, say=_note)
    if not examples:
        raise UserError("the file holds no examples", where=str(source), code=Exit.BAD_DATA)
    found = fitting.predict(fitted.params, examples, fitting.rows(examples), fitted.layout.batch_size)
    lines = [
        json.dumps(results.finite({"id": e.id, **p.shown}), ensure_ascii=False, allow_nan=False) + "\n"
        for e, p in zip(examples, found, strict=True)
    ]
    if target == "-":
        sys.stdout.write("".join(lines))
    else:
        try:
            write_atomically(Path(target), "".join(lines))
        except OSError as e:
            raise UserError(f"cannot write: {e.strerror}", where=target, code=Exit.CANNOT_WRITE) from None
    if all(is_labelled(task, e) for e in examples):
        values = metrics.compute(task, examples, [p.value for p in found])
        _note(" ".join(f"{name} {value:.4f}" for name, value in values.items()))


def export(folder: Path, target: str) -> None:
    """Writes the fine-tuned model as a Hugging Face directory."""
    from t5x_like.models.t5 import T5
    from t5x_like.tasks import saved

    fitted = saved.load(folder)
    if isinstance(fitted.model, T5):
        from t5x_like.hub.t5 import export_t5

        export_t5(fitted.model, fitted.params, target, tokenizer=fitted.tokenizer)
    else:
        from t5x_like.hub.encoders import export_encoder

        export_encoder(fitted.model, fitted.params, target, fitted.tokenizer)
    _note(f"{folder} is in {target}, in Hugging Face's layout")


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def main(argv: list[str]) -> int:
    """Reads the flags; fine-tunes, predicts or exports."""
    del argv
    if _LIST.value:
        from t5x_like.tasks import definitions

        for task in definitions.TASKS:
            print(f"{task.name:<22} {task.kind:<15} {', '.join(task.metrics)}")
        return Exit.DONE
    if _OUTPUT.value is None:
        raise UserError("--output is missing", where="--output", help="--output=runs/NAME")
    cli.split_cpu(_CPU_DEVICES.value)
    cli.keep_compiled_programs()
    folder = Path(_OUTPUT.value)
    if _PREDICT.value is not None:
        predict(folder, Path(_PREDICT.value), _PREDICTIONS.value, _bad_input())
    elif _EXPORT.value is not None:
        export(folder, _EXPORT.value)
    else:
        from t5x_like.tasks import finetuning, results

        config = settings()
        task = task_of(config.task)
        result = finetuning.finetune(
            dataclasses.replace(config, task=task.name),
            output=folder,
            bad_input=_bad_input(),
            task=task,
        )
        for name, row in results.summary(result).items():
            print(
                f"{result.task} {result.split} {name}: median {row['median']:.4f}, {row['least']:.4f} to "
                f"{row['most']:.4f}, deviation {row['deviation']:.4f} over {len(result.seeds)} seeds"
            )
        print(f"results: {folder / 'results.json'}")
    return Exit.DONE


if __name__ == "__main__":
    if not {"--help", "-h"} & set(sys.argv):
        cli.use_huge_pages()
    cli.run(main, FLAGS)
