"""The mixture of denoisers: its parts, one shape for all, mode tokens, and the mixture as an objective of its own."""

import numpy as np
import pytest
from examples import T5, keys, t5_vocabulary, windows

from t5x_like.objectives.base import Objective
from t5x_like.objectives.span_corruption import span_lengths
from t5x_like.objectives.ul2 import MixtureOfDenoisers

MANY = t5_vocabulary(sentinels=200)


def test_seven_parts_with_the_numbers_of_table_1() -> None:
    mixture = MixtureOfDenoisers()
    assert [part.mode for part, _ in mixture.denoisers] == ["R", "R", "S", "X", "X", "X", "X"]
    rates = [rate for _, rate in mixture.parts()]
    np.testing.assert_allclose(rates, [0.8 / 6] * 2 + [0.2] + [0.8 / 6] * 4)
    raw = [part.window_length() for part, _ in mixture.denoisers]
    spans = [(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)]
    expected = [
        span_lengths(511, density, mean)[0] for mean, density in spans
    ]  # one slot is the mode token's
    assert raw == [*expected[:2], 510, *expected[2:]]
    assert all(part.features(MANY) == mixture.features(MANY) for part, _ in mixture.parts())
    assert isinstance(mixture, Objective)


def test_without_mode_tokens_the_published_raw_lengths() -> None:
    raw = [p.window_length() for p, _ in MixtureOfDenoisers(mode_tokens=False).denoisers]
    assert raw == [568, 588, 511, 766, 908, 600, 1006]


def test_a_rate_of_zero_leaves_a_kind_out() -> None:
    mixture = MixtureOfDenoisers(s_rate=0, x_rate=0)
    assert [(part.mode, rate) for part, rate in mixture.denoisers] == [("R", 0.5), ("R", 0.5)]


@pytest.mark.parametrize("number", range(7))
def test_examples_of_a_part_begin_with_its_mode_and_come_back(number: int) -> None:
    mixture = MixtureOfDenoisers()
    part, _ = mixture.denoisers[number]
    given = windows([part.window_length()] * 8, vocabulary=MANY)
    batch = part.examples(given, keys(8))
    token = MANY.sentinels[-1 - "RSX".index(part.mode or "")]
    assert (batch["encoder_input_tokens"][:, 0] == token).all()
    assert token not in batch["encoder_input_tokens"][:, 1:] and token not in batch["decoder_target_tokens"]
    for row in range(8):
        sides = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
        for objective in (part, mixture):
            restored = objective.restore(*sides, MANY)
            assert restored is not None and restored.tolist() == given.tokens[row].tolist()


def test_as_an_objective_of_its_own_each_row_draws_its_denoiser() -> None:
    mixture = MixtureOfDenoisers(inputs_length=64)
    rows, width = 3000, mixture.window_length()
    given = windows([width] * (rows - 1) + [0], width)
    batch = mixture.examples(given, keys(rows))
    drawn = [int((batch["encoder_input_tokens"][:-1, 0] == t).sum()) for t in T5.sentinels[:-4:-1]]
    for count, rate in zip(drawn, (0.8 / 3, 0.2, 1.6 / 3), strict=True):
        assert abs(count / rows - rate) < 4.5 * np.sqrt(rate / rows)
    assert not any(value[-1].any() for value in batch.values())
    alone = mixture.examples(windows([width], width), keys(1))
    for name, value in alone.items():
        np.testing.assert_array_equal(value[0], batch[name][0])
    bounds = mixture.example_lengths(np.array([width]))
    assert (batch["encoder_input_tokens"] > 0).sum(axis=1).max() <= bounds["encoder"][0] == 64
    assert batch["decoder_loss_weights"].sum(axis=1).max() <= bounds["decoder"][0] <= mixture.decoder_length
