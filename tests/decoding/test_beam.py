"""Beam search against exhaustive search and against a slow reference; the scores of the published penalties."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from t5x_like.decoding.base import SpecialIds
from t5x_like.decoding.beam import Beam
from t5x_like.decoding.sampling import greedy
from t5x_like.errors import UserError

IDS = SpecialIds(eos=1, pad=0)


@functools.partial(jax.jit, static_argnums=(0, 3))
def decode(strategy, params, cache, ids):
    return strategy(toy.logits_fn, params, cache, jnp.zeros(cache["source"].shape[0], jnp.int32), ids)


def search(strategy, params, rows, seed=0, ids=IDS):
    return jax.tree.map(np.asarray, decode(strategy, params, toy.cache(rows, seed), ids))


def penalty(beam: Beam, length: int) -> float:
    return length**beam.alpha if beam.penalty == "hf" else ((5 + length) / 6) ** beam.alpha


def slow_search(model: toy.Reference, beam: Beam) -> list[tuple[float, list[int]]]:
    """The rules of the class docstring, with lists."""
    live, done = [(0.0, [])], []
    for length in range(1, beam.max_length + 1):
        candidates = [
            (score + lp, [*history, token])
            for score, history in live
            for token, lp in enumerate(model.allowed(history, beam.min_length))
            if np.isfinite(lp)
        ]
        candidates = sorted(candidates, key=lambda c: -c[0])[: 2 * beam.num_beams]
        hf = beam.penalty == "hf"

        def ends(tokens, hf=hf):
            return tokens[-1] == 1 or (hf and len(tokens) == beam.max_length)

        eligible = candidates[: beam.num_beams] if hf else candidates
        done += [(s / penalty(beam, length), t) for s, t in eligible if ends(t)]
        done = sorted(done, key=lambda c: -c[0])[: beam.num_beams]
        live = [c for c in candidates if not ends(c[1])][: beam.num_beams]
        if not live:
            break
        if len(done) == beam.num_beams:
            bound = live[0][0] / penalty(beam, length if hf else beam.max_length)
            if beam.early_stopping or (bound <= done[-1][0] if hf else bound < done[-1][0]):
                break
    return done or live


@pytest.mark.parametrize("penalty_name, early", [("hf", False), ("hf", True), ("gnmt", False)])
@pytest.mark.parametrize("beams, alpha, min_length", [(1, 1.0, 0), (3, 0.6, 3), (4, 2.0, 0)])
def test_beam_equals_slow_reference(penalty_name, early, beams, alpha, min_length):
    strategy = Beam(
        num_beams=beams,
        max_length=7,
        min_length=min_length,
        penalty=penalty_name,
        alpha=alpha,
        early_stopping=early,
    )
    rows, ids = 4, SpecialIds(eos=1, pad=0, size=9)
    for seed in range(3):
        params = toy.make(12, seed, eos_bias=2.0)
        out = search(strategy, params, rows, seed, ids)
        for row, source in enumerate(toy.cache(rows, seed)["source"]):
            expected = slow_search(toy.Reference(params, source, ids), strategy)
            for k, (score, tokens) in enumerate(expected):
                assert out.lengths[row, k] == len(tokens)
                assert out.tokens[row, k].tolist() == tokens + [0] * (7 - len(tokens))
                np.testing.assert_allclose(out.scores[row, k], score, rtol=2e-5)
            assert np.all(out.scores[row, len(expected) :] == -np.inf)


@pytest.mark.parametrize("penalty_name", ["hf", "gnmt"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_wide_beam_finds_the_best_of_all_sequences(penalty_name, alpha):
    length, vocabulary = 4, 3
    strategy = Beam(num_beams=vocabulary**length, max_length=length, penalty=penalty_name, alpha=alpha)
    params = toy.make(vocabulary, 7)
    out = search(strategy, params, 2)
    for row, source in enumerate(toy.cache(2)["source"]):
        model = toy.Reference(params, source, IDS)
        ended = [
            [*body, 1] for n in range(length) for body in itertools.product([0, 2], repeat=n)
        ]  # a sequence ends at its first EOS
        if penalty_name == "hf":
            ended += [list(t) for t in itertools.product([0, 2], repeat=length)]
        scores = [model.log_prob(t) / penalty(strategy, len(t)) for t in ended]
        best = int(np.argmax(scores))
        assert out.tokens[row, 0, : out.lengths[row, 0]].tolist() == ended[best]
        np.testing.assert_allclose(out.scores[row, : len(ended)], sorted(scores, reverse=True), rtol=1e-5)


def test_one_beam_is_greedy():
    params = toy.make(12, 3, eos_bias=1.0)
    one = search(Beam(num_beams=1, max_length=8, penalty="hf", alpha=0.0, early_stopping=True), params, 6)
    best = search(greedy(8), params, 6)
    np.testing.assert_array_equal(one.tokens, best.tokens)
    np.testing.assert_array_equal(one.lengths, best.lengths)
    np.testing.assert_allclose(one.scores, best.scores, rtol=1e-6)
    assert len(set(best.lengths[:, 0].tolist())) > 1  # rows end at different times


def test_alpha_zero_scores_are_sums_of_log_probabilities():
    params = toy.make(12, 5, eos_bias=3.0)
    out = search(Beam(num_beams=3, max_length=8, alpha=0.0), params, 3)
    for row, source in enumerate(toy.cache(3)["source"]):
        model = toy.Reference(params, source, IDS)
        for k in range(3):
            assert out.scores[row, k] > -np.inf
            tokens = out.tokens[row, k, : out.lengths[row, k]].tolist()
            np.testing.assert_allclose(out.scores[row, k], model.log_prob(tokens), rtol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours():
    params = toy.make(12, 2, eos_bias=1.0)
    strategy = Beam(num_beams=3, max_length=9)
    together = search(strategy, params, 5)
    for row in range(5):
        alone = decode(strategy, params, {k: v[row : row + 1] for k, v in toy.cache(5).items()}, IDS)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_published_penalties():
    """Specification of decoders, section 26: log-probability -7, length 10."""
    gnmt = Beam(penalty="gnmt", alpha=0.6)
    assert gnmt.normaliser(10) == pytest.approx(1.7329, abs=5e-5)
    assert -7 / gnmt.normaliser(10) == pytest.approx(-4.0396, abs=1e-4)
    assert -7 / Beam(penalty="hf", alpha=1.0).normaliser(10) == pytest.approx(-0.700)
    assert -7 / Beam(penalty="hf", alpha=2.0).normaliser(10) == pytest.approx(-0.070)


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 0}, {"max_length": 0}, {"min_length": 200}, {"penalty": "g"}, {"early_stopping": True}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        Beam(**settings).check()
