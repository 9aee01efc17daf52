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

from t5x_like.data.batches import Batches, Origin
from t5x_like.data.example import Batch, Vocabulary
from t5x_like.data.tokenizers import Tokenizer

TEXTS = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}
"""What people call a text of an example, and the feature that holds it."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive tokens that look the same.

    Attributes:
      text: decoded, without control characters.
      span: number of the hidden span that it stands for or belongs to; None outside spans.
      special: a sentinel, a mode token or the end-of-sequence id.
      counts: whether it counts in the loss (inputs never do, and are not dimmed for it).
    """

    text: str
    span: int | None = None
    special: bool = False
    counts: bool = True


@dataclasses.dataclass(frozen=True)
class Example:
    """One example of a row (a packed row has several).

    Attributes:
      source_tokens: of the window it was made from.
      tokens: of each text, EOS included.
      texts: `inputs` and `targets`, as far as the objective has them.
      restored: whether the objective rebuilds the window from the two; None where it cannot, by its nature.
      hidden: source tokens that the inputs do not show.
      spans: lengths of the hidden spans.
    """

    source_tokens: int
    tokens: dict[str, int]
    texts: dict[str, tuple[Piece, ...]]
    restored: bool | None
    hidden: int
    spans: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the batch; `stream` is a number in `Inspection.streams`, None for a row that fills up a last batch."""

    number: int
    stream: int | None
    examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Figures of the rows of one stream. `hidden` and `configured_hidden` are shares of the source tokens."""

    name: str
    summary: str
    rate: float
    rows: int
    examples: int
    hidden: float
    configured_hidden: float | None
    mean_span: float | None
    configured_span: float | None
    span_lengths: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A batch.

    Attributes:
      slots: for each text, slots of a row.
      padding: for each text, the share of slots that hold nothing.
      restored, restorable: examples that came back as they were, and those that could.
      loss_tokens: targets that count.
    """

    split: str
    step: int
    fingerprint: str
    rows: tuple[Row, ...]
    slots: dict[str, int]
    padding: dict[str, float]
    examples: int
    restored: int
    restorable: int
    loss_tokens: int
    streams: tuple[Stream, ...]


def inspect(batches: Batches, step: int) -> Inspection:
    """Batch `step`, row by row, with the text that each row was made from."""
    batch, origins = batches(step), batches.origins(step)
    rows = tuple(
        _row(number, {name: values[number] for name, values in batch.items()}, origin, batches.tokenizer)
        for number, origin in enumerate(origins)
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
        loss_tokens=int(np.sum(batch["decoder_loss_weights"] > 0)) if "decoder_loss_weights" in batch else 0,
        streams=tuple(_streams(batches, rows)),
    )


def _tokens(names: Iterable[str]) -> list[tuple[str, str]]:
    """(text, feature) of the texts that a batch has."""
    names = set(names)
    return [(text, feature) for text, feature in TEXTS.items() if feature in names]


def _row(number: int, row: Batch, origin: Origin | None, tokenizer: Tokenizer) -> Row:
    if origin is None:
        return Row(number, None, ())
    stream = origin.stream
    examples = [
        _example(_segment(row, i, packed=stream.plan is not None), source, stream.objective, tokenizer)
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
        density = getattr(objective, "noise_density", getattr(objective, "target_density", None))
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
        )


def clean(text: str) -> str:
    """Text without what could steer a terminal or turn a line around: control characters (ESC and C1 among them)
    and bidirectional overrides are left out, line ends and tabs become spaces."""
    text = text.translate({ord(c): " " for c in "\n\r\t\v\f\x85\u2028\u2029"})
    return "".join(c for c in text if c.isprintable() or c == "\N{NO-BREAK SPACE}" or c == "\u3000")


def to_data(inspection: Inspection, rows: int) -> dict[str, Any]:
    """Plain data for JSON, with the first `rows` rows."""
    data = dataclasses.asdict(dataclasses.replace(inspection, rows=()))
    data["rows"] = [dataclasses.asdict(row) for row in inspection.rows[:rows]]
    return data
