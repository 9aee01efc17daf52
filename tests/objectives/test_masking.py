"""The choice of places, against plain transliterations of the published algorithms that get the same draws."""

import itertools
import math

import numpy as np
import pytest
from examples import BERT, keys

from t5x_like.data import counter
from t5x_like.objectives import masking

CASES = [(rate, seed) for rate in (0.1, 0.15, 0.4, 1.0) for seed in range(6)]


def a_row(seed: int, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Eligible places (all but those of [CLS], [SEP] and padding) and word starts of one row."""
    rng = np.random.default_rng(seed)
    used = int(rng.integers(8, length + 1))
    eligible = np.arange(length) < used
    eligible[[0, int(rng.integers(2, used - 2)), used - 1]] = False
    return eligible, (rng.random(length) < rng.choice([0.3, 0.7])) & eligible


def order_of(key: np.ndarray, width: int, amount: int) -> list[int]:
    """The random order in which candidates are looked at."""
    draws = counter.words(key, width, masking._ORDER)[0, :amount] & np.uint32(0xFFFFFFFE)
    return np.argsort(draws, kind="stable").tolist()


def candidates(eligible: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    """Places by word, as in create_pretraining_data.py: a piece that starts no word joins the last candidate."""
    words: list[list[int]] = []
    for place in np.flatnonzero(eligible).tolist():
        if words and not starts[place]:
            words[-1].append(place)
        else:
            words.append([place])
    return words


def places(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask[0]).tolist()


def budget(eligible: np.ndarray, rate: float) -> int:
    return min(int(eligible.sum()), max(1, round(rate * len(eligible))))


@pytest.mark.parametrize("rate, seed", CASES)
def test_tokens_equal_the_published_loop(rate: float, seed: int) -> None:
    (eligible, _), key = a_row(seed), keys(1, seed)
    n = budget(eligible, rate)
    draws = counter.words(key, len(eligible), masking._ORDER)[0] & np.uint32(0xFFFFFFFE)
    expected = sorted(np.flatnonzero(eligible).tolist(), key=lambda i: draws[i])[:n]
    assert places(masking.tokens(key, eligible[None], np.array([n]))) == sorted(expected)


@pytest.mark.parametrize("rate, seed", CASES)
def test_whole_words_equal_the_published_loop(rate: float, seed: int) -> None:
    (eligible, starts), key = a_row(seed), keys(1, seed)
    n, words = budget(eligible, rate), candidates(eligible, starts)
    covered: list[int] = []
    for word in (words[i] for i in order_of(key, len(eligible), len(words))):
        if len(covered) >= n:
            break
        if len(covered) + len(word) > n:
            continue
        covered += word
    found = masking.whole_words(key, eligible[None], starts[None], np.array([n]))
    assert places(found) == sorted(covered)


@pytest.mark.parametrize("rate, seed", CASES)
def test_ngrams_equal_the_published_loop(rate: float, seed: int) -> None:
    (eligible, starts), key = a_row(seed), keys(1, seed)
    n, words = budget(eligible, rate), candidates(eligible, starts)
    draws = counter.uniform(key, (len(eligible),), masking._NGRAM)[0]
    covered: list[int] = []
    for number, i in enumerate(order_of(key, len(eligible), len(words))):
        if len(covered) >= n:
            break
        grams = [list(itertools.chain(*words[i : i + length])) for length in (1, 2, 3)]
        length = 1 + (draws[number] >= 6 / 11) + (draws[number] >= 9 / 11)
        while length > 1 and len(covered) + len(grams[length - 1]) > n:
            length -= 1
        gram = grams[length - 1]
        if len(covered) + len(gram) > n or set(gram) & set(covered):
            continue
        covered += gram
    found = masking.ngrams(key, eligible[None], starts[None], np.array([n]))
    assert places(found) == sorted(covered)


@pytest.mark.parametrize("rate, seed", CASES)
def test_spans_equal_the_published_loop(rate: float, seed: int) -> None:
    (eligible, starts), key = a_row(seed), keys(1, seed)
    n = budget(eligible, rate)
    shares = [0.2 * 0.8**i for i in range(10)]
    hidden: set[int] = set()
    number = 0
    while len(hidden) < n:
        draw = counter.uniform(counter.fold(key, number), (2,), masking._SPAN)[0]
        free = [i for i in np.flatnonzero(eligible).tolist() if i not in hidden]
        at = free[int(draw[0] * len(free))]  # what retrying until a free anchor comes amounts to
        length = 1 + sum(draw[1] >= sum(shares[: k + 1]) / sum(shares) for k in range(9))
        while not starts[at] and eligible[at - 1]:
            at -= 1
        words = 0
        while eligible[at] and len(hidden) < n:
            words += bool(starts[at]) or not eligible[at - 1]
            if words > length:
                break
            hidden.add(at)
            at += 1
            if at == len(eligible):
                break
        number += 1
    found = masking.spans(key, eligible[None], starts[None], np.array([n]))
    assert places(found) == sorted(hidden)


@pytest.mark.parametrize("unit", ["token", "word", "ngram", "span"])
def test_rows_are_chosen_alone(unit: masking.Unit) -> None:
    rows = [a_row(seed) for seed in range(9)]
    eligible, starts = (np.stack(arrays) for arrays in zip(*rows, strict=True))
    eligible[4] = False  # an empty row
    counts = np.minimum(np.array([1, 5, 9, 3, 0, 30, 7, 0, 2]), eligible.sum(axis=1))
    k = keys(9)
    together = masking.choose(unit, k, eligible, starts, counts)
    assert not (together & ~eligible).any()
    assert (together.sum(axis=1) <= counts).all()
    for row in range(9):
        one = slice(row, row + 1)
        alone = masking.choose(unit, k[one], eligible[one], starts[one], counts[one])
        np.testing.assert_array_equal(alone[0], together[row])


def test_words_are_never_split() -> None:
    rng = np.random.default_rng(0)
    eligible = np.ones((60, 300), bool)
    starts = rng.random(eligible.shape) < 0.6
    starts[:, 0] = True
    for unit in ("word", "ngram"):
        chosen = masking.choose(unit, keys(60), eligible, starts, np.full(60, 45))
        joined = ~starts[:, 1:]  # a piece and the one before it share a word
        assert (chosen[:, 1:] == chosen[:, :-1])[joined].all()
        assert (chosen.sum(axis=1) >= 44).all()  # short words fill what long ones leave


def test_mean_of_span_lengths() -> None:
    """3.8 words (here of one token), before merging: the first span of rows so long that others rarely touch it."""
    rows, width = 3000, 1000
    eligible = np.ones((rows, width), bool)
    chosen = masking.spans(keys(rows), eligible, eligible, np.full(rows, masking.LONGEST_SPAN))
    draws = counter.uniform(counter.fold(keys(rows), 0), (2,), masking._SPAN)
    first = np.floor(draws[:, 0] * width).astype(int)
    inner = first < width - masking.LONGEST_SPAN
    run = chosen[np.arange(rows)[:, None], np.minimum(first[:, None] + np.arange(10), width - 1)]
    lengths = np.cumprod(run, axis=1).sum(axis=1)[inner]
    published = sum(i * 0.2 * 0.8 ** (i - 1) for i in range(1, 11)) / (1 - 0.8**10)
    assert published == pytest.approx(3.8, abs=0.01)
    assert lengths.mean() == pytest.approx(published, abs=0.15)
    assert (lengths == 1).mean() == pytest.approx(0.2 / (1 - 0.8**10), abs=0.03)


def test_shares_of_ngrams_before_the_budget_bites() -> None:
    rows = 30_000
    eligible = np.ones((rows, 9), bool)
    chosen = masking.ngrams(keys(rows), eligible, eligible, np.full(rows, 3))
    # The first gram of a row has three tokens at its disposal; one of 3 fills them in a run.
    order = np.argsort(counter.words(keys(rows), 9, masking._ORDER) & np.uint32(0xFFFFFFFE), axis=1)
    k = 1 + np.searchsorted(
        [6 / 11, 9 / 11], counter.uniform(keys(rows), (9,), masking._NGRAM)[:, 0], "right"
    )
    shares = np.bincount(k, minlength=4)[1:] / rows
    np.testing.assert_allclose(shares, [6 / 11, 3 / 11, 2 / 11], atol=0.012)
    first = order[:, 0]
    for step in range(3):
        at = np.minimum(first + step, 8)
        assert chosen[np.arange(rows), at][(k > step) & (first + step < 9)].all()


def test_budgets() -> None:
    lengths = np.array([0, 3, 10, 30, 128, 512])
    eligible = np.maximum(lengths - 3, 0)

    def found(rounding: masking.Rounding, most: int = 77) -> list[int]:
        return masking.budgets(keys(6), lengths, eligible, 0.15, rounding, most).tolist()

    assert found("half_even") == [0, 0, 2, 4, 19, 77]  # round(1.5) = 2, round(4.5) = 4
    assert found("half_even", 20) == [0, 0, 2, 4, 19, 20]
    assert found("up") == [0, 0, 2, 5, 19, 77]  # of 7, 27, 125 and 509
    many = masking.budgets(keys(20_000), np.full(20_000, 70), np.full(20_000, 70), 0.15, "random", 77)
    assert set(many.tolist()) == {10, 11}  # floor(10.5 + u)
    assert many.mean() == pytest.approx(10.5, abs=0.02)


@pytest.mark.parametrize("length, slots", [(128, 20), (512, 77), (20, 3), (1, 1)])
def test_most_predictions(length: int, slots: int) -> None:
    assert masking.most_predictions(0.15, length) == slots


def test_places_with_replacement() -> None:
    eligible, _ = (np.tile(a, (3000, 1)) for a in a_row(1, 24))
    eligible[7] = False
    found = masking.with_replacement(keys(3000), eligible, 5)
    assert not found[7].any()
    drawn = np.delete(found, 7, axis=0)
    assert np.take_along_axis(eligible, found, axis=1)[np.arange(3000) != 7].all()
    n = int(eligible[0].sum())
    assert set(np.unique(drawn).tolist()) == set(np.flatnonzero(eligible[0]).tolist())
    np.testing.assert_allclose(
        np.bincount(drawn.ravel())[eligible[0][: drawn.max() + 1]] / drawn.size, 1 / n, atol=0.01
    )
    repeats = np.mean([len(set(row)) for row in drawn.tolist()])
    assert repeats == pytest.approx(n * (1 - (1 - 1 / n) ** 5), abs=0.05)


def test_random_ids() -> None:
    assert masking.random_ids(BERT, "all").tolist() == list(range(1000))
    ordinary = masking.random_ids(BERT, "ordinary").tolist()
    assert sorted(set(range(1000)) - set(ordinary)) == [0, 100, 101, 102]


def test_a_span_has_one_fate() -> None:
    rows, width = 400, 60
    chosen = np.tile((np.arange(width) % 6) < 4, (rows, 1))  # runs of 4
    shown = np.full((rows, width), 500, np.int32)
    ids = np.array([7], np.int32)
    out = masking.replace(keys(rows), shown, chosen, 103, ids, keep_share=0.1, random_share=0.1, by_span=True)
    runs = out.reshape(rows, -1, 6)[:, :, :4]
    assert (runs == runs[:, :, :1]).all()
    for value, share in ((103, 0.8), (500, 0.1), (7, 0.1)):
        assert (runs[:, :, 0] == value).mean() == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / 4000)
        )
    single = masking.replace(keys(rows), shown, chosen, 103, ids, keep_share=0.1, random_share=0.1)
    runs = single.reshape(rows, -1, 6)[:, :, :4]
    assert not (runs == runs[:, :, :1]).all(axis=2).mean() > 0.6
