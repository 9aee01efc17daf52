"""Layer-wise decay: ELECTRA's exponents and the plain ones, on scanned and unrolled layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.errors import UserError
from t5x_like.models import stack
from t5x_like.training import layerwise
from t5x_like.training.optimizers import AdamW, LayerWise
from t5x_like.training.schedules import Constant

LAYERS = 3


def tree(leaf):
    layers = {
        f"layers_{i}": {"attention": {"kernel": leaf(2, 4)}, "norm": {"scale": leaf(2)}}
        for i in range(LAYERS)
    }
    return {
        "encoder": {
            "embeddings": {"word": {"embedding": leaf(5, 2)}},
            "projection": {"kernel": leaf(2, 2)},
            **layers,
            "pooler": {"kernel": leaf(2, 2)},
        },
        "head": {"kernel": leaf(2, 3)},
    }


PARAMS = tree(lambda *shape: jnp.ones(shape))
AXES = tree(lambda *shape: ("embed", "mlp")[: len(shape)])
SCANNED = stack.stack_layers(PARAMS)
SCANNED_AXES = {**AXES, "encoder": {k: v for k, v in AXES["encoder"].items() if not k.startswith("layers")}}
SCANNED_AXES["encoder"]["layers"] = {
    "attention": {"kernel": ("layers", "embed", "mlp")},
    "norm": {"scale": ("layers", "embed")},
}


@pytest.mark.parametrize(
    ("rule", "embeddings", "layers", "head"), [("electra", 5, (4, 3, 2), 0), ("plain", 4, (3, 2, 1), 0)]
)
def test_exponents_by_hand(rule, embeddings, layers, head):
    found = LayerWise(decay=0.5, rule=rule).factors(PARAMS, AXES)
    wanted = jax.tree.map(lambda _: 0.5**head, PARAMS)
    for name in ("embeddings", "projection"):
        wanted["encoder"][name] = jax.tree.map(lambda _: 0.5**embeddings, PARAMS["encoder"][name])
    for i, power in enumerate(layers):
        wanted["encoder"][f"layers_{i}"] = jax.tree.map(lambda _: 0.5**power, PARAMS["encoder"]["layers_0"])  # noqa: B023
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("rule", ["electra", "plain"])
def test_scanned_layers_take_the_steps_of_unrolled_ones(rule):
    optimizer = LayerWise(optimizer=AdamW(weight_decay=0.1, no_decay=()), decay=0.8, rule=rule)

    def moved(params, axes):
        transformation = optimizer.build(Constant(rate=0.1), axes)
        return jax.jit(transformation.update)(params, transformation.init(params), params)[0]

    unrolled = stack.stack_layers(moved(PARAMS, AXES))
    found = moved(SCANNED, SCANNED_AXES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, unrolled)
    # One step of Adam is 1, decay adds 0.1 of a parameter of 1; both shrink.
    last = 0.8 ** (2 if rule == "electra" else 1)
    np.testing.assert_allclose(found["encoder"]["layers"]["norm"]["scale"][-1], -0.1 * 1.1 * last, rtol=1e-5)
    jax.tree.map(
        lambda leaf, names: np.testing.assert_equal(len(names), leaf.ndim),
        SCANNED,
        optimizer.state_axes(SCANNED_AXES, SCANNED).mu,
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="decay is 0"):
        LayerWise(decay=0.0)
    two = {"encoder": {"layers_0": {"w": ("embed",)}}, "decoder": {"layers_0": {"w": ("embed",)}}}
    with pytest.raises(UserError, match="has 2: decoder, encoder"):
        LayerWise().build(Constant(), two)
    with pytest.raises(UserError, match="has none"):
        LayerWise().build(Constant(), {"w": ("embed",)})
    assert layerwise.LayerWise is LayerWise
