"""Which places of a row a masked language model has to predict, and what stands there instead. NumPy over whole
batches; every row is drawn from its own key alone.

    unit    what is hidden at once                               from
    token   single tokens                                        BERT, RoBERTa
    word    whole words, as long as they fit the budget          google-research/bert create_pretraining_data.py
    ngram   one to three whole words, p(n) ~ 1/n                 google-research/albert create_pretraining_data.py
    span    runs of whole words, geometric length (mean 3.8)     SpanBERT, pretraining/fairseq/data/masking.py

`eligible` says which places may be chosen, `counts` how many are (the budget of a row, in tokens, whatever the unit).
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary
from t5x_like.data.windows import within
from t5x_like.objectives.noise import lowest

Unit = Literal["token", "word", "ngram", "span"]
Rounding = Literal["half_even", "random", "up"]

LONGEST_NGRAM = 3
SPAN_STOP, LONGEST_SPAN = 0.2, 10
"""SpanBERT's lengths in words: p(n) ~ stop * (1 - stop)^(n - 1) up to the longest."""

# Salts: uses of one row's key.
_ORDER, _NGRAM, _SPAN, _REPLACEMENT, _ROUNDING, _WITH_REPLACEMENT = range(0x3A5C, 0x3A5C + 6)


# ---- how many -----------------------------------------------------------------------------------


def most_predictions(rate: float, length: int) -> int:
    """K of a row of `length` places: the ceiling of its share (20 of 128 and 77 of 512 at 15 %), at least 1."""
    return max(1, int(np.ceil(round(rate * length, 9))))


def budgets(
    keys: Keys, lengths: np.ndarray, eligible: np.ndarray, rate: float, rounding: Rounding, most: int
) -> Int64[np.ndarray, "B"]:
    """How many tokens of each row are chosen, by one of three published rules; never more than there are.

    Args:
      keys: [B].
      lengths: [B] tokens of each row, [CLS] and [SEP] counted.
      eligible: [B] those that may be chosen.
      rounding:
        half_even: round(rate * lengths), Python's rounding, at least 1 (BERT, ALBERT).
        random: floor(rate * lengths + uniform), so that the mean is exact (RoBERTa).
        up: the ceiling of rate * eligible (SpanBERT, which counts the text alone).
      most: K.
    """
    lengths, eligible = np.asarray(lengths, np.int64), np.asarray(eligible, np.int64)
    if rounding == "half_even":
        wanted = np.maximum(np.rint(lengths * rate), 1)
    elif rounding == "random":
        wanted = np.floor(lengths * rate + counter.uniform(keys, (), _ROUNDING))
    else:
        wanted = np.ceil(np.round(eligible * rate, 9))
    return np.minimum(wanted.astype(np.int64), np.minimum(eligible, most))


# ---- which --------------------------------------------------------------------------------------


def choose(
    unit: Unit,
    keys: Keys,
    eligible: Bool[np.ndarray, "B T"],
    starts: Bool[np.ndarray, "B T"] | None,
    counts: np.ndarray,
) -> Bool[np.ndarray, "B T"]:
    """The places that are chosen; `starts` marks the first pieces of words (not needed for single tokens)."""
    if unit == "token":
        return tokens(keys, eligible, counts)
    if starts is None:
        raise ValueError(f"{unit} masking needs to know where words start")
    if unit == "word":
        return whole_words(keys, eligible, starts, counts)
    if unit == "ngram":
        return ngrams(keys, eligible, starts, counts)
    return spans(keys, eligible, starts, counts)


def tokens(keys: Keys, eligible: Bool[np.ndarray, "B T"], counts: np.ndarray) -> Bool[np.ndarray, "B T"]:
    """`counts[b]` of the eligible places of each row, every choice equally likely."""
    return lowest(_draws(keys, eligible, _ORDER), counts)


def whole_words(
    keys: Keys, eligible: Bool[np.ndarray, "B T"], starts: Bool[np.ndarray, "B T"], counts: np.ndarray
) -> Bool[np.ndarray, "B T"]:
    """BERT's greedy rule: words in random order, each taken if all of it still fits the row's budget.

    As published, a piece that starts no word belongs to the word before it, even across [SEP].
    """
    words = _words(eligible, starts)
    order = np.argsort(_draws(keys, words.real, _ORDER), axis=1, kind="stable")
    sizes = np.take_along_axis(words.sizes, order, axis=1)
    room = np.asarray(counts, np.int64)[:, None]
    taken = sizes > 0
    # Budgets only shrink, so the first word that does not fit rules out every later one of more tokens than are left,
    # and the next candidate fits: a round for each size that a rest can have, not for each word.
    while True:
        filled = np.cumsum(sizes * taken, axis=1)
        over = taken & (filled > room)
        late = np.logical_or.accumulate(over, axis=1)
        if not late.any():
            break
        left = room - np.max(np.where(taken & ~late, filled, 0), axis=1, keepdims=True)
        taken &= ~(late & (sizes > left))
    chosen = np.zeros_like(taken)
    np.put_along_axis(chosen, order, taken, axis=1)
    return eligible & np.take_along_axis(chosen, words.number, axis=1)


def ngrams(
    keys: Keys,
    eligible: Bool[np.ndarray, "B T"],
    starts: Bool[np.ndarray, "B T"],
    counts: np.ndarray,
    longest: int = LONGEST_NGRAM,
) -> Bool[np.ndarray, "B T"]:
    """ALBERT's rule: starting words in random order, at each n words with p(n) ~ 1/n, fewer where n do not fit the
    budget; left out where not one fits or a word is taken already. A row's end cuts n-grams short."""
    words = _words(eligible, starts)
    rows, steps = np.arange(len(eligible))[:, None], np.arange(longest)
    order = np.argsort(_draws(keys, words.real, _ORDER), axis=1, kind="stable")
    share = 1 / (1.0 + steps)
    wanted = 1 + _by_shares(share, counter.uniform(keys, (order.shape[1],), _NGRAM))
    ends = np.cumsum(np.pad(words.sizes, ((0, 0), (1, longest))), axis=1)
    taken = np.zeros((len(eligible), order.shape[1] + longest), bool)
    left = np.array(counts, np.int64)
    for i in range(order.shape[1]):
        is_open = (left > 0) & (i < words.amount)
        if not is_open.any():
            break
        first = order[:, i : i + 1]
        tokens = ends[rows, first + 1 + steps] - ends[rows, first]  # of the first 1, 2, ... words
        n = np.sum((tokens <= left[:, None]) & (steps < wanted[:, i : i + 1]), axis=1)
        places = first + steps
        before = taken[rows, places]
        gram = (steps < n[:, None]) & is_open[:, None]
        gram &= ~(before & gram).any(axis=1, keepdims=True)
        taken[rows, places] = before | gram
        left -= np.where(gram[:, 0], tokens[rows[:, 0], np.maximum(n - 1, 0)], 0)
    return eligible & np.take_along_axis(taken, words.number, axis=1)


def spans(
    keys: Keys,
    eligible: Bool[np.ndarray, "B T"],
    starts: Bool[np.ndarray, "B T"],
    counts: np.ndarray,
    stop: float = SPAN_STOP,
    longest: int = LONGEST_SPAN,
) -> Bool[np.ndarray, "B T"]:
    """SpanBERT's rule: from the start of the word that holds a random token not yet hidden, a geometric number of
    words, until the budget is full (inside a word, if need be). Spans may meet; none goes past a special id."""
    previous = np.pad(eligible[:, :-1], ((0, 0), (1, 0)))
    run_starts = eligible & ~previous
    run, word = np.cumsum(run_starts, axis=1), np.cumsum(run_starts | (eligible & starts), axis=1)
    share = stop * (1 - stop) ** np.arange(longest)
    hidden = np.zeros_like(eligible)
    left = np.array(counts, np.int64)
    rows, number = np.arange(len(eligible)), 0
    while left.any():
        draws = counter.uniform(counter.fold(keys, number), (2,), _SPAN)
        rank = np.cumsum(eligible & ~hidden, axis=1)
        anchor = np.argmax(rank > np.floor(draws[:, 0] * rank[:, -1])[:, None], axis=1)
        first = word[rows, anchor][:, None]
        words = 1 + _by_shares(share, draws[:, 1])[:, None]
        fresh = eligible & ~hidden & (run == run[rows, anchor][:, None])
        fresh &= (word >= first) & (word < first + words)
        fresh &= np.cumsum(fresh, axis=1) <= left[:, None]
        hidden |= fresh
        left -= fresh.sum(axis=1)
        number += 1
    return hidden


def with_replacement(keys: Keys, eligible: Bool[np.ndarray, "B T"], slots: int) -> Int64[np.ndarray, "B K"]:
    """`slots` independent draws of an eligible place for each row, in no order, duplicates and all (ELECTRA). Rows with
    no eligible place get 0."""
    amounts = eligible.sum(axis=1)
    ranks = counter.integers(keys, (slots,), _WITH_REPLACEMENT, 0, np.maximum(amounts, 1)[:, None])
    places = np.flatnonzero(eligible) % eligible.shape[1]  # all eligible places, row after row
    first = np.cumsum(amounts) - amounts
    found = np.append(places, 0)[np.minimum(first[:, None] + ranks, len(places))]
    return np.where(amounts[:, None] > 0, found, 0)


class _Words(NamedTuple):
    """Words of the eligible places: `number` [B, T] of the word each place is in (meaningless elsewhere), `sizes`
    [B, T] tokens of word 0, 1, ... (0 behind the last), `amount` [B], `real` [B, T] true for the first `amount`."""

    number: Int64[np.ndarray, "B T"]
    sizes: Int64[np.ndarray, "B T"]
    amount: Int64[np.ndarray, "B"]
    real: Bool[np.ndarray, "B T"]


def _words(eligible: Bool[np.ndarray, "B T"], starts: Bool[np.ndarray, "B T"]) -> _Words:
    rows, width = eligible.shape
    first = np.argmax(eligible, axis=1)
    starts = eligible & starts
    starts[np.arange(rows), first] |= eligible[np.arange(rows), first]
    number = np.maximum(np.cumsum(starts, axis=1) - 1, 0)
    flat = (number + width * np.arange(rows)[:, None])[eligible]
    sizes = np.bincount(flat, minlength=rows * width).reshape(rows, width)
    amount = starts.sum(axis=1)
    return _Words(number, sizes, amount, np.arange(width) < amount[:, None])


def _draws(keys: Keys, real: Bool[np.ndarray, "B T"], salt: int) -> np.ndarray:
    """uint32 draws, with the largest number wherever not `real`."""
    draws = counter.words(keys, real.shape[1], salt)
    draws &= np.uint32(0xFFFFFFFE)
    draws[~real] = np.iinfo(np.uint32).max
    return draws


def _by_shares(shares: Float64[np.ndarray, "N"], draws: np.ndarray) -> Int64[np.ndarray, "..."]:
    """The number of the share that each draw in [0, 1) falls into, shares taken in proportion."""
    ends = np.cumsum(shares)
    return np.searchsorted(ends[:-1] / ends[-1], draws, side="right")


# ---- what stands there --------------------------------------------------------------------------


def replace(
    keys: Keys,
    shown: Int32[np.ndarray, "B T"],
    chosen: Bool[np.ndarray, "B T"],
    mask: int,
    ids: Int32[np.ndarray, "R"],
    *,
    keep_share: float,
    random_share: float,
    by_span: bool = False,
) -> Int32[np.ndarray, "B T"]:
    """Chosen tokens become [MASK], stay as they are, or become one of `ids`, each equally likely.

    Args:
      shown: the rows.
      mask: id of [MASK].
      ids: candidates for random replacement (`random_ids`).
      keep_share, random_share: of the chosen tokens; the rest become [MASK]. Drawn for each token on its own.
      by_span: drawn once for each run of chosen places instead (SpanBERT); the random ids still one by one.
    """
    width = chosen.shape[1]
    places = np.flatnonzero(chosen)  # in the flat batch: much faster than rows and columns
    row = places // width
    # The high half of a draw says what happens, the low half which id.
    draws = counter.fold(counter.fold(keys, _REPLACEMENT)[row], places - row * width)
    action = draws >> np.uint64(32)
    if by_span and len(places):
        starts = np.r_[True, (np.diff(places) != 1) | (np.diff(row) != 0)]
        action = action[starts][np.cumsum(starts) - 1]
    masks = action < np.uint64(max(round((1 - keep_share - random_share) * 2.0**32), 0))
    randoms = action >= np.uint64(round((1 - random_share) * 2.0**32))
    low = draws[randoms] & np.uint64(0xFFFFFFFF)
    out = shown.reshape(-1).copy()
    out[places[masks]] = mask
    out[places[randoms]] = ids[low * np.uint64(len(ids)) >> np.uint64(32)]
    return out.reshape(shown.shape)


@functools.lru_cache(maxsize=16)
def random_ids(vocabulary: Vocabulary, which: Literal["all", "ordinary"]) -> Int32[np.ndarray, "R"]:
    """Ids that can replace a token: the whole vocabulary, special ids included (BERT), or all but padding, begin, end,
    unknown, [CLS] and [SEP] (RoBERTa: the four ids below 4; [MASK] stays a candidate, as published)."""
    ids = np.arange(vocabulary.size, dtype=np.int32)
    if which == "all":
        return ids
    v = vocabulary
    special = [i for i in (v.pad, v.bos, v.eos, v.unk, v.cls, v.sep) if i is not None]
    return np.setdiff1d(ids, special)


def predictions(
    chosen: Bool[np.ndarray, "B T"], originals: Int32[np.ndarray, "B T"], slots: int
) -> dict[str, np.ndarray]:
    """What there is to predict, places ascending: `masked_positions`, `masked_targets` [B, K] int32 (0 in slots that
    are not used) and `masked_weights` [B, K] float32 (1 where used)."""
    width = chosen.shape[1]
    places = np.flatnonzero(chosen)
    amounts = np.count_nonzero(chosen, axis=1)
    row = np.repeat(np.arange(len(chosen)), amounts)
    used = row * slots + within(amounts)
    positions, targets = np.zeros((2, len(chosen) * slots), np.int32)
    positions[used] = places - row * width
    targets[used] = originals.reshape(-1)[places]
    weights = (np.arange(slots) < amounts[:, None]).astype(np.float32)
    shape = weights.shape
    return {
        "masked_positions": positions.reshape(shape),
        "masked_targets": targets.reshape(shape),
        "masked_weights": weights,
    }
