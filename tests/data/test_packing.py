"""Packing: every window once, every side fits, rows read as their examples did; the prefix-LM golden vector."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_dataset import Echo

from t5x_like.data import counter, packing
from t5x_like.data.example import Feature, Vocabulary, Windows
from t5x_like.errors import UserError

KEY = counter.seed_key(0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(0, 30), st.integers(1, 3))
def test_plan_places_every_window_once_and_every_side_fits(lengths, slack, slots_a_token):
    lengths = np.array(lengths)
    sides = {"encoder": np.arange(41) + 1, "decoder": slots_a_token * np.arange(41) // 2 + 1}
    capacities = {"encoder": 41 + slack, "decoder": 61}
    plan = packing.plan_rows(lengths, sides, capacities, KEY)
    np.testing.assert_array_equal(np.sort(plan.windows), np.arange(len(lengths)))
    assert (np.diff(plan.offsets) >= 1).all()
    for side, capacity in capacities.items():
        used = np.add.reduceat(sides[side][lengths[plan.windows]], plan.offsets[:-1])
        assert used.max() <= capacity
        assert plan.fill[side] == pytest.approx(used.sum() / (capacity * plan.count))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_no_two_rows_could_be_one(lengths):
    plan = packing.plan_rows(np.array(lengths), {"encoder": np.arange(41)}, {"encoder": 40}, KEY)
    used = np.sort(np.add.reduceat(np.array(lengths)[plan.windows], plan.offsets[:-1]))
    assert plan.count == 1 or used[0] + used[1] > 40


def test_a_perfect_fit_is_found():
    sides = {"encoder": np.arange(11)}
    plan = packing.plan_rows(np.array([6, 4, 5, 5, 3, 3, 4, 10, 1, 9]), sides, {"encoder": 10}, KEY)
    assert plan.count == 5 and plan.fill == {"encoder": 1.0}


def test_the_key_shuffles_windows_of_equal_length():
    lengths = np.full(100, 5)
    plans = [
        packing.plan_rows(lengths, {"encoder": np.arange(6)}, {"encoder": 20}, counter.seed_key(s))
        for s in (0, 1)
    ]
    assert plans[0].count == plans[1].count == 25
    assert (plans[0].windows != plans[1].windows).mean() > 0.8


def test_a_window_larger_than_a_row_is_refused():
    with pytest.raises(UserError, match="an example takes 9 encoder slots; a row has 8"):
        packing.plan_rows(np.array([3, 9]), {"encoder": np.arange(10)}, {"encoder": 8}, KEY)


def test_a_million_windows_in_seconds_and_well_filled():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.8, 1.0, 1_000_000), 1, 512).astype(np.int64)
    sides = {"encoder": np.arange(513), "decoder": np.arange(513) // 5 + 2}
    start = time.process_time()
    plan = packing.plan_rows(lengths, sides, {"encoder": 512, "decoder": 114}, KEY)
    assert time.process_time() - start < 8
    assert plan.fill["encoder"] > 0.97
    assert len(plan.windows) == 1_000_000


def examples(*lengths: int, echo: Echo):
    tokens = np.zeros((len(lengths), echo.length), np.int32)
    for row, n in enumerate(lengths):
        tokens[row, :n] = 100 * (row + 1) + np.arange(n)
    keys = counter.fold(KEY, np.arange(len(lengths)))
    return echo.examples(Windows(tokens, np.array(lengths), Vocabulary(size=10_000)), keys)


def test_rows_read_as_their_examples_did():
    echo = Echo(length=12, half=6)
    features = packing.pack_features(echo.features(Vocabulary(size=1)), ("encoder", "decoder"))
    made = examples(3, 2, 12, 1, 4, echo=echo)
    batch = packing.pack_rows(made, np.array([0, 0, 1, 3, 3]), 4, features, ("encoder", "decoder"), 0)
    assert {n: (v.shape, v.dtype) for n, v in batch.items()} == {
        n: ((4, *f.shape), np.dtype(f.dtype)) for n, f in features.items()
    }
    assert batch["encoder_input_tokens"][0].tolist() == [100, 101, 102, 1, 200, 201, 1, 0, 0, 0, 0, 0, 0]
    assert batch["encoder_segment_ids"][0].tolist() == [1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0]
    assert batch["encoder_positions"][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 0, 0, 0, 0, 0]
    assert batch["decoder_target_tokens"][0].tolist() == [100, 101, 102, 1, 200, 201, 1]
    assert batch["decoder_input_tokens"][0].tolist() == [
        0,
        100,
        101,
        102,
        0,
        200,
        201,
    ]  # each segment from the start id
    assert batch["decoder_segment_ids"][0].tolist() == [1, 1, 1, 1, 2, 2, 2]
    assert batch["decoder_positions"][0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch["decoder_loss_weights"][0].tolist() == [1.0] * 7
    assert (batch["encoder_segment_ids"][1] == 1).all()
    assert all((v[2] == 0).all() for v in batch.values())  # a row without examples
    assert batch["encoder_segment_ids"][3].tolist() == [1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0]


def test_prefix_lm_packing_golden_vector():
    """Specification section 26: two pairs, length 15."""
    inputs = np.array([[7, 8, 5, 1, 0], [8, 4, 9, 3, 1]])
    targets = np.array([[3, 9, 1], [4, 1, 0]])
    made = packing.prefix_lm(inputs, np.array([4, 5]), targets, np.array([3, 2]), 15)
    features = {n: Feature((15,), v.dtype) for n, v in made.items()}
    packed = packing.pack_features(features, ("decoder",))
    batch = {
        n: v[0].tolist()
        for n, v in packing.pack_rows(made, np.zeros(2, int), 1, packed, ("decoder",), 0).items()
    }
    assert batch["decoder_target_tokens"] == [7, 8, 5, 1, 3, 9, 1, 8, 4, 9, 3, 1, 4, 1, 0]
    assert batch["decoder_input_tokens"] == [0, 7, 8, 5, 1, 3, 9, 0, 8, 4, 9, 3, 1, 4, 0]
    assert batch["decoder_loss_weights"] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0]
    assert batch["decoder_causal_attention"] == [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert batch["decoder_positions"] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0]
    assert batch["decoder_segment_ids"] == [1] * 7 + [2] * 7 + [0]


def test_prefix_lm_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="7 tokens in a row of 6"):
        packing.prefix_lm(np.ones((1, 4), int), np.array([4]), np.ones((1, 3), int), np.array([3]), 6)
