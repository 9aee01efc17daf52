"""Masks: published counts, uniform compositions, rates, and rows that know nothing of each other."""

import itertools
from collections import Counter

import numpy as np
import pytest
from examples import keys
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter
from t5x_like.objectives import noise


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the true runs."""
    return [len(list(group)) for value, group in itertools.groupby(mask.tolist()) if value]


def test_counts_are_those_of_the_published_helper() -> None:
    for density, mean in ((0.15, 3.0), (0.1, 3.0), (0.25, 3.0), (0.15, 8.0), (0.3, 2.5)):
        hidden, spans = noise.span_counts(np.arange(3000), density, mean)
        for n in range(20, 3000):
            assert hidden[n] == round(n * density)
            assert spans[n] == max(1, round(round(n * density) / mean))  # the helper forgets the 1


def test_counts_differ_from_the_published_float32_mask_where_the_docstring_says() -> None:
    n = np.arange(2, 3000)
    for density, expected in ((0.15, 29), (0.3, 61), (0.1, 0), (0.25, 0), (0.5, 0)):
        published = np.rint(n.astype(np.float32) * np.float32(density)).astype(int).clip(1, n - 1)
        different = n[published != noise.span_counts(n, density, 3.0)[0]]
        assert len(different) == expected
        if density == 0.15:
            assert different[:5].tolist() == [190, 350, 390, 670, 710]


def test_short_windows_hide_their_tail() -> None:
    """Section 26 of the facts: 0, 1, 1, 1, 1, 2 noise tokens at the end for n = 1, 2, 3, 5, 8, 10."""
    lengths, hidden = np.array([0, 1, 2, 3, 5, 8, 10]), [0, 0, 1, 1, 1, 1, 2]
    masks = noise.random_spans(keys(7), lengths, 12, density=0.15, mean_span_length=3.0)
    for mask, n, h in zip(masks, lengths, hidden, strict=True):
        assert mask.tolist() == [False] * (n - h) + [True] * h + [False] * (12 - n)


@pytest.mark.parametrize("n, density, mean, spans", [(10, 0.9, 3.0, 1), (20, 0.8, 2.0, 4), (9, 0.5, 1.0, 4)])
def test_spans_never_outnumber_kept_tokens(n: int, density: float, mean: float, spans: int) -> None:
    """Where the published mask raises a shape error, or would."""
    mask = noise.random_spans(keys(50), np.full(50, n), n, density=density, mean_span_length=mean)
    assert {len(runs(m)) for m in mask} == {spans}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 80), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.floats(1, 10),
    st.integers(0, 2**32),
)
def test_form_of_a_mask(lengths: list[int], density: float, mean: float, seed: int) -> None:
    masks = noise.random_spans(
        keys(len(lengths), seed), np.array(lengths), 81, density=density, mean_span_length=mean
    )
    for mask, n in zip(masks, lengths, strict=True):
        hidden, spans = noise.span_counts(n, density, mean)
        assert mask.sum() == hidden and len(runs(mask)) == spans
        assert not mask[n:].any()
        if n >= 2:
            assert not mask[0] and mask[n - 1]


def test_every_composition_is_equally_likely() -> None:
    """n = 13 at .4 with mean 5/3: 5 noise tokens and 8 kept ones, 3 spans: C(4,2) * C(7,2) masks."""
    rows = 100_000
    masks = noise.random_spans(keys(rows), np.full(rows, 13), 13, density=0.4, mean_span_length=5 / 3)
    counts = Counter(np.packbits(masks, axis=1).astype(int) @ [256, 1])
    assert len(counts) == 6 * 21
    expected = rows / len(counts)
    chi_square = sum((c - expected) ** 2 / expected for c in counts.values())
    assert abs(chi_square - 125) < 4 * np.sqrt(2 * 125)


def test_equal_draws_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal 32-bit draws are rare; here all of them are equal, or nearly all."""
    lengths = np.array([30, 17, 0, 30])
    draws = np.random.default_rng(0).integers(0, 3, (4, 200), np.uint32)
    monkeypatch.setattr(counter, "words", lambda keys, count, salt: draws[:, :count].copy())
    masks = noise.random_spans(keys(4), lengths, 30, density=0.4, mean_span_length=2.0)
    hidden, spans = noise.span_counts(lengths, 0.4, 2.0)
    assert masks.sum(axis=1).tolist() == hidden.tolist()
    assert [len(runs(m)) for m in masks] == spans.tolist()
    assert [bool(m[n - 1]) for m, n in zip(masks, lengths, strict=True) if n] == [True] * 3


@pytest.mark.parametrize("roll", [False, True])
def test_a_row_is_the_same_in_any_company(roll: bool) -> None:
    lengths, k = np.array([40, 40, 7, 0, 33, 1, 2, 40]), keys(8)

    def masks(order: np.ndarray) -> np.ndarray:
        return noise.random_spans(
            k[order], lengths[order], 40, density=0.3, mean_span_length=2.0, random_roll=roll
        )

    together = masks(np.arange(8))
    for i in range(8):
        np.testing.assert_array_equal(masks(np.array([i]))[0], together[i])
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(masks(order), together[order])


def test_rolled_masks_hide_every_place_alike() -> None:
    rows, n = 20_000, 12
    plain, rolled = (
        noise.random_spans(keys(rows), np.full(rows, n), n, density=0.25, mean_span_length=3.0, random_roll=r)
        for r in (False, True)
    )
    assert (plain == ([False] * 9 + [True] * 3)).all()  # a single span: always the tail
    assert (rolled.sum(axis=1) == 3).all()
    assert np.abs(rolled.mean(axis=0) - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / rows)


@pytest.mark.parametrize("density", [0.1, 0.15, 0.5])
def test_iid_rate_at_every_place_and_no_memory(density: float) -> None:
    rows, n = 20_000, 30
    masks = noise.iid(keys(rows), np.full(rows, n), n + 2, density=density)
    assert not masks[:, n:].any()
    masks = masks[:, :n]
    assert np.abs(masks.mean(axis=0) - density).max() < 4.5 * np.sqrt(density * (1 - density) / rows)
    both = (masks[:, 1:] & masks[:, :-1]).mean()
    assert abs(both - density**2) < 5 * density / np.sqrt(rows * n)
    counts = masks.sum(axis=1)
    assert abs(counts.var() - n * density * (1 - density)) < 0.05 * n * density


@pytest.mark.parametrize("density, least", [(0.5, 1), (0.25, 6), (0.01, 11)])
def test_prefix_length_is_uniform(density: float, least: int) -> None:
    """n = 12: uniform on [round((1 - 2d) * 11) or 1, 11]."""
    rows, n = 40_000, 12
    masks = noise.prefix(keys(rows), np.full(rows, n), n, target_density=density)
    assert (np.sort(masks, axis=1)[:, ::-1] == masks).all()
    counts = np.bincount(masks.sum(axis=1), minlength=n)
    assert counts[:least].sum() == 0
    share = 1 / (n - least)
    assert np.abs(counts[least:] / rows - share).max() <= 4.5 * np.sqrt(share * (1 - share) / rows)


def test_prefix_of_short_windows() -> None:
    masks = noise.prefix(keys(3), np.array([0, 1, 2]), 3, target_density=0.5)
    assert masks.tolist() == [[False] * 3, [False] * 3, [True, False, False]]
