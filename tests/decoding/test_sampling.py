"""Greedy decoding and sampling: warps against plain definitions, statistics of draws, ends and padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from t5x_like.decoding.base import SpecialIds
from t5x_like.decoding.sampling import Sampling, greedy
from t5x_like.errors import UserError

IDS = SpecialIds(eos=1, pad=0)


def run(strategy, params, cache, ids=IDS, seed=0):
    rows = cache["source"].shape[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))
    decode = jax.jit(lambda p, c, k: strategy(toy.logits_fn, p, c, jnp.zeros(rows, jnp.int32), ids, k))
    return jax.tree.map(np.asarray, decode(params, cache, keys))


def test_greedy_takes_the_likeliest_and_pads_behind_eos():
    params = toy.make(12, 3, eos_bias=1.0)
    ids = SpecialIds(eos=1, pad=0, size=10)
    out = run(greedy(9, min_length=2), params, toy.cache(6), ids)
    for row, source in enumerate(toy.cache(6)["source"]):
        model, tokens = toy.Reference(params, source, ids), []
        while len(tokens) < 9 and 1 not in tokens:
            tokens.append(int(np.argmax(model.allowed(tokens, 2))))
        assert out.tokens[row, 0].tolist() == tokens + [0] * (9 - len(tokens))
        assert out.lengths[row, 0] == len(tokens) >= 3
        np.testing.assert_allclose(out.scores[row, 0], model.log_prob(tokens), rtol=1e-5)


def warped(strategy, probs):
    kept = np.asarray(strategy.warp(jnp.log(jnp.asarray([probs], jnp.float32))))[0]
    return np.exp(kept) / np.exp(kept).sum()


def test_top_p_keeps_the_token_that_crosses():
    probs = [0.1, 0.4, 0.3, 0.2]
    np.testing.assert_allclose(warped(Sampling(top_p=0.6), probs), [0, 4 / 7, 3 / 7, 0], rtol=1e-5)
    np.testing.assert_allclose(warped(Sampling(top_p=0.01), probs), [0, 1, 0, 0])
    np.testing.assert_allclose(warped(Sampling(top_p=0.95), probs), probs, rtol=1e-5)


def test_top_k_keeps_ties_with_the_last():
    np.testing.assert_allclose(
        warped(Sampling(top_k=2), [0.5, 0.2, 0.2, 0.1]), [5 / 9, 2 / 9, 2 / 9, 0], rtol=1e-5
    )
    np.testing.assert_allclose(
        warped(Sampling(top_k=99), [0.5, 0.2, 0.2, 0.1]), [0.5, 0.2, 0.2, 0.1], rtol=1e-5
    )


def test_min_p_is_relative_to_the_likeliest():
    np.testing.assert_allclose(
        warped(Sampling(min_p=0.45), [0.5, 0.25, 0.2, 0.05]), [2 / 3, 1 / 3, 0, 0], rtol=1e-5
    )


def test_temperature_comes_before_top_p_and_top_p_before_min_p():
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    hot = probs**0.5 / (probs**0.5).sum()  # 0.377 0.292 0.206 0.119
    # at temperature 1 top_p=0.8 would keep two tokens; heated it keeps three
    expected = np.where(np.arange(4) < 3, hot, 0)
    np.testing.assert_allclose(
        warped(Sampling(temperature=2.0, top_p=0.8), probs), expected / expected.sum(), rtol=1e-5
    )
    # min_p after temperature: 0.206 / 0.377 = 0.55 stays above 0.4; unheated 0.15 / 0.5 = 0.3 would fall
    expected = np.where(np.arange(4) < 3, hot, 0)
    np.testing.assert_allclose(
        warped(Sampling(temperature=2.0, min_p=0.4), probs), expected / expected.sum(), rtol=1e-5
    )


def test_draws_follow_the_distribution():
    rows = 4000
    params, cache = toy.make(6, 1), toy.cache(1)
    many = {k: jnp.repeat(v, rows, axis=0) for k, v in cache.items()}
    strategy = Sampling(max_length=1, temperature=0.7, top_k=4)
    first = run(strategy, params, many).tokens[:, 0, 0]
    log_probs = toy.Reference(params, cache["source"][0], IDS).log_probs([])
    expected = np.where(log_probs >= np.sort(log_probs)[-4], np.exp(log_probs / 0.7), 0)
    expected /= expected.sum()
    counts = np.bincount(first, minlength=6) / rows
    np.testing.assert_allclose(counts, expected, atol=4.5 * np.sqrt(0.25 / rows))


def test_scores_are_the_models_own_whatever_the_warp():
    params, cache = toy.make(8, 4), toy.cache(5)
    out = run(Sampling(max_length=6, temperature=1.7, top_p=0.9), params, cache)
    for row, source in enumerate(cache["source"]):
        tokens = out.tokens[row, 0, : out.lengths[row, 0]].tolist()
        np.testing.assert_allclose(
            out.scores[row, 0], toy.Reference(params, source, IDS).log_prob(tokens), rtol=1e-5
        )


def test_a_row_depends_only_on_its_key():
    params, cache = toy.make(8, 4), toy.cache(5)
    strategy = Sampling(max_length=6)
    whole = run(strategy, params, cache)
    part = run(strategy, params, {k: v[:2] for k, v in cache.items()})
    np.testing.assert_array_equal(part.tokens, whole.tokens[:2])
    other = run(strategy, params, cache, seed=1)
    assert (other.tokens != whole.tokens).any()


def test_ids_beyond_the_tokenizer_never_come():
    params = toy.make(12, 0)
    params["bias"][8:] = 20.0
    out = run(Sampling(max_length=6), params, toy.cache(50), SpecialIds(eos=1, pad=0, size=8))
    assert out.tokens.max() < 8


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 2.0}, {"max_length": 0}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        Sampling(**settings).check()
