"""AdamW in its published forms, and LAMB, by hand numbers, against slow NumPy and against Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.errors import UserError
from t5x_like.training.adam import AdamW, Lamb, berts, robertas
from t5x_like.training.schedules import Constant

AXES = {"kernel": ("embed", "mlp"), "layer_norm": {"scale": ("embed",), "bias": ("embed",)}}


def draw(seed):
    random = np.random.default_rng(seed)
    tree = {"kernel": (3, 4), "layer_norm": {"scale": (3,), "bias": (3,)}}
    return jax.tree.map(
        lambda s: random.normal(size=s).astype(np.float32), tree, is_leaf=lambda x: isinstance(x, tuple)
    )


def run(optimizer, params, gradients, axes=AXES, rate=0.1):
    """Parameters after these gradients."""
    transformation = optimizer.build(Constant(rate=rate), axes)
    state = transformation.init(params)
    for grads in gradients:
        updates, state = transformation.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def close(found, wanted, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, wanted)


@pytest.mark.parametrize(("corrected", "length"), [(False, 0.1 / 0.001**0.5), (True, 1.0)])
def test_the_first_step_of_a_gradient_of_1(corrected, length):
    optimizer = AdamW(bias_correction=corrected, eps=0.0, weight_decay=0.0)
    found = run(optimizer, {"w": jnp.zeros(1)}, [{"w": jnp.ones(1)}], {"w": ("embed",)}, rate=1.0)
    np.testing.assert_allclose(found["w"], -length, rtol=1e-5)  # 3.162 without correction


def slow(params, gradients, rate, *, decayed, b2=0.999, corrected=False, fairseq=False):
    """Four lines of the original code, a parameter at a time, in float64."""
    flat, tree = jax.tree.flatten(params)
    for i, p in enumerate(flat):
        m, v, p = 0.0, 0.0, np.float64(p)
        for t, grads in enumerate(gradients, start=1):
            g = np.float64(jax.tree.leaves(grads)[i])
            m, v = 0.9 * m + 0.1 * g, b2 * v + (1 - b2) * g * g
            if fairseq:
                p = p - rate * 0.01 * p * decayed[i]
                p = p - rate * np.sqrt(1 - b2**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-6)
            else:
                p = p - rate * (m / (np.sqrt(v) + 1e-6) + 0.01 * p * decayed[i])
        flat[i] = p
    return jax.tree.unflatten(tree, flat)


def test_berts_optimizer_decays_matrices_alone():
    params, gradients = draw(0), [draw(t) for t in (1, 2, 3)]
    close(run(berts(), params, gradients), slow(params, gradients, 0.1, decayed=(1, 0, 0)))
    tables = {"embeddings": {"word": jnp.ones((2, 3))}}
    still = jax.tree.map(jnp.zeros_like, tables)
    moved = run(berts(), tables, [still], {"embeddings": {"word": ("vocab", "embed")}})
    np.testing.assert_allclose(
        moved["embeddings"]["word"], 1 - 0.1 * 0.01, rtol=1e-6
    )  # BERT's embeddings decay


def test_robertas_optimizer_decays_everything_and_corrects_eps():
    params = draw(0)
    gradients = [jax.tree.map(lambda g: g * 1e-6, draw(t)) for t in (1, 2, 3)]  # of the size of eps
    close(
        run(robertas(), params, gradients),
        slow(params, gradients, 0.1, decayed=(1, 1, 1), b2=0.98, fairseq=True),
    )
    usual = AdamW(b2=0.98, eps=1e-6, no_decay=())
    assert (
        np.abs(run(usual, params, gradients)["kernel"] - run(robertas(), params, gradients)["kernel"]).max()
        > 1e-3
    )


def test_lamb_by_hand():
    # One step: m = 0.1 g, v = 0.001 g^2, so m / sqrt(v) = sqrt(10) for any g; ‖w‖ = 5, ‖u‖ = sqrt(2 * 10).
    params = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([3.0, 4.0])}
    axes = {"kernel": ("embed",), "bias": ("embed",)}
    grads = {"kernel": jnp.array([1.0, 7.0]), "bias": jnp.array([1.0, 7.0])}
    found = run(Lamb(eps=0.0, weight_decay=0.0), params, [grads], axes)
    np.testing.assert_allclose(found["kernel"], np.array([3, 4]) - 0.1 * 5 / 20**0.5 * 10**0.5, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], np.array([3, 4]) - 0.1 * 10**0.5, rtol=1e-5)  # not scaled
    decayed = run(Lamb(eps=0.0, weight_decay=0.5), params, [grads], axes)
    u = 10**0.5 + 0.5 * np.array([3, 4])
    np.testing.assert_allclose(
        decayed["kernel"], np.array([3, 4]) - 0.1 * 5 / np.linalg.norm(u) * u, rtol=1e-5
    )


def test_lamb_with_correction_equals_optax():
    params, gradients = draw(0), [draw(t) for t in (1, 2, 3)]
    wanted, transformation = params, optax.lamb(0.1, weight_decay=0.01)
    state = transformation.init(params)
    for grads in gradients:
        updates, state = transformation.update(grads, state, wanted)
        wanted = optax.apply_updates(wanted, updates)
    close(run(Lamb(bias_correction=True, no_decay=()), params, gradients), wanted)


def test_lambs_ratio_is_1_where_a_norm_is_0():
    zero, one = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    axes = {"w": ("embed",)}
    started = run(Lamb(eps=0.0, weight_decay=0.0), zero, [one], axes)
    np.testing.assert_allclose(started["w"], -0.1 * 10**0.5, rtol=1e-5)
    np.testing.assert_array_equal(run(Lamb(weight_decay=0.0), one, [zero], axes)["w"], one["w"])


@pytest.mark.parametrize("position", [0, 1])
def test_lamb_scales_each_of_the_stacked_layers_by_itself(position):
    sizes = (1e-3, 1.0, 30.0)
    params = [draw(s)["kernel"] * size for s, size in enumerate(sizes)]
    gradients = [[draw(10 * t + s)["kernel"] for s in range(3)] for t in range(3)]
    axes = {"w": (*("embed", "mlp")[:position], "layers", *("embed", "mlp")[position:])}
    stacked = run(
        Lamb(), {"w": np.stack(params, position)}, [{"w": np.stack(g, position)} for g in gradients], axes
    )
    for i, p in enumerate(params):
        alone = run(Lamb(), {"w": p}, [{"w": g[i]} for g in gradients], {"w": ("embed", "mlp")})
        np.testing.assert_allclose(np.take(np.asarray(stacked["w"]), i, position), alone["w"], rtol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="b2 is 1"):
        Lamb(b2=1.0)
    with pytest.raises(UserError, match="weight_decay is -1"):
        Lamb(weight_decay=-1.0)
