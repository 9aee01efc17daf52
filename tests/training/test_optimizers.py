"""Adafactor and AdamW against slow NumPy and against Optax; stacked layers; state shardings; Optax by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_like.errors import UserError
from t5x_like.training import optimizers
from t5x_like.training.adafactor import Factored
from t5x_like.training.optimizers import Adafactor, AdamW, Optax
from t5x_like.training.schedules import Constant, Linear, Rsqrt

SHAPES = {
    "wide": ((128, 256), ("embed", "mlp")),  # factored, row = dimension 0
    "tall": ((256, 128), ("vocab", "embed")),  # factored, row = dimension 1
    "square": ((128, 128), ("embed", "heads")),
    "small": ((127, 256), ("embed", "mlp")),  # one dimension below 128: not factored
    "scale": ((128,), ("embed",)),
}
AXES = {name: axes for name, (_, axes) in SHAPES.items()}


def draw(seed, scale=1.0):
    random = np.random.default_rng(seed)
    return {n: (random.normal(size=s) * scale).astype(np.float32) for n, (s, _) in SHAPES.items()}


def run(transformation, params, gradients):
    """Parameters after these gradients."""
    state = transformation.init(params)

    @jax.jit
    def one(params, state, grads):
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for grads in gradients:
        params, state = one(params, state, grads)
    return params, state


def slow_adafactor(params, gradients, rate, weight_decay=0.0):
    """Shazeer and Stern 2018, algorithms 4 and 5, in float64 with explicit loops over parameters and steps."""
    params = {n: p.astype(np.float64) for n, p in params.items()}
    moments = {}
    for t, grads in enumerate(gradients, start=1):
        beta = 1.0 - t**-0.8
        for name, p in params.items():
            g = grads[name].astype(np.float64)
            squared = g * g + 1e-30
            if p.ndim == 2 and min(p.shape) >= 128:
                r, c = moments.get(name, (0.0, 0.0))
                r = beta * r + (1 - beta) * squared.sum(axis=1)
                c = beta * c + (1 - beta) * squared.sum(axis=0)
                moments[name] = (r, c)
                estimate = np.outer(r, c) / r.sum()
            else:
                estimate = beta * moments.get(name, 0.0) + (1 - beta) * squared
                moments[name] = estimate
            u = g / np.sqrt(estimate)
            u = u / max(1.0, np.sqrt(np.mean(u * u)))
            alpha = max(1e-3, np.sqrt(np.mean(p * p))) * rate(t - 1)
            params[name] = (1 - weight_decay) * p - alpha * u
    return params


def test_adafactor_equals_a_slow_derivation():
    params = draw(0, 0.05) | {"scale": np.full(128, 1e-5, np.float32)}  # below the least scale of 1e-3
    # The fourth gradient is ten times larger, so that clipping of the update works.
    gradients = [draw(t, 1e-3 * (10 if t == 4 else 1)) for t in range(1, 6)]
    found, _ = run(Adafactor().build(Rsqrt(warmup=2), AXES), params, gradients)
    wanted = slow_adafactor(params, gradients, lambda t: max(t, 2) ** -0.5)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=1e-7, err_msg=name)


def test_adafactor_weight_decay_is_a_share_of_the_parameter():
    params, gradients = {"wide": draw(0)["wide"]}, [draw(1), draw(2)]
    transformation = Adafactor(weight_decay=0.01).build(Constant(rate=0.1), {"wide": AXES["wide"]})
    found, _ = run(transformation, params, [{"wide": g["wide"]} for g in gradients])
    wanted = slow_adafactor(params, gradients, lambda t: 0.1, weight_decay=0.01)
    np.testing.assert_allclose(found["wide"], wanted["wide"], rtol=2e-5, atol=1e-7)


def test_adafactor_equals_optax_on_plain_matrices():
    params, gradients = draw(0, 0.05), [draw(t, 1e-2) for t in range(1, 4)]
    schedule = Rsqrt()
    found, _ = run(Adafactor().build(schedule, AXES), params, gradients)
    wanted, _ = run(optax.adafactor(schedule), params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_adafactor_state_is_factored_by_rows_and_columns():
    state = jax.eval_shape(Adafactor().build(Constant(), AXES).init, draw(0))
    assert state.moments["wide"].row.shape == (128,) and state.moments["wide"].column.shape == (256,)
    assert state.moments["tall"].row.shape == (128,) and state.moments["tall"].column.shape == (256,)
    assert state.moments["small"].shape == (127, 256) and state.moments["scale"].shape == (128,)
    unfactored = jax.eval_shape(Adafactor(factored=False).build(Constant(), AXES).init, draw(0))
    assert unfactored.moments["wide"].shape == (128, 256)


@pytest.mark.parametrize("position", [0, 1])
def test_stacked_layers_take_the_steps_of_separate_ones(position):
    # Layers of very different size: sharing factors, scale or clipping between them would show at once.
    sizes = (1e-4, 1.0, 30.0)
    names = ("wide", "small", "scale")
    params = [{n: draw(s)[n] * size for n in names} for s, size in enumerate(sizes)]
    gradients = [
        [{n: draw(10 * t + s)[n] * size for n in names} for s, size in enumerate(sizes)] for t in range(3)
    ]

    def stack(layers):
        return {n: np.stack([layer[n] for layer in layers], min(position, layers[0][n].ndim)) for n in names}

    axes = {n: (*AXES[n][:position], "layers", *AXES[n][position:]) for n in names}
    found, state = run(
        Adafactor().build(Constant(rate=0.1), axes), stack(params), [stack(g) for g in gradients]
    )
    assert isinstance(state.moments["wide"], Factored) and not isinstance(state.moments["small"], Factored)
    plain = Adafactor().build(Constant(rate=0.1), {n: AXES[n] for n in names})
    separate = [run(plain, p, [g[s] for g in gradients])[0] for s, p in enumerate(params)]
    for i, (size, wanted) in enumerate(zip(sizes, separate)):
        for name in names:
            layer = np.take(jax.device_get(found[name]), i, min(position, len(SHAPES[name][0])))
            np.testing.assert_allclose(layer / size, wanted[name] / size, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_optax(decay):
    params, gradients = draw(0), [draw(t, 1e-2) for t in range(1, 5)]
    schedule = Linear(peak=1e-2, warmup=2, steps=10)
    found, _ = run(AdamW(weight_decay=decay).build(schedule, AXES), params, gradients)
    mask = {name: name != "scale" for name in SHAPES}
    wanted, _ = run(optax.adamw(schedule, weight_decay=decay, mask=mask), params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_adamw_without_bias_correction_is_berts():
    params, grads = {"w": np.ones(3, np.float32)}, {"w": np.array([0.1, -2.0, 5.0], np.float32)}
    optimizer = AdamW(bias_correction=False, eps=1e-6, weight_decay=0.01)
    found, _ = run(optimizer.build(Constant(rate=0.1), {"w": ("embed",)}), params, [grads])
    m, v = 0.1 * grads["w"], 0.001 * grads["w"] ** 2
    np.testing.assert_allclose(found["w"], 1 - 0.1 * (m / (np.sqrt(v) + 1e-6) + 0.01), rtol=1e-5)


@pytest.mark.parametrize("name", optimizers._OPTAX)
def test_every_optax_name_trains_and_places_its_state(name):
    params = {"w": jnp.ones((8, 4)), "norm": {"scale": jnp.ones(8)}}
    axes = {"w": ("embed", "mlp"), "norm": {"scale": ("embed",)}}
    optimizer = Optax(name=name)
    transformation = optimizer.build(Constant(rate=0.1), axes)
    updates, state = transformation.update(params, transformation.init(params), params)
    updates, state = transformation.update(params, state, params)
    assert np.all(np.isfinite(updates["w"])) and np.any(updates["w"] != 0)
    names = optimizer.state_axes(axes, params)
    jax.tree.map(lambda leaf, found: np.testing.assert_equal(len(found), np.ndim(leaf)), state, names)


def test_optax_masks_weight_decay_and_takes_arguments():
    params = {"w": jnp.ones(4), "norm": {"scale": jnp.ones(4)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    transformation = Optax(name="lion", arguments={"weight_decay": 0.5}).build(Constant(rate=1.0), params)
    updates, _ = transformation.update(zeros, transformation.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.5)
    np.testing.assert_allclose(updates["norm"]["scale"], 0.0)


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(UserError, match="no optimizer") as refusal:
        Optax(name="lionn")
    assert "did you mean lion?" in str(refusal.value)
    for name in ("clip", "apply_updates", "scale_by_adam", "lbfgs", "contrib", "__doc__"):
        with pytest.raises(UserError, match="no optimizer"):
            Optax(name=name)
    with pytest.raises(UserError, match="no argument 'beta1'") as refusal:
        Optax(name="adam", arguments={"beta1": 0.5})
    assert "help" in str(refusal.value)
    with pytest.raises(UserError, match="comes from the schedule"):
        Optax(name="sgd", arguments={"learning_rate": 0.5})
    with pytest.raises(UserError, match="b1 is 1"):
        AdamW(b1=1.0)
    with pytest.raises(UserError, match="clip_rms"):
        Adafactor(clip_rms=0.0)
