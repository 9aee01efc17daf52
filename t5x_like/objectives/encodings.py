"""From a window and a mask to rows of ids: runs replaced by sentinels, tokens gathered, EOS set; and the way back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64

from t5x_like.data.example import Vocabulary
from t5x_like.errors import UserError


def replace_runs(
    tokens: Int32[np.ndarray, "B W"],
    runs: Bool[np.ndarray, "B W"],
    rest: Bool[np.ndarray, "B W"],
    sentinels: tuple[int, ...],
) -> tuple[Int32[np.ndarray, "B W"], Bool[np.ndarray, "B W"]]:
    """Each maximal run of `runs` becomes one sentinel, the next one for each run of a row; `rest` stays.

    Source: `noise_span_to_unique_sentinel`; with the two masks exchanged, `nonnoise_span_to_unique_sentinel`.

    Returns: ids and which of them the row consists of (for `gather`).

    Raises:
      UserError: a row has more runs than there are sentinels. (The original goes on into ordinary ids.)
    """
    batch, width = tokens.shape
    starts = _starts(runs)
    places = np.flatnonzero(starts)
    rank = _rank_within_rows(places, batch, width)
    if len(rank) and rank.max() >= len(sentinels):
        raise UserError(
            f"a window has {rank.max() + 1} spans, and there are {len(sentinels)} sentinels to mark them",
            help="fewer or longer spans, shorter windows, or a tokenizer with more sentinels",
        )
    ids = tokens.astype(np.int32, order="C")
    ids.reshape(-1)[places] = np.array(sentinels, np.int32)[rank]
    return ids, rest | starts


def limit_runs(runs: Bool[np.ndarray, "B W"], most: int) -> Bool[np.ndarray, "B W"]:
    """`runs` without what comes behind the first `most` runs of a row."""
    starts = _starts(runs)
    return runs & (np.cumsum(starts, axis=1, dtype=np.int32) <= most)


def gather(
    ids: Int32[np.ndarray, "B W"],
    kept: Bool[np.ndarray, "B W"],
    lengths: np.ndarray,
    width: int,
    vocabulary: Vocabulary,
    first: int | None = None,
) -> tuple[Int32[np.ndarray, "B width"], Int64[np.ndarray, "B"]]:
    """Rows `[first] ids[kept] EOS pad ...`, cut to `width - 1` before EOS is set.

    Args:
      lengths: [B] tokens of the windows: rows where it is 0 stay empty, without EOS.
      first: an id to put in front of every row.

    Returns: the rows, and how many of their places are used.
    """
    batch = len(ids)
    rows = np.full((batch, width), vocabulary.pad, np.int32)
    if first is not None:
        rows[lengths > 0, 0] = first
    offset = int(first is not None)
    room = width - 1 - offset
    places = np.flatnonzero(kept)
    values = ids.reshape(-1)[places]
    counts = _counts(places, batch, ids.shape[1])
    if batch and (counts == counts[0]).all():
        taken = min(int(counts[0]), room)
        rows[:, offset : offset + taken] = values.reshape(batch, -1)[:, :taken]
    else:
        column = _rank_within_rows(places, batch, ids.shape[1])
        target = column + np.repeat(np.arange(batch) * width + offset, counts)
        fits = column < room
        rows.reshape(-1)[target[fits]] = values[fits]
    used = np.where(lengths > 0, np.minimum(counts, room) + offset + 1, 0)
    closed = np.flatnonzero(used)
    rows[closed, used[closed] - 1] = vocabulary.eos
    return rows, used


def _starts(runs: Bool[np.ndarray, "B W"]) -> Bool[np.ndarray, "B W"]:
    """True at the first place of each run of a row."""
    starts = runs.copy()
    starts[:, 1:] &= ~runs[:, :-1]
    return starts


def _counts(places: np.ndarray, batch: int, width: int) -> np.ndarray:
    """How many of the ascending flat `places` in [batch, width] each row has."""
    return np.diff(np.searchsorted(places, np.arange(batch + 1) * width))


def _rank_within_rows(places: np.ndarray, batch: int, width: int) -> np.ndarray:
    """The number of each of the ascending flat `places` in [batch, width] within its row."""
    counts = _counts(places, batch, width)
    return np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)


# ---- the way back --------------------------------------------------------------------------------


def content(row: Int32[np.ndarray, "W"], vocabulary: Vocabulary) -> Int32[np.ndarray, "n"]:
    """A row of a feature without its padding and its closing EOS."""
    used = np.flatnonzero(row != vocabulary.pad)
    end = int(used[-1]) + 1 if len(used) else 0
    return row[: end - 1] if end and row[end - 1] == vocabulary.eos else row[:end]


def restore_spans(
    inputs: Int32[np.ndarray, "s"], targets: Int32[np.ndarray, "t"], sentinels: tuple[int, ...]
) -> Int32[np.ndarray, "n"]:
    """The window whose spans were replaced by sentinels, from the `content` of its two rows: kept runs of the
    inputs and hidden runs of the targets in turn, beginning with the hidden one where the inputs begin with a
    sentinel.

    Text that holds sentinel ids of its own, or targets that were cut, do not come back as they were.
    """
    turns = _runs(inputs, sentinels), _runs(targets, sentinels)
    if len(inputs) and inputs[0] in sentinels:
        turns = turns[::-1]
    pieces = [turn[i] for i in range(max(map(len, turns))) for turn in turns if i < len(turn)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)


def _runs(row: np.ndarray, sentinels: tuple[int, ...]) -> list[np.ndarray]:
    """The pieces between sentinels that are not empty."""
    pieces = np.split(row, np.flatnonzero(np.isin(row, sentinels)))
    pieces = [piece[1:] if len(piece) and piece[0] in sentinels else piece for piece in pieces]
    return [piece for piece in pieces if len(piece)]
