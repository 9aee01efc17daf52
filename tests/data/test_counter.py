"""The counter hash: a fixed function, each bit fair, draws of neighbouring names unrelated."""

import numpy as np
import pytest

from t5x_like.data import counter

KEYS = counter.fold(counter.seed_key(0, "test"), np.arange(512))


def test_it_is_the_published_generator() -> None:
    """SplitMix64 from state 1234567 (https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64)."""
    want = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert counter.fold(1234567, np.arange(5)).tolist() == want


def test_values_never_change() -> None:
    """A run must find the same batches after an update of this project: these numbers are its contract."""
    assert int(counter.seed_key(0, "a", 3)) == 3369845030758867587
    assert counter.fold(7, np.arange(2)).tolist() == [7191089600892374487, 309689372594955804]
    assert counter.words(counter.fold(7, np.arange(1)), 3, 5).tolist() == [
        [1081088195, 164847825, 2147203498]
    ]


@pytest.mark.parametrize("key", [np.uint64(5), np.array(5), np.array([5, 6]), np.zeros((2, 0), np.uint64)])
def test_shapes_and_inputs_stay(key: np.ndarray) -> None:
    before = np.copy(key)
    assert counter.mix(np.asarray(key).astype(np.uint64)).shape == np.shape(key)
    assert counter.bits(key, (3, 4), 0).shape == (*np.shape(key), 3, 4)
    assert counter.words(key, 5, 0).shape == (*np.shape(key), 5)
    np.testing.assert_array_equal(key, before)


def test_draws_depend_on_their_name_alone() -> None:
    all_draws = counter.bits(KEYS, (100,), 9)
    np.testing.assert_array_equal(counter.bits(KEYS[7:9], (40,), 9), all_draws[7:9, :40])
    np.testing.assert_array_equal(counter.bits_at(KEYS[[3, 8]], [99, 0], 9), all_draws[[3, 8], [99, 0]])
    np.testing.assert_array_equal(counter.words(KEYS, 31, 9), counter.words(KEYS, 100, 9)[:, :31])
    low_half, high_half = all_draws & np.uint64(2**32 - 1), all_draws >> np.uint64(32)
    np.testing.assert_array_equal(
        counter.words(KEYS, 200, 9), np.stack([low_half, high_half], -1).reshape(512, 200)
    )


def test_names_do_not_collide() -> None:
    keys = [
        counter.seed_key(s, *names)
        for s in (0, 1, -1)
        for names in ((), ("a",), ("b",), ("a", "b"), ("ab",), (0,))
    ]
    draws = np.concatenate([counter.bits(np.array(k), (200,), salt) for k in keys for salt in range(3)])
    assert len(np.unique(draws)) == len(draws)


@pytest.mark.parametrize("axis", ["key", "position", "salt"])
def test_each_bit_is_fair_and_independent_of_its_neighbour(axis: str) -> None:
    n = 32768
    draws = {
        "key": lambda: counter.bits(counter.fold(3, np.arange(n)), (), 1),
        "position": lambda: counter.bits(np.uint64(3), (n,), 1),
        "salt": lambda: np.concatenate([counter.bits(KEYS[:128], (), salt) for salt in range(n // 128)]),
    }[axis]()
    ones = np.unpackbits(draws.view(np.uint8).reshape(n, 8), axis=1).astype(np.float64)
    sigma = 0.5 / np.sqrt(n)
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 4.5 * sigma
    correlation = np.corrcoef(ones, rowvar=False) - np.eye(64)  # between bits of one draw
    assert np.abs(correlation).max() < 5.5 / np.sqrt(n)
    serial = 4 * ((ones[1:] - 0.5) * (ones[:-1] - 0.5)).mean(axis=0)  # between neighbours
    assert np.abs(serial).max() < 4.5 / np.sqrt(n)


def test_one_changed_bit_of_a_name_changes_half_the_bits() -> None:
    changed = KEYS[:, None] ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))
    flips = np.bitwise_count(counter.bits(KEYS, (), 0)[:, None] ^ counter.bits(changed, (), 0))
    assert abs(flips.mean() - 32) < 0.1
    assert flips.min() > 8


def test_uniform_and_integers_fill_their_range_evenly() -> None:
    draws = counter.uniform(KEYS, (1000,), 4)
    assert 0 <= draws.min() < 1e-4 and 1 - 1e-4 < draws.max() < 1
    assert chi_square_per_degree(np.bincount((draws * 64).astype(int).ravel(), minlength=64)) < 1.7
    low, high = np.array([[-3], [5]] * 256), np.array([[4], [12]] * 256)
    whole = counter.integers(KEYS, (1000,), 4, low, high) - low
    assert whole.min() == 0 and whole.max() == 6
    assert chi_square_per_degree(np.bincount(whole.ravel())) < 3


def chi_square_per_degree(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))
