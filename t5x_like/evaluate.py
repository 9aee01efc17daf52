"""Loss of a trained run on held-out text, by teacher forcing, beside what counting words alone would give.

  python -m t5x_like.evaluate --workdir=runs/a
  python -m t5x_like.evaluate --workdir=runs/a --checkpoint=best --batches=50 --json=evaluation.json
  python -m t5x_like.evaluate --workdir=runs/a --data=data/other --split=train --json=-

loss              as it was minimised: the sum of its terms, each with its factor
cross_entropy     nats a target token, without z-loss: of T5's targets, of the hidden tokens of BERT and RoBERTa, of
                  those of ELECTRA's generator; perplexity is its exponential, accuracy the share of best guesses that
                  are right
unigram_entropy   of the very same target tokens: the loss of the best model that knows no context
bits_per_byte     cross entropy over the UTF-8 bytes of the targets' text (special ids cost bits, and are no bytes);
                  left out where the tokenizer does not say what bytes a piece stands for
pair_loss         of next sentence prediction, nats a pair; and pair_accuracy
detection         of ELECTRA's discriminator, nats a token; and detection_accuracy, detection_precision (of the tokens
                  that it holds to be replaced, those that are; left out where there are none), detection_recall (of
                  the replaced ones, those that it finds); `replaced` is their share of all tokens
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

if TYPE_CHECKING:
    import numpy as np

    from t5x_like.data.batches import Batches
    from t5x_like.data.tokenizers import Tokenizer

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory", flag_values=FLAGS)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best or a step", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string(
    "split", None, "split of the data; default: the run's validation split", flag_values=FLAGS
)
_DATA = flags.DEFINE_string("data", None, "token dataset(s); default: those of the run", flag_values=FLAGS)
_BATCHES = flags.DEFINE_integer(
    "batches", None, "at most this many; default: all", lower_bound=1, flag_values=FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "examples at a time; default: as in training", lower_bound=1, flag_values=FLAGS
)
_JSON = flags.DEFINE_string("json", None, "file for the figures as JSON; - prints them", flag_values=FLAGS)


def evaluate(
    workdir: str,
    checkpoint: str = "latest",
    *,
    split: str | None = None,
    data: str | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """The figures of the module's first lines, and `step`, `targets` (tokens), `batches`, `split`.

    Raises:
      UserError: no such run, checkpoint or split; or data of another tokenizer.
    """
    from t5x_like import typed
    from t5x_like.data.batches import Batches
    from t5x_like.training import partitioning, restore
    from t5x_like.training.partitioning import Mesh
    from t5x_like.training.step import make_eval_step
    from t5x_like.training.validation import validate

    run, store, record = restore.open_run(workdir, cli.read_step(checkpoint))
    for path, value in (("data.validation_split", split), ("data.sources", data), ("batch_size", batch_size)):
        if value is not None:
            run = typed.override(run, f"{path}={value}", where=f"--{path.rpartition('.')[2]}")
    held_out = Batches(run.data, run.objective, run.batch_size, run.seed, split="validation")
    if held_out.tokenizer_fingerprint != record.tokenizer:
        raise UserError(
            f"the data has another tokenizer than the run: fingerprint {held_out.tokenizer_fingerprint} in the data, "
            f"{record.tokenizer} in the run",
            where=data or workdir,
            help=f"prepare the data with --tokenizer={workdir}/tokenizer",
            code=Exit.BAD_DATA,
        )
    try:
        mesh = run.mesh.build()
    except UserError:  # a mesh of the machine that trained; here every device takes its rows
        run = dataclasses.replace(run, mesh=Mesh())
        mesh = run.mesh.build()
    partitioning.check_batch(run.batch_size, 1, mesh)
    partitioning.check_vocabulary(run.model.vocab_size, mesh, run.mesh.layout())
    params = restore.load_params(run, store, record, mesh)
    how: Any = {"layout": run.mesh.layout(), "partitioner": run.mesh.partitioner}
    step = make_eval_step(run.model, run.objective, mesh, **how)
    values = validate(step, params, held_out, mesh, batches)
    done = held_out.num_batches if batches is None else min(batches, held_out.num_batches)
    counts = target_counts(held_out, done)
    figures = {
        "step": record.step,
        "split": run.data.validation_split,
        "batches": done,
        "targets": int(counts.sum()),
        **values,
        "unigram_entropy": unigram_entropy(counts),
    }
    size = num_bytes(counts, held_out.tokenizer)
    if size:
        figures["bits_per_byte"] = values["cross_entropy"] * int(counts.sum()) / 0.6931471805599453 / size
    return figures


def target_counts(batches: Batches, most: int) -> np.ndarray:
    """How often each id [V] is a target of non-zero weight in the first `most` batches."""
    import numpy as np

    counts = np.zeros(batches.vocabulary.size, np.int64)
    for step in range(most):
        batch = batches(step)
        ids, weights = batches.objective.targets(batch)
        counts += np.bincount(ids[weights > 0], minlength=len(counts))
    return counts


def unigram_entropy(counts: np.ndarray) -> float:
    """Nats a token of the empirical distribution; 0 for no tokens."""
    import numpy as np

    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def num_bytes(counts: np.ndarray, tokenizer: Tokenizer) -> int | None:
    """UTF-8 bytes of the text of these tokens; None where a piece is part of a character that it does not tell."""
    total = 0
    for index in counts.nonzero()[0].tolist():
        piece, text = tokenizer.id_to_piece(index), tokenizer.piece_text(index)
        if "\ufffd" in text:
            return None
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        total += int(counts[index]) * (1 if is_byte else len(text.encode("utf-8")))
    return total


def main(argv: list[str]) -> int:
    """Reads the flags, prints the figures."""
    del argv
    if _WORKDIR.value is None:
        raise UserError(
            "which run?", where="--workdir", help="--workdir=RUN, a directory that train has written"
        )
    figures = evaluate(
        _WORKDIR.value,
        _CHECKPOINT.value,
        split=_SPLIT.value,
        data=_DATA.value,
        batches=_BATCHES.value,
        batch_size=_BATCH_SIZE.value,
    )
    text = json.dumps(figures, indent=2) + "\n"
    if _JSON.value == "-":
        sys.stdout.write(text)
        return Exit.DONE
    print(f"checkpoint {figures['step']}, split {figures['split']}: {figures['targets']:,} target tokens")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"  {name:<19} {value:.4f}")
    if _JSON.value:
        try:
            Path(_JSON.value).write_text(text, encoding="utf-8")
        except OSError as e:
            raise UserError(
                f"cannot write the figures: {e.strerror}", where=_JSON.value, code=Exit.CANNOT_WRITE
            ) from None
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
