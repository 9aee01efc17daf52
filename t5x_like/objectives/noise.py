"""Noise masks: which tokens of a window an objective hides. NumPy over whole batches, rows of any length.

Every row is drawn from its own key alone: the same row comes out alone, in any batch and in any order. Source of
the rules: text-to-text-transfer-transformer/t5/data/preprocessors.py.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from t5x_like.data import counter
from t5x_like.data.counter import Keys

_KEEP_CUTS, _NOISE_CUTS, _ROLL, _IID, _PREFIX = range(5)  # salts: uses of one row's key


def valid(lengths: np.ndarray, width: int) -> Bool[np.ndarray, "B W"]:
    """True at the first `lengths[b]` places of row b."""
    return np.arange(width) < lengths[:, None]


def span_counts(
    lengths: np.ndarray | int, density: float, mean_span_length: float
) -> tuple[Int64[np.ndarray, "..."], Int64[np.ndarray, "..."]]:
    """Number of noise tokens and of noise spans in windows of these lengths: the one routine behind both the
    lengths of features and the masks.

    Both roundings are half to even in float64, as Python's `round` in the published `random_spans_helper`. The
    published mask multiplies in float32 instead and so hides one token more or less than the helper counted on at
    some lengths (density .15: 29 of those below 3000, 190, 350, 390, 670, 710 ...; .3: 61; .1, .25, .5: none;
    568 agrees), which cuts the end off the targets there. Windows of two tokens or more have at least one noise
    token, one kept token and one span; windows of one or none have no noise. Spans are never more than the kept
    tokens, where the published mask stops with a shape error (n = 10 at .9; n = 20 at .8 with mean 2).

    Returns: (noise tokens, spans), each of the shape of `lengths`.
    """
    lengths = np.asarray(lengths, np.int64)
    noise = np.clip(np.rint(lengths * density).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    spans = np.maximum(np.rint(noise / mean_span_length).astype(np.int64), 1)
    spans = np.minimum(spans, lengths - noise)
    some = lengths >= 2
    return np.where(some, noise, 0), np.where(some, spans, 0)


def random_spans(
    keys: Keys,
    lengths: np.ndarray,
    width: int,
    *,
    density: float,
    mean_span_length: float,
    random_roll: bool = False,
) -> Bool[np.ndarray, "B W"]:
    """Masks of random spans: kept and noise spans in turn, beginning with kept text and ending with noise.

    Given the counts of `span_counts`, every mask of this form is equally likely: the lengths of the noise spans
    and those of the kept spans are two independent uniform compositions. Source: `random_spans_noise_mask`.

    Args:
      keys: [B] one key a row.
      lengths: [B] tokens of each row; nothing behind them is masked.
      width: W.
      random_roll: turns each mask by an offset uniform on [0, length), so that the first token can be hidden and
        short windows do not always hide their tail (t5 issue 905); a span may then wrap around.
    """
    lengths = np.asarray(lengths, np.int64)
    noise, spans = span_counts(lengths, density, mean_span_length)
    keep = np.where(spans > 0, lengths - noise, 0)
    rows = np.repeat(np.arange(len(lengths)), spans)
    keep_ends = composition_ends(keys, keep, spans, _KEEP_CUTS)
    noise_ends = composition_ends(keys, noise, spans, _NOISE_CUTS)
    ends = rows * width + keep_ends + noise_ends  # flat place behind each noise span
    starts = ends - np.diff(noise_ends, prepend=0)
    first = (np.cumsum(spans) - spans)[spans > 0]  # of each row: what stands before it belongs to another row
    starts[first] = ends[first] - noise_ends[first]
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[1:-1:2], edges[2:-1:2], edges[-1] = 0, starts, ends, len(lengths) * width
    mask = np.repeat(np.arange(len(edges) - 1) % 2 == 1, np.diff(edges)).reshape(len(lengths), width)
    return _roll(keys, mask, lengths) if random_roll else mask


def composition_ends(
    keys: Keys, items: np.ndarray, pieces: np.ndarray, salt: int
) -> Int64[np.ndarray, "sum_of_pieces"]:
    """Cuts `items[b]` things in a row into `pieces[b]` pieces of one or more, every way equally likely.

    The last item always ends a piece; which others do is the set of the smallest of one random number an item.

    Args:
      keys, items, pieces: [B]; `pieces <= items`, and both 0 or neither.
      salt: tells uses of the same key apart.

    Returns: where each piece ends, counted within its row from 1, row after row; the last one of row b is
      `items[b]`.
    """
    width = int(items.max(initial=0))
    if width == 0:
        return np.zeros(0, np.int64)
    draws = counter.words(keys, width, salt)
    draws |= np.uint32(1)
    if (items != width).any():
        draws[~valid(items, width)] = np.iinfo(np.uint32).max
    filled = np.flatnonzero(items)
    draws[filled, items[filled] - 1] = 0
    places = np.flatnonzero(lowest(draws, pieces))
    return places + 1 - np.repeat(np.arange(len(items)) * width, pieces)


def lowest(draws: UInt32[np.ndarray, "B W"], counts: np.ndarray) -> Bool[np.ndarray, "B W"]:
    """True at the `counts[b]` smallest numbers of each row, the first of equal ones; counts may be 0."""
    if len(counts) and (counts == counts[0]).all() and counts[0] > 0:
        largest = np.partition(draws, counts[0] - 1, axis=1)[:, counts[0] - 1]
        found = draws <= largest[:, None]
    else:
        ranked = np.sort(draws, axis=1)  # of several ranks, a SIMD sort is faster than a partition at each
        largest = ranked[np.arange(len(ranked)), counts - 1]
        found = (draws <= largest[:, None]) & (counts > 0)[:, None]
    if np.count_nonzero(found) != counts.sum():  # equal draws where it matters: once in some million rows
        rank = np.argsort(np.argsort(draws, axis=1, kind="stable"), axis=1)
        found = rank < counts[:, None]
    return found


def _roll(keys: Keys, mask: Bool[np.ndarray, "B W"], lengths: np.ndarray) -> Bool[np.ndarray, "B W"]:
    """Turns each row's first `lengths[b]` places to the right by a random offset."""
    turn = np.maximum(lengths, 1)
    source = np.arange(mask.shape[1]) - counter.integers(keys, (), _ROLL, 0, turn)[:, None]
    np.add(source, turn[:, None], out=source, where=source < 0)
    return np.take_along_axis(mask, source, axis=1) & valid(lengths, mask.shape[1])


def iid(keys: Keys, lengths: np.ndarray, width: int, *, density: float) -> Bool[np.ndarray, "B W"]:
    """Masks that hide each token on its own with probability `density`. Source: `iid_noise_mask`."""
    below = np.uint32(min(density * 2.0**32, 2.0**32 - 1))
    return (counter.words(keys, width, _IID) < below) & valid(lengths, width)


def shortest_prefix(lengths: np.ndarray | int, target_density: float) -> Int64[np.ndarray, "..."]:
    """The least number of tokens that `prefix` puts in front of the split: round((1 - 2 d)(n - 1)), at least 1 and
    at most n - 1 (0 for windows of one token or none)."""
    most = np.maximum(np.asarray(lengths, np.int64) - 1, 0)
    least = np.rint((1 - 2 * target_density) * most).astype(np.int64)
    return np.minimum(np.maximum(least, 1), most)


def prefix(keys: Keys, lengths: np.ndarray, width: int, *, target_density: float) -> Bool[np.ndarray, "B W"]:
    """Masks that are true on a prefix whose length is uniform on [shortest_prefix, n - 1], so that the mean share
    of the rest is `target_density` (at most one half). Source: `random_prefix_noise_mask`."""
    split = counter.integers(
        keys, (), _PREFIX, shortest_prefix(lengths, target_density), np.maximum(lengths, 1)
    )
    return valid(split, width)
