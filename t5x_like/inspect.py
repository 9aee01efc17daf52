"""Shows what the model sees: a batch of any configuration, decoded, with its spans coloured.

  python -m t5x_like.inspect --config=t5/tiny --data=DIR
  python -m t5x_like.inspect --config=runs/one --step=41337 --rows=8 --html=batch.html
  python -m t5x_like.inspect --config=t5/tiny --data=DIR --split=validation --json
  python -m t5x_like.inspect --workdir=runs/electra
  python -m t5x_like.inspect --corpus=data/c4 --rows=3

A sentinel and the span that it stands for have one colour; tokens without weight in the loss are dim. Of an encoder's
row the places that it predicts are coloured by what stands there, segment B is in italics, and `predict` has the
originals. --workdir takes a run for its configuration; of ELECTRA, which sees what its own generator sampled, it also
shows these samples and which of them the discriminator finds. Below the rows: lengths, padding, masking rates and
span lengths of the whole batch, and how many examples rebuild their source text.

--corpus shows documents of a corpus instead, --rows of each kind and always the same ones: kept; changed, with the
lines that a rule took out; rejected, by rule and reason; near-duplicates.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config", None, "a configuration, a config.json or a run directory", flag_values=FLAGS
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "a run, for its configuration and its model", flag_values=FLAGS
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "of --workdir: latest, best or a step", flag_values=FLAGS
)
_CORPUS = flags.DEFINE_string("corpus", None, "a folder that t5x_like.corpus made", flag_values=FLAGS)
_SET = flags.DEFINE_multi_string("set", [], "override: path=value, as for train", flag_values=FLAGS)
_DATA = flags.DEFINE_list("data", [], "token datasets, in place of the configuration's", flag_values=FLAGS)
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation"], "which split", flag_values=FLAGS)
_STEP = flags.DEFINE_integer("step", 0, "which batch", lower_bound=0, flag_values=FLAGS)
_ROWS = flags.DEFINE_integer("rows", 4, "rows to show", lower_bound=0, flag_values=FLAGS)
_HTML = flags.DEFINE_string("html", None, "also write a page to this file", flag_values=FLAGS)
_JSON = flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    del argv
    if _CORPUS.value is not None:
        if _CONFIG.value or _WORKDIR.value or _DATA.value or _SET.value:
            raise UserError(
                "--corpus stands alone", where="command line", help="--rows, --html and --json go with it"
            )
        return _show_corpus(Path(_CORPUS.value))
    if (_CONFIG.value is None) == (_WORKDIR.value is None):
        none = _CONFIG.value is None
        raise UserError(
            "which configuration?" if none else "--config and --workdir exclude each other",
            where="command line",
            help="--config=t5/tiny, or a run directory",
        )
    from rich.console import Console

    from t5x_like import config, inspection, rendering
    from t5x_like.data.batches import Batches, Source, Split

    run = config.load(_CONFIG.value or _WORKDIR.value or "", _SET.value)
    if _DATA.value:
        sources = tuple(Source(path=path) for path in _DATA.value)
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, sources=sources))
    split: Split = "validation" if _SPLIT.value == "validation" else "train"
    batches = Batches(run.data, run.objective, run.batch_size, run.seed, split=split)
    run.objective.check(run.model, batches.vocabulary)
    model = params = None
    if _WORKDIR.value and getattr(run.model, "head", None) == "detection":
        from t5x_like.training import restore

        trained, params = restore.restore_params(_WORKDIR.value, cli.read_step(_CHECKPOINT.value))
        model = trained.model
    found = inspection.inspect(batches, _STEP.value, model, params)
    title = f"{run.name}: batch {_STEP.value} of {split}, {run.batch_size} rows, seed {run.seed}"
    if _HTML.value:
        _write_page(rendering.to_html(found, title, _ROWS.value))
    if _JSON.value:
        print(json.dumps(inspection.to_data(found, _ROWS.value), indent=2))
    else:
        rendering.to_terminal(found, title, _ROWS.value, Console())
    return Exit.DONE


def _show_corpus(folder: Path) -> int:
    from rich.console import Console

    from t5x_like import corpus_report, corpus_samples

    found = corpus_samples.groups(corpus_samples.read(folder), _ROWS.value)
    title = f"{folder}: {_ROWS.value} document{'s' * (_ROWS.value != 1)} of each kind"
    if _HTML.value:
        _write_page(corpus_report.samples_page(title, found))
    if _JSON.value:
        print(json.dumps([dataclasses.asdict(group) for group in found]))
    else:
        corpus_samples.to_terminal(found, title, Console())
    return Exit.DONE


def _write_page(content: str) -> None:
    try:
        Path(_HTML.value or "").write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the page: {error}", where="--html", code=Exit.CANNOT_WRITE) from None


if __name__ == "__main__":
    cli.run(main, FLAGS)
