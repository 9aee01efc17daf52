"""A batch as people look at it: what `inspection.py` finds and `rendering.py` draws."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive tokens that look the same.

    Attributes:
      text: decoded, without control characters.
      span: number of the hidden span that it stands for or belongs to; None outside spans.
      special: a sentinel, a mode token or the end-of-sequence id.
      counts: whether it counts in the loss (inputs never do, and are not dimmed for it).
      fate: of a token that an encoder has to predict: `masked`, `random` (another stands there) or `kept`; of one that
        a discriminator judges: `replaced`.
      segment: 0 for A, 1 for B; None where there are no segments.
    """

    text: str
    span: int | None = None
    special: bool = False
    counts: bool = True
    fate: str | None = None
    segment: int | None = None


@dataclasses.dataclass(frozen=True)
class Example:
    """One example of a row (a packed row has several).

    Attributes:
      source_tokens: of the window it was made from.
      tokens: of each text, EOS included.
      texts: `inputs` and `targets`, as far as the objective has them; of an encoder `inputs` and `predict`.
      restored: whether the objective rebuilds the window from the two; None where it cannot, by its nature.
      hidden: source tokens that the inputs do not show.
      spans: lengths of the hidden spans.
      figures: counts of an encoder's row: predicted places by their fate, and `random_pairs`.
      notes: for people.
    """

    source_tokens: int
    tokens: dict[str, int]
    texts: dict[str, tuple[Piece, ...]]
    restored: bool | None
    hidden: int
    spans: tuple[int, ...]
    figures: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the batch; `stream` is a number in `Inspection.streams`, None for a row that fills up a last batch."""

    number: int
    stream: int | None
    examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Figures of the rows of one stream. `hidden` and `configured_hidden` are shares of the source tokens; `shares` and
    `configured_shares` are of the predicted places by their fate, and of the pairs that are random."""

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
    shares: dict[str, float]
    configured_shares: dict[str, float]


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


def clean(text: str) -> str:
    """Text without what could steer a terminal or turn a line around: control characters (ESC and C1 among them)
    and bidirectional overrides are left out, line ends and tabs become spaces."""
    text = text.translate({ord(c): " " for c in "\n\r\t\v\f\x85\u2028\u2029"})
    return "".join(c for c in text if c.isprintable() or c == "\N{NO-BREAK SPACE}" or c == "\u3000")
