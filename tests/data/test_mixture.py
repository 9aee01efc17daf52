"""Mixture rates: the golden vectors of the T5 paper's formula, and a schedule that is exact over any prefix."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.mixture import PERIOD, Mixture, proportional_rates, quantise


def test_golden_rates():
    sizes, limits = [1_000_000, 100_000, 10_000], [2**19] * 3
    assert np.round(proportional_rates(sizes, limits, 1.0), 4).tolist() == [0.8266, 0.1577, 0.0158]
    assert np.round(proportional_rates(sizes, limits, 2.0), 4).tolist() == [0.6350, 0.2773, 0.0877]
    assert np.round(proportional_rates([3_000_000_000, 1_000_000], [None, None], 1 / 0.3), 3).tolist() == [
        0.917,
        0.083,
    ]


@pytest.mark.parametrize("temperature", [1e-300, 0.01, 1e300])
def test_any_temperature_gives_rates(temperature):
    rates = proportional_rates([10**9, 10**9, 10**6], [None] * 3, temperature)
    assert rates[0] == rates[1] and abs(sum(rates) - 1) < 1e-12


def test_quantised_rates_sum_up_and_lose_nobody():
    assert quantise([0.5, 0.5]) == [1, 1]
    shares = quantise([1e-9, 1.0, 2.0])
    assert sum(shares) == PERIOD and shares[0] == 1
    assert abs(shares[2] / PERIOD - 2 / 3) <= 1 / PERIOD


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_exact_over_any_prefix(shares):
    period = sum(shares)
    stream, within = Mixture(tuple(shares)).lookup(np.arange(2 * period))
    counts = np.cumsum(stream[:, None] == np.arange(len(shares)), axis=0)
    expected = np.arange(1, 2 * period + 1)[:, None] * np.array(shares) / period
    assert np.abs(counts - expected).max() < 1
    for d in range(len(shares)):
        np.testing.assert_array_equal(within[stream == d], np.arange(2 * shares[d]))


def test_exact_for_the_full_period():
    shares = quantise([0.6350, 0.2773, 0.0877, 1e-5])
    stream, _ = Mixture(tuple(shares)).lookup(np.arange(PERIOD))
    counts = np.cumsum(stream[:, None] == np.arange(4), axis=0)
    assert np.abs(counts - np.arange(1, PERIOD + 1)[:, None] * np.array(shares) / PERIOD).max() < 1


def test_far_away_is_as_near():
    mixture = Mixture((3, 2, 2))
    far = 7 * 10**15
    stream, within = mixture.lookup(far + np.arange(7))
    near_stream, near_within = mixture.lookup(np.arange(7))
    np.testing.assert_array_equal(stream, near_stream)
    np.testing.assert_array_equal(within - near_within, 10**15 * np.array([3, 2, 2])[stream])


@pytest.mark.parametrize("streams", [1, 7, 500])
def test_the_table_is_built_quickly(streams):
    rates = 1.0 / np.arange(1, streams + 1)
    start = time.process_time()
    Mixture(tuple(quantise(rates))).lookup(np.arange(10))
    assert time.process_time() - start < 3
