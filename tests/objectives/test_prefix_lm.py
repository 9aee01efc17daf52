"""Prefix LM, language model and deshuffling."""

import itertools
from collections import Counter

import numpy as np
import pytest
from examples import T5, keys, used, windows

from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.encoder_decoder import Denoiser
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM

LENGTHS = [31] * 20 + [0, 1, 2, 17]


@pytest.mark.parametrize(
    "objective",
    [
        PrefixLM(inputs_length=32),
        PrefixLM(inputs_length=33, target_density=0.25, mode="S"),
        Deshuffling(inputs_length=32),
        LanguageModel(targets_length=32),
    ],
    ids=lambda o: o.summary,
)
def test_nothing_is_lost(objective: Denoiser) -> None:
    assert objective.window_length() == 31
    given = windows(LENGTHS, 31)
    batch = objective.examples(given, keys(24))
    bounds = objective.example_lengths(np.array(LENGTHS))
    longest = {"encoder": 0, "decoder": 0}
    for row, n in enumerate(LENGTHS):
        inputs, targets = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
        restored = objective.restore(inputs, targets, T5)
        assert restored is not None and restored.tolist() == given.tokens[row, :n].tolist()
        for side, ids in (("encoder", used(inputs)), ("decoder", used(targets))):
            assert len(ids) <= bounds[side][row]
            assert ids[-1:] == ([1] if n else [])
            longest[side] = max(longest[side], len(ids))
        assert batch["decoder_loss_weights"][row].sum() == len(used(targets))
    assert longest["decoder"] <= objective.decoder_length


def test_the_split_of_a_full_window_is_uniform_on_1_to_n_minus_1() -> None:
    objective = PrefixLM(inputs_length=12)
    batch = objective.examples(windows([11] * 20_000), keys(20_000))
    prefix = (batch["encoder_input_tokens"] > 1).sum(axis=1)
    counts = np.bincount(prefix, minlength=11)
    assert counts[0] == 0 and len(counts) == 11
    assert np.abs(counts[1:] / 20_000 - 0.1).max() < 4.5 * np.sqrt(0.09 / 20_000)


def test_published_lengths() -> None:
    assert PrefixLM().summary == "prefix LM 50%: 511 raw -> 512 + 511"
    assert Deshuffling().summary == "deshuffling: 511 raw -> 512 + 512"
    assert LanguageModel().summary == "language model: 511 raw -> 1 + 512"
    assert PrefixLM().documents == Deshuffling().documents == "isolated"
    assert LanguageModel().documents == "joined"


def test_every_order_is_equally_likely() -> None:
    objective, rows = Deshuffling(inputs_length=6), 24_000
    given = windows([4] * rows, 5)
    inputs = objective.examples(given, keys(rows))["encoder_input_tokens"][:, :4]
    order = inputs - given.tokens[:, :1]
    counts = Counter(map(tuple, order.tolist()))
    assert set(counts) == set(itertools.permutations(range(4)))
    chi_square = sum((c - 1000) ** 2 / 1000 for c in counts.values())
    assert abs(chi_square - 23) < 4.5 * np.sqrt(46)
