"""What a row of an encoder's batch holds, as `inspection.py` shows it: places that are predicted, segments, pairs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int32

from t5x_like.data.example import Batch
from t5x_like.data.tokenizers import Tokenizer
from t5x_like.inspected import Example, Piece, clean
from t5x_like.objectives.encoder import KEPT, MASKED, RANDOM, EncoderObjective, Shown
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection, one_sample, put

_REPLACED = 4
FATES = {MASKED: "masked", RANDOM: "random", KEPT: "kept", _REPLACED: "replaced"}
"""What can become of a token that is predicted, by the names that people read."""


def example(row: Batch, source: np.ndarray, objective: EncoderObjective, tokenizer: Tokenizer) -> Example:
    """A row and its predicted places: `inputs` as the encoder reads them, `predict` what it is asked for."""
    shown = objective.shown(row, tokenizer.vocabulary)
    types = row["encoder_token_types"][: len(shown.inputs)]
    predicted = shown.fates > 0
    figures = {name: int(np.sum(shown.fates == fate)) for fate, name in FATES.items() if fate != _REPLACED}
    notes = ()
    if shown.pair_label is not None and len(source):
        figures["random_pairs"] = shown.pair_label
        notes = ("B is a random text" if shown.pair_label else "B follows A",)
    back = objective.restore(row, tokenizer.vocabulary)
    return Example(
        source_tokens=len(source),
        tokens={"inputs": len(shown.inputs)},
        texts={
            "inputs": pieces(shown.inputs, shown.fates, types, tokenizer),
            "predict": asked(shown, tokenizer),
        },
        restored=bool(np.array_equal(back, source)),
        hidden=int(predicted.sum()),
        spans=runs(predicted),
        figures=figures,
        notes=notes,
    )


def pieces(ids: np.ndarray, fates: np.ndarray, types: np.ndarray, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Runs of tokens that look the same, with their fate and their segment; special ids each alone."""
    v = tokenizer.vocabulary
    special = np.isin(ids, [i for i in (v.cls, v.sep, v.mask, v.pad) if i is not None]) | (ids >= v.size)
    out = []
    for _, group in itertools.groupby(
        range(len(ids)), lambda i: (fates[i], types[i], i + 1 if special[i] or fates[i] else 0)
    ):
        run = list(group)
        first = run[0]
        out.append(
            Piece(
                clean(spelt(ids[run], tokenizer, special=bool(special[first]))),
                special=bool(special[first]),
                fate=FATES.get(int(fates[first])),
                segment=int(types[first]),
            )
        )
    return tuple(out)


def asked(shown: Shown, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """The originals of the predicted places, in order."""
    return tuple(
        Piece(clean(" " + tokenizer.id_to_piece(int(shown.originals[i]))), fate=FATES[int(shown.fates[i])])
        for i in np.flatnonzero(shown.fates)
    )


def spelt(ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer, *, special: bool = False) -> str:
    """Tokens as text, a space in front where the first begins a word."""
    first = int(ids[0])
    text = "" if special else tokenizer.decode(ids).strip()
    if not text:
        return " " + named(first, tokenizer)
    return " " * bool(tokenizer.word_starts[first]) + text


def named(index: int, tokenizer: Tokenizer) -> str:
    """The piece; a generator that has not learnt better also samples rows of its table that stand for none."""
    size = tokenizer.vocabulary.size
    return tokenizer.id_to_piece(index) if index < size else f"<row {index} of {size}>"


def runs(marks: np.ndarray) -> tuple[int, ...]:
    """Lengths of the runs of true places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return tuple((edges[1::2] - edges[::2]).tolist())


def configured(objective: Any) -> dict[str, float]:
    """What `figures` should come to, as shares, as far as the objective says."""
    if isinstance(objective, MaskedLM):
        shares = {"random": objective.random_share, "kept": objective.keep_share}
        return {"masked": 1 - sum(shares.values()), **shares}
    if isinstance(objective, ReplacedTokenDetection):
        return {"masked": objective.mask_share, "kept": 1 - objective.mask_share}
    return {}


# ---- the discriminator's half, which needs a trained generator -----------------------------------


def judged(
    objective: ReplacedTokenDetection, model: Any, params: Any, batch: Batch, tokenizer: Tokenizer
) -> list[dict[str, tuple[Piece, ...]]]:
    """For each row of a batch two more texts: `sampled`, what the generator makes of the inputs (replaced tokens
    marked), and `detected`, the words that the discriminator holds to be replaced, with their probabilities."""
    shown, probabilities = map(np.asarray, _sample_and_judge(objective, model, params, batch))
    out = []
    for i, tokens in enumerate(shown):
        row = {name: values[i] for name, values in batch.items()}
        originals = objective.shown(row, tokenizer.vocabulary).originals
        n = len(originals)
        fates = np.where(tokens[:n] != originals, _REPLACED, 0)
        types = row["encoder_token_types"][:n]
        alarms = [int(k) for k in np.flatnonzero(probabilities[i, :n] > 0.5)]
        detected = tuple(
            Piece(
                clean(f" {named(int(tokens[k]), tokenizer)} {probabilities[i, k]:.2f}"),
                fate=FATES[_REPLACED] if fates[k] else None,
            )
            for k in alarms
        )
        out.append({"sampled": pieces(tokens[:n], fates, types, tokenizer), "detected": detected})
    return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample_and_judge(
    objective: ReplacedTokenDetection, model: Any, params: Any, batch: dict[str, jax.Array]
) -> tuple[Int32[Array, "B T"], Float[Array, "B T"]]:
    """What the discriminator reads in evaluation, and its probability of each token that it was replaced."""
    positions, used = batch["masked_positions"], batch["masked_weights"] > 0
    logits = model.generator_logits(params, batch, None)
    samples = objective.sample(logits, batch["masked_targets"], None)
    samples = one_sample(samples, positions, used, mean=objective.average_duplicates)
    shown = put(batch["encoder_input_tokens"], positions, used, samples)
    hidden = model.discriminate(params, shown, batch["encoder_token_types"])
    return shown, jax.nn.sigmoid(model.detection_logits(params, hidden))
