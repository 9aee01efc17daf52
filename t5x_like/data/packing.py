"""Packing: several short windows in one row, from a plan that is made before the first step.

The plan needs the lengths of windows only, so it is the same on every host, and row r of it can be built at any
time: a packed batch is a pure function of (seed, step) like any other. Windows of equal length are exchangeable,
so the plan packs the histogram of lengths (Krell et al. 2021, "Efficient sequence packing without
cross-contamination", section 3), longest first into the fullest row that still has room, and deals the windows,
shuffled, into the rows. An example is never split, and every side of it (encoder, decoder) has to fit.
"""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from t5x_like.data import counter
from t5x_like.data.example import Batch, Feature
from t5x_like.data.windows import within
from t5x_like.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which windows share a row.

    Attributes:
      windows: [N] window numbers, row after row.
      offsets: [R+1] row r holds windows[offsets[r]:offsets[r + 1]].
      fill: for each side, the share of its slots that hold tokens, by the planned lengths.
    """

    windows: Int64[np.ndarray, "N"]
    offsets: Int64[np.ndarray, "R+1"]
    fill: dict[str, float]

    @property
    def count(self) -> int:
        """Rows of the plan."""
        return len(self.offsets) - 1

    def rows(self, index: np.ndarray) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
        """For rows `index` [B]: their windows, and for each of these its place in `index`."""
        counts = self.offsets[index + 1] - self.offsets[index]
        return self.windows[np.repeat(self.offsets[index], counts) + within(counts)], np.repeat(
            np.arange(len(index)), counts
        )


def plan_rows(
    lengths: np.ndarray, sides: dict[str, np.ndarray], capacities: dict[str, int], key: ArrayLike
) -> Plan:
    """Packs windows into rows.

    Args:
      lengths: [N] raw tokens of each window, at least 1.
      sides: for each side, [W+1] the slots that a window of 0..W raw tokens takes (`example_lengths`).
      capacities: for each side, the slots of a row.
      key: uint64 that names the shuffle of windows among those of equal length.

    Raises:
      UserError: a window alone is larger than a row.
    """
    for side, capacity in capacities.items():
        worst = int(sides[side][lengths].max(initial=0))
        if worst > capacity:
            raise UserError(f"an example takes {worst} {side} slots; a row has {capacity}", where="data.pack")
    many = np.bincount(lengths)
    needs = np.stack([np.asarray(sides[side]) for side in capacities], axis=1).tolist()
    groups = _compose(many.tolist(), [tuple(n) for n in needs], tuple(capacities.values()))

    order = np.lexsort((counter.bits(np.asarray(key), (len(lengths),), 0), lengths))
    taken = np.cumsum(many) - many  # where the next window of each length stands in `order`
    windows, counts = [], []
    for rows, content in groups:
        columns = []
        for length, times in content:
            columns.append(order[taken[length] : taken[length] + rows * times].reshape(rows, times))
            taken[length] += rows * times
        windows.append(np.concatenate(columns, axis=1).reshape(-1))
        counts.append(np.full(rows, sum(times for _, times in content)))
    offsets = np.concatenate([[0], *counts]).cumsum()
    fill = {s: float(sides[s][lengths].sum() / (capacities[s] * (len(offsets) - 1))) for s in capacities}
    return Plan(np.concatenate(windows), offsets, fill)


_Content = tuple[tuple[int, int], ...]  # what a row holds: (window length, how many of it), ...


def _compose(
    many: list[int], needs: list[tuple[int, ...]], capacity: tuple[int, ...]
) -> list[tuple[int, _Content]]:
    """(number of rows, what each of them holds), such that `many[l]` windows of each length l are placed."""
    open_rows: dict[tuple[int, ...], list[tuple[int, _Content]]] = {}  # by the room left on each side
    rooms: list[tuple[int, ...]] = []  # its keys, ascending

    def put(room: tuple[int, ...], rows: int, content: _Content) -> None:
        if rows:
            if room not in open_rows:
                bisect.insort(rooms, room)
            open_rows.setdefault(room, []).append((rows, content))

    def fill_up(room: tuple[int, ...], rows: int, content: _Content, length: int, left: int) -> int:
        """Adds windows of `length` to these rows, as many to each as fit; how many are left then."""
        fits = min(r // n for r, n in zip(room, needs[length], strict=True) if n)
        full = min(rows, left // fits)
        rest = left - full * fits if full < rows and left - full * fits < fits else 0
        for count, times in ((full, fits), (1, rest)):
            if count and times:
                smaller = tuple(r - n * times for r, n in zip(room, needs[length], strict=True))
                put(smaller, count, (*content, (length, times)))
        put(room, rows - full - (rest > 0), content)
        return left - full * fits - rest

    for length in range(len(many) - 1, 0, -1):
        left, need = many[length], needs[length]
        at = bisect.bisect_left(rooms, need)  # best fit: the least room that is enough
        while left and at < len(rooms):
            room = rooms[at]
            if all(r >= n for r, n in zip(room, need, strict=True)):
                del rooms[at]
                for rows, content in open_rows.pop(room):
                    if left:
                        left = fill_up(room, rows, content, length, left)
                    else:
                        put(room, rows, content)
                at = bisect.bisect_left(rooms, room) + (room in open_rows)
            else:
                at += 1
        if left:
            fits = min(c // n for c, n in zip(capacity, need, strict=True) if n)
            fill_up(capacity, -(-left // fits), (), length, left)
    return [group for groups in open_rows.values() for group in groups]


def pack_features(features: dict[str, Feature], sides: tuple[str, ...]) -> dict[str, Feature]:
    """The features of a packed batch: those of a plain one, with segment ids and positions for each side."""
    packed = dict(features)
    for side in sides:
        for name in (f"{side}_segment_ids", f"{side}_positions"):
            packed[name] = Feature(features[length_feature(side, features)].shape, np.int32)
    return packed


def length_feature(side: str, names: dict[str, Feature] | Batch) -> str:
    """The feature that tells how long an example is on this side (never the decoder's input: it starts with pad)."""
    return next(n for n in (f"{side}_target_tokens", f"{side}_input_tokens") if n in names)


def used(tokens: np.ndarray, pad: int) -> Int64[np.ndarray, "N"]:
    """Tokens of each row up to the last that is not padding."""
    real = tokens != pad
    return np.where(real.any(axis=1), tokens.shape[1] - real[:, ::-1].argmax(axis=1), 0)


def pack_rows(
    examples: Batch,
    row: np.ndarray,
    rows: int,
    features: dict[str, Feature],
    sides: tuple[str, ...],
    pad: int,
) -> Batch:
    """Lays examples end to end in their rows.

    Args:
      examples: features [N, ...] of N unpacked examples.
      row: [N] the row of each, ascending.
      rows: how many rows there are.
      features: of the packed batch (`pack_features`); a row's capacity is read off it.
      sides: `encoder`, `decoder` or both; a feature belongs to the side that its name starts with.
      pad: the id that ends an example and fills a row.

    Returns:
      The packed batch. Segments count from 1 in each row (0 is padding), positions from 0 in each segment, and
      each segment begins as its example did, so a decoder's input has the start id at each segment's first slot.
    """
    number = within(np.bincount(row, minlength=rows)) + 1
    batch = {}
    for side in sides:
        lengths = used(examples[length_feature(side, examples)], pad)
        ends = np.cumsum(lengths)
        before = np.concatenate([[0], ends])[
            np.searchsorted(row, row)
        ]  # tokens in front of this row's first example
        positions = within(lengths)
        where = (np.repeat(row, lengths), np.repeat(ends - lengths - before, lengths) + positions)
        source = (np.repeat(np.arange(len(row)), lengths), positions)
        values = {name: v[source] for name, v in examples.items() if name.startswith(f"{side}_")}
        values |= {f"{side}_segment_ids": np.repeat(number, lengths), f"{side}_positions": positions}
        for name, value in values.items():
            batch[name] = empty(features[name], name, rows, pad)
            batch[name][where] = value
    return batch


def empty(feature: Feature, name: str, rows: int, pad: int) -> np.ndarray:
    """Rows that hold nothing: padding for tokens, zero for all else."""
    return np.full((rows, *feature.shape), pad if name.endswith("_tokens") else 0, feature.dtype)


def prefix_lm(
    inputs: np.ndarray,
    input_lengths: np.ndarray,
    targets: np.ndarray,
    target_lengths: np.ndarray,
    length: int,
) -> Batch:
    """Pairs as rows of one decoder: inputs, then targets, of which only the targets count in the loss.

    seqio's `PrefixLMFeatureConverter` (seqio/feature_converters.py), unpacked; `pack_rows` packs it. The prefix
    reaches one position into the targets: that position reads the last input and predicts the first target.

    Args:
      inputs, targets: [N, *] ids, of which the first `input_lengths` [N] and `target_lengths` [N] count.
      length: of a row; the id 0 starts and pads it.

    Returns:
      decoder_input_tokens, decoder_target_tokens, decoder_loss_weights, decoder_causal_attention (1 where
      attention is bidirectional: seqio's name), each [N, length].
    """
    total = input_lengths + target_lengths
    if int(total.max(initial=0)) > length:
        raise ValueError(f"a pair of {int(total.max())} tokens in a row of {length}")
    tokens = np.zeros((len(inputs), length), np.int32)
    column = np.arange(length)
    of_inputs = column < input_lengths[:, None]
    of_targets = (column < total[:, None]) & ~of_inputs
    tokens[of_inputs] = inputs[np.arange(inputs.shape[1]) < input_lengths[:, None]]
    tokens[of_targets] = targets[np.arange(targets.shape[1]) < target_lengths[:, None]]
    return {
        "decoder_input_tokens": np.where(column < total[:, None], np.roll(tokens, 1, axis=1), 0)
        * (column > 0),
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": of_targets.astype(np.float32),
        "decoder_causal_attention": (column <= input_lengths[:, None]).astype(np.int32),
    }
