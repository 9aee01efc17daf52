"""The device half: values and gradients against naive formulas, sums, dtypes, jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.objectives.losses import softmax_losses
from t5x_like.objectives.prefix_lm import LanguageModel

B, T, V = 3, 5, 17


@pytest.fixture
def case() -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)
    weights = jnp.asarray(np.array([[1, 1, 1, 0, 0], [1] * 5, [0.5, 0, 2, 0, 0]], np.float32))
    return 4 * jax.random.normal(keys[0], (B, T, V)), jax.random.randint(keys[1], (B, T), 0, V), weights


def naive(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, z_loss: float, smoothing: float
) -> jax.Array:
    """With one-hot targets, term by term, as t5x/losses.py defines it."""
    confidence, rest = 1 - smoothing, smoothing / (V - 1)
    soft = jnp.where(jax.nn.one_hot(targets, V) > 0, confidence, rest)
    entropy = -(confidence * np.log(confidence) + (V - 1) * rest * np.log(rest + 1e-20))
    ce = -jnp.sum(soft * jnp.log(jax.nn.softmax(logits)), -1) - entropy
    z = z_loss * jnp.log(jnp.sum(jnp.exp(logits), -1)) ** 2
    return jnp.sum((ce + z) * weights)


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient_are_those_of_the_definition(case, z_loss: float, smoothing: float) -> None:
    logits, targets, weights = case

    @jax.jit
    def ours(logits: jax.Array) -> jax.Array:
        return softmax_losses(logits, targets, weights, z_loss=z_loss, t5x_label_smoothing=smoothing)["loss"][
            0
        ]

    want, want_gradient = jax.value_and_grad(naive)(logits, targets, weights, z_loss, smoothing)
    got, gradient = jax.value_and_grad(ours)(logits)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)
    assert not gradient[0, 3:].any()  # weight 0: nothing


def test_parts_add_up_and_share_one_weight(case) -> None:
    logits, targets, weights = case
    losses = softmax_losses(logits, targets, weights, z_loss=0.1)
    np.testing.assert_allclose(losses["loss"][0], losses["cross_entropy"][0] + losses["z_loss"][0], rtol=1e-6)
    assert {float(weight) for _, weight in losses.values()} == {10.5}
    smoothed = softmax_losses(logits, targets, weights, z_loss=0.1, t5x_label_smoothing=0.2)
    assert (
        smoothed["cross_entropy"][0] == losses["cross_entropy"][0]
        and smoothed["loss"][0] != losses["loss"][0]
    )


def test_accuracy(case) -> None:
    logits, _, weights = case
    right, weight = softmax_losses(logits, jnp.argmax(logits, -1), weights)["accuracy"]
    assert right == weight
    assert softmax_losses(logits, jnp.argmin(logits, -1), weights)["accuracy"][0] == 0


def test_smoothed_loss_is_zero_at_its_own_distribution() -> None:
    best = jnp.log(jnp.where(jnp.arange(V) == 3, 0.9, 0.1 / (V - 1)))[None]
    loss, _ = softmax_losses(best, jnp.array([3]), jnp.ones(1), t5x_label_smoothing=0.1)["loss"]
    assert abs(loss) < 1e-6


def test_float32_whatever_the_logits(case) -> None:
    logits, targets, weights = case
    half = logits.astype(jnp.bfloat16)
    losses, exact = (
        softmax_losses(half, targets, weights),
        softmax_losses(half.astype(jnp.float32), targets, weights),
    )
    for name, (value, weight) in losses.items():
        assert value.dtype == weight.dtype == jnp.float32
        assert value == exact[name][0]


def test_large_logits_stay_finite() -> None:
    logits = jnp.array([[1e4, -1e4, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: softmax_losses(x, jnp.array([1]), jnp.ones(1))["loss"][0])(
        logits
    )
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[1, -1, 0]])


def test_sums_of_microbatches_are_the_sum_of_the_batch(case) -> None:
    logits, targets, weights = case
    whole = softmax_losses(logits, targets, weights, z_loss=1e-3)
    rows = [softmax_losses(logits[i], targets[i], weights[i], z_loss=1e-3) for i in range(B)]
    for name, pair in whole.items():
        np.testing.assert_allclose(pair, np.sum([row[name] for row in rows], axis=0), rtol=1e-5)


def test_the_objective_asks_the_model_and_passes_its_fields_on(case) -> None:
    logits, targets, weights = case
    seen = {}

    class Model:
        def apply(self, params: jax.Array, batch: dict, rngs: dict | None) -> jax.Array:
            seen.update(batch=batch, rngs=rngs)
            return logits * params

    batch = {"decoder_target_tokens": targets, "decoder_loss_weights": weights}
    objective = LanguageModel(z_loss=0.01, label_smoothing=0.1)
    losses = objective.loss(Model(), jnp.float32(1), batch, {"dropout": jax.random.key(1)})
    assert seen["batch"] is batch and set(seen["rngs"]) == {"dropout"}
    np.testing.assert_allclose(losses["loss"][0], naive(logits, targets, weights, 0.01, 0.1), rtol=1e-5)
