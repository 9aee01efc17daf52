"""The styles of the T5 study: rates, encodings, lengths, and what comes back."""

from typing import Any

import numpy as np
import pytest
from examples import T5, keys, t5_vocabulary, used, windows

from t5x_like.data.example import Vocabulary
from t5x_like.errors import UserError
from t5x_like.objectives.iid_denoising import IidDenoising

STYLES = ("replace_spans", "drop_tokens", "bert", "mass")
MASK = 32099


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("density", [0.05, 0.15, 0.2])
def test_examples(style: Any, density: float) -> None:
    objective = IidDenoising(inputs_length=128, style=style, noise_density=density)
    lengths = [127] * 30 + [0, 1, 2, 60]
    given = windows(lengths, 127)
    batch = objective.examples(given, keys(34))
    bounds = objective.example_lengths(np.array(lengths))
    for row, n in enumerate(lengths):
        inputs, targets = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
        tokens = given.tokens[row, :n].tolist()
        for side, ids in (("encoder", used(inputs)), ("decoder", used(targets))):
            assert len(ids) <= bounds[side][row]
            assert ids[-1:] == ([1] if n else []) and ids.count(1) == (n > 0)
        assert batch["decoder_loss_weights"][row].sum() == len(used(targets))
        restored = objective.restore(inputs, targets, T5)
        if style == "drop_tokens":
            assert restored is None
            assert sorted(used(inputs)[:-1] + used(targets)[:-1]) == tokens  # nothing is lost but the places
        else:
            assert restored is not None and restored.tolist() == tokens
        if style in ("bert", "mass"):
            assert len(used(inputs)) == len(used(targets))


def test_mass_hides_by_one_sentinel_at_the_rate() -> None:
    objective = IidDenoising(style="mass")
    given = windows([511] * 400)
    inputs = objective.examples(given, keys(400))["encoder_input_tokens"][:, :511]
    hidden = inputs == MASK
    assert abs(hidden.mean() - 0.15) < 4.5 * np.sqrt(0.15 * 0.85 / hidden.size)
    np.testing.assert_array_equal(inputs[~hidden], given.tokens[~hidden])


def test_bert_takes_ninety_to_ten_and_no_kept_tokens() -> None:
    objective, given = IidDenoising(style="bert"), windows([511] * 2000)
    inputs = objective.examples(given, keys(2000))["encoder_input_tokens"][:, :511]
    mass = IidDenoising(style="mass").examples(given, keys(2000))["encoder_input_tokens"][:, :511]
    hidden = mass == MASK  # both styles draw the same mask from the same key
    np.testing.assert_array_equal(inputs[~hidden], given.tokens[~hidden])
    replaced = inputs[hidden]
    random = replaced[replaced != MASK]
    assert abs(len(random) / len(replaced) - 0.1) < 4.5 * np.sqrt(0.09 / len(replaced))
    counts, _ = np.histogram(random, bins=np.linspace(3, 32100, 65))
    expected = len(random) / 64
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 4.5 * np.sqrt(126)
    assert random.min() >= 3 and random.max() < 32100


def test_random_ids_avoid_special_ids_wherever_they_are() -> None:
    vocabulary = Vocabulary(size=12, pad=0, eos=5, unk=7, bos=9, sentinels=(11,))
    objective = IidDenoising(inputs_length=40, style="bert", noise_density=0.9)
    given = windows([39] * 500, vocabulary=vocabulary)
    given.tokens[:] = 1
    inputs = objective.examples(given, keys(500))["encoder_input_tokens"][:, :39]
    assert set(inputs.ravel().tolist()) == {1, 2, 3, 4, 6, 8, 10, 11}


@pytest.mark.parametrize(
    "style, density", [("replace_spans", 0.15), ("replace_spans", 0.5), ("drop_tokens", 0.15)]
)
def test_computed_targets_length_is_the_mean_and_four_deviations(style: Any, density: float) -> None:
    vocabulary = t5_vocabulary(sentinels=400)
    objective = IidDenoising(style=style, noise_density=density, targets_length=600)
    batch = objective.examples(windows([511] * 4000, vocabulary=vocabulary), keys(4000))
    lengths = batch["decoder_loss_weights"].sum(axis=1)
    estimate = lengths.mean() + 4 * lengths.std()
    computed = IidDenoising(style=style, noise_density=density).decoder_length
    assert abs(computed - estimate) < 4
    assert (lengths <= computed).mean() > 0.999


def test_published_lengths_of_the_study() -> None:
    """Ours hold nearly all targets: near the published 192 and 104 at 15 %; 103 at 10 % holds two in three."""
    assert IidDenoising().decoder_length == 200
    assert IidDenoising(style="drop_tokens").decoder_length == 110
    assert IidDenoising(style="mass").decoder_length == IidDenoising(style="bert").decoder_length == 512


def test_long_targets_are_cut_before_eos() -> None:
    objective = IidDenoising(inputs_length=128, targets_length=10)
    batch = objective.examples(windows([127] * 50), keys(50))
    assert (batch["decoder_target_tokens"][:, 9] == 1).all()
    assert batch["decoder_loss_weights"].all()


def test_runs_past_the_last_sentinel_stay_unhidden() -> None:
    vocabulary = t5_vocabulary(sentinels=5)
    objective = IidDenoising(inputs_length=128)
    given = windows([127] * 50, vocabulary=vocabulary)
    batch = objective.examples(given, keys(50))
    for row in range(50):
        inputs, targets = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
        np.testing.assert_array_equal(objective.restore(inputs, targets, vocabulary), given.tokens[row])
        for ids in (inputs, targets):
            marks = [i for i in ids.tolist() if i >= 32000]
            assert marks == list(vocabulary.sentinels[: len(marks)])


@pytest.mark.parametrize("density, fits", [(0.1, True), (0.15, True), (0.25, False), (0.5, False)])
def test_sentinels_of_the_study(density: float, fits: bool) -> None:
    """25 and 50 % need more than T5's 100 sentinels, which the original does not notice."""
    objective = IidDenoising(noise_density=density)
    if fits:
        objective.check_vocabulary(T5)
        return
    with pytest.raises(UserError, match=r"can need \d+ sentinels; the tokenizer has 100") as e:
        objective.check_vocabulary(T5)
    need = int(str(e.value).split("can need ")[1].split()[0])
    objective.check_vocabulary(t5_vocabulary(sentinels=need))
