"""ELECTRA's published sizes, what its two networks share, and where gradients go."""

from __future__ import annotations

import dataclasses
import functools

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.errors import UserError
from t5x_like.models.electra import ELECTRA, Electra, electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.family import Params

SMALL = dataclasses.replace(
    ELECTRA, vocab_size=50, hidden_size=32, embedding_size=12, num_layers=1, num_heads=2, d_ff=24,
    max_positions=20, scan_layers=False,
)  # fmt: skip
TINY = Electra(encoder=SMALL, generator_hidden=0.5)
TIED = Electra(encoder=SMALL, generator_hidden=1.0, sharing="all")
BATCH = draws.encoder_batch(SMALL)
light = functools.partial(jax.jit, compiler_options=draws.LIGHT)
RNGS = {"dropout": jax.random.key(3)}


def size(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def moved(gradient: Params) -> set[str]:
    """The parts of a tree that have a gradient anywhere, two names deep."""
    return {
        f"{part}/{name}"
        for part, inner in gradient.items()
        for name, leaves in inner.items()
        if any(np.asarray(leaf).any() for leaf in jax.tree.leaves(leaves))
    }


# Sizes


@pytest.mark.parametrize(
    ("name", "together", "generator", "encoder", "detector", "shared"),
    [
        ("small-paper", 14_196_219, 4_620_026, 13_483_008, 13_549_057, 3_972_864),
        ("small", 23_122_875, 13_546_682, 13_483_008, 13_549_057, 3_972_864),
        ("base", 119_386_427, 33_740_602, 108_891_648, 109_483_009, 23_837_184),
        ("large", 354_655_291, 51_295_290, 334_092_288, 335_142_913, 31_782_912),
    ],
)
def test_published_parameter_counts(
    name: str, together: int, generator: int, encoder: int, detector: int, shared: int
) -> None:
    model = electra(name)
    model.check()
    params = model.abstract_params()
    assert size(params) == model.num_params() == together
    assert size(model.generator_params(params)) == model.generator.num_params() == generator
    assert size(model.encoder_params(params)) == model.encoder.num_params() == encoder
    assert size(params["discriminator"]) + size(params["shared"]) == detector
    assert size(params["shared"]) == model.encoder.num_embedding_params() == shared


def test_generators_have_the_published_widths() -> None:
    found = {name: electra(name).generator for name in ("small-paper", "small", "base", "large")}
    widths = {name: (g.hidden_size, g.num_heads, g.d_ff, g.num_layers) for name, g in found.items()}
    assert widths == {
        "small-paper": (64, 1, 256, 12), "small": (256, 4, 1024, 12), "base": (256, 4, 1024, 12),
        "large": (256, 4, 1024, 24),
    }  # fmt: skip
    assert [g.embedding_width for g in found.values()] == [128, 128, 768, 1024]
    # 768 * 0.33333 is 255.997: rounded, not cut.
    assert electra("base").generator_hidden == 0.33333
    halved = dataclasses.replace(electra("large"), generator_layers=0.5).generator
    assert (halved.num_layers, halved.hidden_size) == (12, 256)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("head", ["detection", "mlm", "copy"])
@pytest.mark.parametrize("sharing", ["none", "embeddings", "all"])
def test_trees_hold_what_is_documented(sharing: str, head: str, scan: bool) -> None:
    model = variant(sharing, head, scan)
    model.check()
    params = model.abstract_params()
    assert size(params) == model.num_params()
    axes = model.logical_axes()
    is_names = lambda x: isinstance(x, tuple)  # noqa: E731
    assert jax.tree.structure(params) == jax.tree.structure(axes, is_leaf=is_names)
    shared = {"none": set(), "embeddings": {"embeddings"}, "all": {"embeddings", "projection", "layers"}}[
        sharing
    ]
    stack = "layers" if scan else "layers_0"
    everything = {"embeddings", "projection", stack}
    shared = {stack if name == "layers" else name for name in shared}
    heads = {"detection": {"detection"}, "mlm": {"mlm"}, "copy": {"mlm", "copy"}}[head]
    assert set(params.get("shared", {})) == shared
    assert set(params["discriminator"]) == everything - shared | heads
    narrower = {"projection"} if sharing == "none" else set()  # its E is its own D
    assert set(params["generator"]) == everything - shared - narrower | {"mlm"}
    for tree, network in (
        (model.encoder_params(params), model.encoder),
        (model.generator_params(params), model.generator),
    ):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, network.abstract_params())


def variant(sharing: str, head: str, scan: bool = False) -> Electra:
    encoder = dataclasses.replace(SMALL, mlm_head=head != "detection", scan_layers=scan)
    fraction = 1.0 if sharing == "all" else 0.5
    return Electra(
        encoder=encoder, generator_hidden=fraction, sharing=sharing,
        head="detection" if head == "detection" else "mlm", copy=head == "copy",
    )  # fmt: skip


@pytest.mark.parametrize("sharing", ["embeddings", pytest.param("all", marks=pytest.mark.slow)])
def test_initial_values(sharing: str) -> None:
    """Glorot-uniform where the original names no initialiser (projection, output of the detector), else cut normal."""
    model = TINY if sharing == "embeddings" else TIED
    params = model.init(jax.random.key(0))
    discriminator, generator = model.encoder_params(params), model.generator_params(params)
    assert 0.07 < np.abs(discriminator["projection"]["kernel"]).max() <= (6 / (12 + 32)) ** 0.5
    detector = params["discriminator"]["detection"]
    assert 0.07 < np.abs(detector["out"]["kernel"]).max() <= (6 / (32 + 1)) ** 0.5
    for leaf in (detector["dense"]["kernel"], generator["mlm"]["dense"]["kernel"]):
        assert 0.03 < np.abs(leaf).max() <= 0.04 + 1e-7
    kernels = [tree["layers_0"]["mlp"]["wi"]["kernel"] for tree in (discriminator, generator)]
    alike = kernels[0].shape == kernels[1].shape and bool((kernels[0] == kernels[1]).all())
    assert alike == (sharing == "all")


# Forward


@pytest.fixture(scope="module")
def params() -> Params:
    return draws.params(TINY)


def test_parts_are_the_encoders(params: Params) -> None:
    """Each network with the shared parameters put back is a plain encoder, and computes the same."""
    one = light(TINY.generator_logits)(params, BATCH)
    own = TINY.generator_params(params)
    np.testing.assert_allclose(one, light(TINY.generator.apply)(own, BATCH)["mlm_logits"], rtol=1e-5)
    out = light(TINY.apply)(params, BATCH)
    assert out["detection_logits"].shape == BATCH["encoder_input_tokens"].shape
    assert out["detection_logits"].dtype == jnp.float32
    hidden = light(TINY.encoder.apply)(TINY.encoder_params(params), BATCH)["hidden"]
    np.testing.assert_allclose(out["hidden"], hidden, rtol=1e-4, atol=1e-5)
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["discriminator"]["detection"])
    y = np.asarray(hidden, np.float64) @ w["dense"]["kernel"] + w["dense"]["bias"]
    y = np.asarray(jax.nn.gelu(y, approximate=False)) @ w["out"]["kernel"] + w["out"]["bias"]
    np.testing.assert_allclose(out["detection_logits"], y[..., 0], rtol=1e-4, atol=1e-4)


def test_networks_drop_apart_and_follow_the_key(params: Params) -> None:
    tied = draws.params(TIED)
    tokens, types = BATCH["encoder_input_tokens"], BATCH["encoder_token_types"]

    @light
    def both(rngs: dict) -> tuple[jax.Array, jax.Array]:
        head = TIED.generator.mlm_logits
        own = TIED.generator_params(tied)
        hidden = TIED.discriminate(tied, tokens, types, rngs)
        return TIED.generator_logits(tied, {**BATCH, "masked_positions": PLACES}, rngs), head(own, hidden)

    PLACES = np.tile(np.arange(12, dtype=np.int32), (3, 1))
    one, other = both(RNGS)
    assert np.abs(one - other).max() > 0.1  # one network, two streams of masks
    np.testing.assert_array_equal(one, both(RNGS)[0])
    assert np.abs(one - both({"dropout": jax.random.key(4)})[0]).max() > 0.1


@pytest.mark.parametrize(
    "sharing", ["embeddings", *(pytest.param(s, marks=pytest.mark.slow) for s in ("none", "all"))]
)
def test_detection_reaches_the_generator_through_what_is_shared_alone(sharing: str) -> None:
    """The gradient of the discriminator's loss is exactly zero in whatever only the generator has, and the other way
    round; samples carry none."""
    model = variant(sharing, "detection")
    weights = draws.params(model)

    @functools.partial(light, static_argnums=1)
    def gradient(params: Params, of: str) -> Params:
        def loss(params: Params) -> jax.Array:
            logits = model.generator_logits(params, BATCH)
            if of == "generator":
                return jnp.sum(jnp.sin(logits))
            tokens, places = BATCH["encoder_input_tokens"], BATCH["masked_positions"]
            rows = jnp.arange(len(places))[:, None]
            corrupted = jnp.asarray(tokens).at[rows, places].set(jnp.argmax(logits, -1).astype(jnp.int32))
            hidden = model.discriminate(params, corrupted, BATCH["encoder_token_types"])
            return jnp.sum(jnp.sin(model.detection_logits(params, hidden)))

        return jax.grad(loss)(params)

    shared = {f"shared/{name}" for name in weights.get("shared", {})}
    only = {part: {f"{part}/{name}" for name in weights[part]} for part in ("generator", "discriminator")}
    assert moved(gradient(weights, "discriminator")) == shared | only["discriminator"]
    assert moved(gradient(weights, "generator")) == shared | only["generator"]


def test_copying_mixes_the_token_and_the_softmax() -> None:
    model = variant("embeddings", "copy")
    weights = draws.params(model)
    hidden = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    tokens = np.array([[4, 5, 6], [7, 8, 9]])
    targets = np.array([[4, 5, 1], [2, 8, 3]])
    found = light(model.original_log_probs)(weights, hidden, tokens, targets)
    logits = np.asarray(model.mlm_logits(weights, hidden), np.float64)
    softmax = np.exp(logits - logits.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    w = weights["discriminator"]["copy"]
    copy = 1 / (1 + np.exp(-(hidden @ np.asarray(w["kernel"]) + np.asarray(w["bias"]))))
    whole = (1 - copy) * softmax + copy * np.eye(50)[tokens]
    np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-6)
    expected = np.log(np.take_along_axis(whole, targets[..., None], -1))[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def loss(hidden: jax.Array) -> jax.Array:
        return jnp.sum(model.original_log_probs(weights, hidden, tokens, targets))

    assert np.isfinite(light(jax.grad(loss))(hidden)).all()


def test_flops() -> None:
    """Both networks, the generator's vocabulary at K places, the detector at all T; per head of the ablations."""
    model, shapes = electra("small-paper"), {"encoder_input_tokens": (128,), "masked_positions": (19,)}

    def stack(d: int, f: int) -> int:
        return 128 * (2 * 128 * d + 12 * (8 * d * d + 4 * 128 * d + 4 * d * f))

    generator = stack(64, 256) + 19 * 2 * 128 * (64 + 30522)
    detector = 128 * 2 * (256 * 256 + 256)
    assert model.flops(shapes) == generator + stack(256, 1024) + detector
    encoder = dataclasses.replace(model.encoder, mlm_head=True)
    replace = dataclasses.replace(model, encoder=encoder, head="mlm")
    head = 2 * 128 * (256 + 30522)
    assert replace.flops(shapes) == generator + stack(256, 1024) + 19 * head
    everywhere = dataclasses.replace(replace, copy=True)
    assert everywhere.flops(shapes) == generator + stack(256, 1024) + 128 * (head + 2 * 256)


# Refusals


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        ({"generator_hidden": 0.0}, "generator_hidden", r"must lie in \(0, 1\], not 0.0"),
        ({"generator_hidden": 1.5}, "generator_hidden", r"must lie in \(0, 1\], not 1.5"),
        ({"generator_layers": 0.01}, "generator_hidden", "generator that .* cannot be: model.num_layers must be at"),
        ({"sharing": "all"}, "generator_hidden", "one network in both roles"),
        ({"head": "mlm"}, "encoder.mlm_head", "is False and model.head 'mlm'"),
        ({"copy": True}, "copy", "needs the head 'mlm'"),
        ({"encoder": dataclasses.replace(SMALL, pair_head=True)}, "encoder.pair_head", "no such head"),
        ({"encoder": dataclasses.replace(SMALL, vocab_size=0)}, "encoder.vocab_size", "model.encoder.vocab_size must"),
        ({"encoder": dataclasses.replace(SMALL, hidden_size=400, num_heads=2)}, "generator_hidden", "multiple of num_"),
    ],
)  # fmt: skip
def test_impossible_models_are_refused(change: dict, where: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        dataclasses.replace(TINY, **change).check()
    assert caught.value.where == f"model.{where}"


def test_missing_heads_and_unknown_sizes_are_refused(params: Params) -> None:
    hidden = jnp.zeros((1, 3, 32))
    for model, method, arguments in (
        (variant("embeddings", "mlm"), "detection_logits", (hidden,)),
        (TINY, "mlm_logits", (hidden,)),
        (TINY, "original_log_probs", (hidden, None, None)),
    ):
        with pytest.raises(UserError):
            getattr(model, method)(params, *arguments)
    with pytest.raises(UserError, match="'smal'") as caught:
        electra("smal")
    assert caught.value.help == "did you mean small?"


def test_a_plain_encoder_is_what_is_kept() -> None:
    assert isinstance(TINY.encoder, Encoder)
    assert (TINY.kind, TINY.pad_id, TINY.vocab_size, TINY.max_length) == (
        "generator-discriminator",
        0,
        50,
        20,
    )
