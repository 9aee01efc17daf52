"""Steps that stand out are flagged, those that do not are not, and never in floods."""

import math

import numpy as np

from t5x_like.training.spikes import LEAST, WINDOW, Series, Spikes


def falling(steps, seed=0):
    """Losses as a training run shows them: they fall, and every batch differs."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    return 3 + 6 * np.exp(-t / 200) + 0.08 * rng.standard_normal(steps)


def flagged(values):
    series = Series("loss", 0.05)
    return [spike for i, x in enumerate(values) if (spike := series.add(i, float(x)))]


def test_an_ordinary_curve_raises_no_flag():
    for seed in range(5):
        assert not flagged(falling(3000, seed))


def test_one_high_loss_is_one_flag():
    losses = falling(1000)
    losses[700] += 2
    (spike,) = flagged(losses)
    assert (
        spike.step == 700
        and spike.value == losses[700]
        and abs(spike.usual - np.median(losses[572:700])) < 0.01
    )
    assert str(spike).startswith("loss spike at step 700: 5.")


def test_a_spike_that_lasts_is_told_once():
    losses = falling(1000)
    losses[700:760] += 2
    assert [spike.step for spike in flagged(losses)] == [700]


def test_a_new_level_becomes_usual():
    losses = falling(2000)
    losses[700:] += 2
    losses[1900] += 2
    assert [spike.step for spike in flagged(losses)] == [700, 1900]


def test_flags_are_at_least_a_window_apart():
    losses = falling(2000)
    losses[500::10] += 3
    assert len(flagged(losses)) <= 1500 / WINDOW + 1


def test_few_steps_flat_curves_and_what_is_not_finite():
    assert not flagged([1.0] * (LEAST - 1) + [50.0])
    assert not flagged([1.0] * 100 + [1.04])
    assert [spike.step for spike in flagged([1.0] * 100 + [1.06])] == [100]
    assert not flagged([1.0] * 100 + [math.nan, math.inf])


def test_loss_and_step_time_with_the_steps_they_belong_to():
    spikes, seconds, found = Spikes(), 0.0, []
    for step in range(200):
        if step % 10 == 0:
            found += spikes.look(
                step, [9.0 if i == 55 else 3.0 for i in range(step - 10, step)] if step else []
            )
        seconds += 1.0 if step == 123 else 0.1
        spikes.clock(seconds)
    assert [(spike.what, spike.step, round(spike.value, 3)) for spike in found] == [
        ("loss", 55, 9.0),
        ("step time", 123, 1.0),
    ]
