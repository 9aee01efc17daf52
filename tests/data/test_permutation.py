"""The shuffle: a bijection for every size, different for every key, and well mixed."""

import numpy as np
import pytest

from t5x_like.data import counter
from t5x_like.data.permutation import permute

SIZES = [*range(1, 70), 100, 127, 128, 129, 1000, 4095, 4096, 4097, 10_007, 65_536, 99_991]


def test_bijection_for_many_sizes():
    for n in SIZES:
        image = permute(np.arange(n), n, counter.seed_key(1, n))
        assert image.dtype == np.int64
        np.testing.assert_array_equal(np.sort(image), np.arange(n), err_msg=f"n = {n}")


def test_one_index_equals_the_same_index_in_a_batch():
    key, n = counter.seed_key(3), 1234
    whole = permute(np.arange(n), n, key)
    np.testing.assert_array_equal([permute(i, n, key) for i in range(0, n, 100)], whole[::100])


def test_a_key_for_each_row():
    keys = counter.fold(counter.seed_key(0), np.arange(5))
    rows = permute(np.arange(50), 50, keys[:, None])
    for row, key in zip(rows, keys, strict=True):
        np.testing.assert_array_equal(row, permute(np.arange(50), 50, key))
    assert len({row.tobytes() for row in rows}) == 5


def test_huge_domains():
    n = 3 * 2**40 + 1
    index = np.arange(n - 1000, n)
    image = permute(index, n, counter.seed_key(0))
    assert len(np.unique(image)) == 1000 and image.min() >= 0 and image.max() < n
    assert abs(image.mean() / n - 0.5) < 0.05


@pytest.mark.parametrize("n", [7, 16, 1000])
def test_every_place_is_equally_likely(n):
    """Chi-squared of where index 0 and n - 1 land, over 4000 keys, in at most 16 bins: mean 15, sd 5.5."""
    keys = counter.fold(counter.seed_key(5), np.arange(4000))
    bins = min(n, 16)
    for index in (0, n - 1):
        seen = np.bincount(permute(index, n, keys) * bins // n, minlength=bins)
        share = np.bincount(np.arange(n) * bins // n, minlength=bins) / n
        assert ((seen - 4000 * share) ** 2 / (4000 * share)).sum() < 50


def test_pairs_are_as_likely_as_any_on_a_tiny_domain():
    """Chi-squared of the images of (i, i + 1) on 16 elements over 20,000 keys, per degree of freedom (sd 0.09).
    Two rounds give 54, four give 4, six give 1 to 1.4."""
    keys, n = counter.fold(counter.seed_key(9), np.arange(20_000)), 16
    for i in (0, 1, 8, 14):
        seen = np.zeros((n, n))
        np.add.at(seen, (permute(i, n, keys), permute(i + 1, n, keys)), 1)
        expected = 20_000 / (n * (n - 1))
        off_diagonal = ~np.eye(n, dtype=bool)
        assert ((seen - expected) ** 2 / expected)[off_diagonal].sum() / (n * (n - 1) - 1) < 2


def test_neighbours_are_not_neighbours_afterwards():
    """Rank correlation of (index, image) and of successive images: sd 0.01 for a random permutation of 10,000."""
    n = 10_000
    for seed in range(5):
        image = permute(np.arange(n), n, counter.seed_key(seed))
        assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.05
        assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.05
        assert (np.abs(np.diff(image)) == 1).mean() < 0.002


def test_no_elements_is_an_error():
    with pytest.raises(ValueError, match="0 elements"):
        permute(0, 0, np.uint64(1))
