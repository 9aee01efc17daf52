"""What a batch holds, as data: pieces of text with their spans, lengths, padding, masking rates, and the way back.

`rendering.py` draws it; `python -m t5x_like.inspect` is the command.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from t5x_like import inspection_encoder
from t5x_like.data.batches import Batches, Origin
from t5x_like.data.example import Batch, Vocabulary
from t5x_like.data.tokenizers import Tokenizer
from t5x_like.inspected import Example, Inspection, Piece, Row, Stream, clean
from t5x_like.objectives.encoder import EncoderObjective
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection

TEXTS = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}
"""What people call a text of an example, and the feature that holds it."""


def inspect(batches: Batches, step: int, model: Any = None, params: Any = None) -> Inspection:
    """Batch `step`, row by row, with the text that each row was made from.

    Args:
      model, params: an ELECTRA that was trained: then also what its generator puts in, and its discriminator finds.
    """
    batch, origins = batches(step), batches.origins(step)
    rows = tuple(
        _row(number, {name: values[number] for name, values in batch.items()}, origin, batches.tokenizer)
        for number, origin in enumerate(origins)
    )
    if isinstance(batches.objective, ReplacedTokenDetection) and params is not None:
        more = inspection_encoder.judged(batches.objective, model, params, batch, batches.tokenizer)
        rows = tuple(
            dataclasses.replace(
                row, examples=tuple(dataclasses.replace(e, texts={**e.texts, **texts}) for e in row.examples)
            )
            for row, texts in zip(rows, more, strict=True)
        )
    examples = [example for row in rows for example in row.examples]
    slots = {text: batch[name].shape[1] for text, name in _tokens(batch)}
    filled = {text: sum(example.tokens[text] for example in examples) for text in slots}
    restored = [example.restored for example in examples if example.restored is not None]
    return Inspection(
        split=batches.split,
        step=step,
        fingerprint=batches.fingerprint,
        rows=rows,
        slots=slots,
        padding={text: 1 - filled[text] / (len(rows) * n) for text, n in slots.items()},
        examples=len(examples),
        restored=sum(restored),
        restorable=len(restored),
        loss_tokens=int(np.sum(batches.objective.targets(batch)[1] > 0)),
        streams=tuple(_streams(batches, rows)),
    )


def _tokens(names: Iterable[str]) -> list[tuple[str, str]]:
    """(text, feature) of the texts that a batch has."""
    names = set(names)
    return [(text, feature) for text, feature in TEXTS.items() if feature in names]


def _row(number: int, row: Batch, origin: Origin | None, tokenizer: Tokenizer) -> Row:
    if origin is None:
        return Row(number, None, ())
    stream, objective = origin.stream, origin.stream.objective
    if isinstance(objective, EncoderObjective):
        example = inspection_encoder.example(row, origin.tokens[0], objective, tokenizer)
        return Row(number, origin.number, (example,))
    examples = [
        _example(_segment(row, i, packed=stream.plan is not None), source, objective, tokenizer)
        for i, source in enumerate(origin.tokens, start=1)
    ]
    return Row(number, origin.number, tuple(examples))


def _segment(row: Batch, number: int, *, packed: bool) -> Batch:
    """The features of one example of a row."""
    if not packed:
        return row
    return {
        name: values[row[name.partition("_")[0] + "_segment_ids"] == number]
        for name, values in row.items()
        if not name.endswith(("_segment_ids", "_positions"))
    }


def _example(row: Batch, source: np.ndarray, objective: Any, tokenizer: Tokenizer) -> Example:
    vocabulary = tokenizer.vocabulary
    ids = {text: _used(row[name], vocabulary.pad) for text, name in _tokens(row)}
    back = None
    if "inputs" in ids and "targets" in ids and hasattr(objective, "restore"):
        back = objective.restore(ids["inputs"], ids["targets"], vocabulary)
    spans = {text: _spans(text, ids, objective, vocabulary) for text in ids}
    counts = {text: np.ones(len(i), bool) for text, i in ids.items()}
    if "decoder_loss_weights" in row and "targets" in ids:
        counts["targets"] = row["decoder_loss_weights"][: len(ids["targets"])] > 0
    hidden = _hidden_spans(ids, spans, objective, vocabulary)
    return Example(
        source_tokens=len(source),
        tokens={text: len(i) for text, i in ids.items()},
        texts={text: _pieces(ids[text], spans[text], counts[text], tokenizer) for text in ids},
        restored=None if back is None else bool(np.array_equal(back, source)),
        hidden=sum(hidden),
        spans=hidden if _marks_spans(objective) else (),
    )


def _used(ids: np.ndarray, pad: int) -> np.ndarray:
    real = np.flatnonzero(ids != pad)
    return ids[: real[-1] + 1] if len(real) else ids[:0]


def _marks_spans(objective: Any) -> bool:
    """Whether what is hidden comes in spans that are worth counting (a split or a permutation is not)."""
    return hasattr(objective, "noise_density") and getattr(objective, "style", "") != "drop_tokens"


def _spans(text: str, ids: dict[str, np.ndarray], objective: Any, vocabulary: Vocabulary) -> np.ndarray:
    """For each token of `text`, the number of its hidden span, or -1.

    A sentinel has the number of the span that it stands for; in the targets the tokens behind it have the same
    (those in front of it, where targets begin with bare tokens: see `encode_spans`). Where the targets are the
    whole text, a span is a run of places where the inputs show something else.
    """
    own = ids[text]
    sentinels = objective.sentinels(vocabulary) if hasattr(objective, "sentinels") else vocabulary.sentinels
    marks = np.isin(own, sentinels)
    targets, inputs = ids.get("targets"), ids.get("inputs")
    if targets is None or inputs is None or not _marks_spans(objective):
        return np.full(len(own), -1)
    if not np.isin(targets, sentinels).any() and len(inputs) == len(targets):
        differ = inputs != targets
        starts = differ & ~np.concatenate([[False], differ[:-1]])
        return np.where(differ, np.cumsum(starts) - 1, -1)
    if text == "inputs":
        return np.where(marks, np.cumsum(marks) - 1, -1)
    number = np.cumsum(marks) - 1
    if len(own) and not marks[0]:  # each sentinel follows its span
        number = number + ~marks
    return np.where(own == vocabulary.eos, -1, number)


def _hidden_spans(
    ids: dict[str, np.ndarray], spans: dict[str, np.ndarray], objective: Any, vocabulary: Vocabulary
) -> tuple[int, ...]:
    """Lengths of the hidden spans; a single one of all targets where the objective has no spans."""
    if "targets" not in ids:
        return ()
    ordinary = ~np.isin(ids["targets"], (*vocabulary.sentinels, vocabulary.eos))
    if not _marks_spans(objective):
        return (int(ordinary.sum()),)
    numbers = spans["targets"][ordinary & (spans["targets"] >= 0)]
    return tuple(np.unique(numbers, return_counts=True)[1].tolist())


def _pieces(
    ids: np.ndarray, spans: np.ndarray, counts: np.ndarray, tokenizer: Tokenizer
) -> tuple[Piece, ...]:
    vocabulary = tokenizer.vocabulary
    special = np.isin(ids, (*vocabulary.sentinels, vocabulary.eos))
    pieces = []
    for _, group in itertools.groupby(
        range(len(ids)), lambda i: (spans[i], i + 1 if special[i] else 0, counts[i])
    ):
        run = list(group)
        first = run[0]
        if special[first]:
            text = " " + tokenizer.id_to_piece(int(ids[first]))
        else:
            text = tokenizer.decode(ids[run])
            text = " " * (tokenizer.piece_text(int(ids[first]))[:1] == " " and text[:1] != " ") + text
        span = None if spans[first] < 0 else int(spans[first])
        pieces.append(Piece(clean(text), span, bool(special[first]), bool(counts[first])))
    return tuple(pieces)


def _streams(batches: Batches, rows: tuple[Row, ...]) -> Iterable[Stream]:
    for number, (stream, rate) in enumerate(zip(batches.streams, batches.rates, strict=True)):
        objective = stream.objective
        mine = [row for row in rows if row.stream == number]
        examples = [example for row in mine for example in row.examples]
        source = sum(example.source_tokens for example in examples)
        spans = Counter(length for example in examples for length in example.spans)
        names = ("noise_density", "target_density", "mask_rate")
        density = next((getattr(objective, name) for name in names if hasattr(objective, name)), None)
        totals = Counter[str]()
        for example in examples:
            totals.update(example.figures)
        pairs = {"random_pairs": totals.pop("random_pairs", 0) / max(len(examples), 1)}
        with_pairs = any("random_pairs" in example.figures for example in examples)
        shares = {name: count / max(totals.total(), 1) for name, count in totals.items()}
        yield Stream(
            name=stream.name,
            summary=getattr(objective, "summary", type(objective).__name__),
            rate=rate,
            rows=len(mine),
            examples=len(examples),
            hidden=sum(example.hidden for example in examples) / max(source, 1),
            configured_hidden=density,
            mean_span=sum(n * c for n, c in spans.items()) / spans.total() if spans else None,
            configured_span=getattr(objective, "mean_span_length", None),
            span_lengths=dict(sorted(spans.items())),
            shares=shares | (pairs if with_pairs else {}),
            configured_shares=inspection_encoder.configured(objective),
        )


def to_data(inspection: Inspection, rows: int) -> dict[str, Any]:
    """Plain data for JSON, with the first `rows` rows."""
    data = dataclasses.asdict(dataclasses.replace(inspection, rows=()))
    data["rows"] = [dataclasses.asdict(row) for row in inspection.rows[:rows]]
    return data
