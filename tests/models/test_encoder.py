"""The post-LN encoder against its formula, and arrangements that must not change its numbers."""

from __future__ import annotations

import dataclasses
import functools
import math

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from t5x_like.errors import UserError
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_network import EncoderNetwork
from t5x_like.models.family import Params
from t5x_like.models.sharding import logical_rules
from t5x_like.models.stack import stack_layers, unstack_layers

TINY = Encoder(
    vocab_size=50, hidden_size=16, embedding_size=12, num_layers=2, num_heads=2, d_ff=24, max_positions=20,
    dropout=0.2, attention_dropout=0.2, scan_layers=False,
)  # fmt: skip
BATCH = draws.encoder_batch(TINY)
RNGS = {"dropout": jax.random.key(3)}


light = functools.partial(jax.jit, compiler_options=draws.LIGHT)


@functools.partial(light, static_argnums=0)
def apply(model: Encoder, params: Params, batch: dict, rngs: dict | None = None) -> dict[str, jax.Array]:
    return model.apply(params, batch, rngs)


def close(one: object, other: object, within: float = 1e-5) -> None:
    """Leaf by leaf, the largest difference over the largest magnitude."""

    def compare(a: jax.Array, b: jax.Array) -> None:
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= within * np.abs(np.asarray(b)).max()

    jax.tree.map(compare, one, other)


# The formula


def in_numpy(model: Encoder, params: Params, batch: dict) -> dict[str, np.ndarray]:
    """The paper's encoder in float64, one row after another, without what is padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    heads, erf = model.num_heads, np.vectorize(math.erf)

    def dense(x, w):
        return x @ w["kernel"] + w["bias"]

    def norm(x, w):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + model.eps) * w["scale"] + w["bias"]

    def activation(x):
        if model.activation == "relu":
            return np.maximum(x, 0)
        if model.activation == "gelu":
            return 0.5 * x * (1 + erf(x / 2**0.5))
        return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))

    rows, tables = [], p["embeddings"]
    for tokens, types, picked in zip(
        batch["encoder_input_tokens"], batch["encoder_token_types"], batch["masked_positions"]
    ):
        real = (tokens != model.pad_id).sum()
        places = np.arange(real) + model.position_offset
        x = tables["word"]["embedding"][tokens[:real]] + tables["position"]["embedding"][places]
        if model.token_types:
            x = x + tables["token_type"]["embedding"][types[:real] if model.token_types > 1 else 0]
        x = norm(x, tables["norm"])
        if model.embedding_width != model.hidden_size:
            x = dense(x, p["projection"])
        for index in range(model.num_layers):
            w = p[f"layers_{index}"]
            q, k, v = (
                dense(x, w["attention"][name]).reshape(real, heads, -1).swapaxes(0, 1)
                for name in ("query", "key", "value")
            )
            weights = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
            y = weights / weights.sum(-1, keepdims=True) @ v
            y = dense(y.swapaxes(0, 1).reshape(real, -1), w["attention"]["out"])
            x = norm(x + y, w["attention_norm"])
            x = norm(x + dense(activation(dense(x, w["mlp"]["wi"])), w["mlp"]["wo"]), w["mlp_norm"])
        out = {"hidden": x}
        if model.mlm_head:
            y = norm(activation(dense(x[picked], p["mlm"]["dense"])), p["mlm"]["norm"])
            out["mlm_logits"] = y @ tables["word"]["embedding"].T + p["mlm"]["bias"]
        if model.pair_head:
            pooled = np.tanh(dense(x[0], p["pooler"])) if model.pooler == "tanh" else x[0]
            out["pair_logits"] = dense(pooled, p["pair"])
        rows.append(out)
    return rows


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"activation": "gelu", "embedding_size": None, "token_types": 0, "eps": 1e-3, "pooler": "first"},
        {"activation": "relu", "position_offset": 2, "token_types": 1, "pad_id": 7, "num_heads": 4},
    ],
    ids=["factorised", "plain", "offset"],
)
def test_forward_is_the_formula(change: dict) -> None:
    model = dataclasses.replace(TINY, **change)
    model.check()
    params, batch = draws.params(model), draws.encoder_batch(model)
    found, expected = apply(model, params, batch), in_numpy(model, params, batch)
    for row, wanted in enumerate(expected):
        real = len(wanted["hidden"])
        close(found["hidden"][row, :real], wanted["hidden"], 1e-5)
        close(found["mlm_logits"][row], wanted["mlm_logits"], 1e-5)
        close(found["pair_logits"][row], wanted["pair_logits"], 1e-5)


def test_positions_count_tokens_that_are_not_padding_wherever_it_stands() -> None:
    """fairseq `make_positions`: cumsum(tok != pad) * (tok != pad) + 1 with the offset 2."""
    model = dataclasses.replace(
        TINY, position_offset=2, pad_id=1, num_layers=1, embedding_size=None, token_types=0
    )
    params = draws.params(model)
    tokens = np.array([[5, 1, 6, 7, 1, 1, 8]])
    found = EncoderNetwork(model).apply(
        {"params": params}, tokens, None, method=lambda m, *a: m.embeddings(*a)
    )
    table = params["embeddings"]
    x = table["word"]["embedding"][tokens] + table["position"]["embedding"][np.array([[2, 1, 3, 4, 1, 1, 5]])]
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + model.eps)
    close(found, x * table["norm"]["scale"] + table["norm"]["bias"])


# Parameters


def test_layouts_hold_the_same_parameters() -> None:
    sizes = {
        "vocab": 50, "positions": 20, "token_types": 2, "heads": 16, "mlp": 24, "layers": 2, "pooled": 16,
        "classes": 2, "embedding": 12, "embed": (16, 12),
    }  # fmt: skip

    def check(names: tuple[str, ...], leaf: jax.ShapeDtypeStruct) -> None:
        assert len(names) == leaf.ndim and leaf.dtype == jnp.float32
        for name, size in zip(names, leaf.shape):
            assert size in np.atleast_1d(sizes[name]), (names, leaf.shape)

    for scan in (True, False):
        model = dataclasses.replace(TINY, scan_layers=scan)
        shapes = model.abstract_params()
        jax.tree.map(check, model.logical_axes(), shapes, is_leaf=lambda x: isinstance(x, tuple))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == model.num_params()


WIDER = dataclasses.replace(
    TINY, hidden_size=64, d_ff=128, embedding_size=48, vocab_size=300, glorot_projection=True
)


@pytest.fixture(scope="module")
def drawn() -> Params:
    return WIDER.init(jax.random.key(0))


@pytest.mark.slow
def test_initial_values_are_alike_in_both_layouts(drawn: Params) -> None:
    stacked = dataclasses.replace(WIDER, scan_layers=True).init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, drawn, unstack_layers(stacked))


def test_initial_values_are_cut_at_two_deviations_and_not_rescaled(drawn: Params) -> None:
    """TensorFlow's truncated normal: the standard deviation comes to 0.88 of its parameter."""
    for path, leaf in jax.tree.leaves_with_path(drawn):
        names, values = [key.key for key in path], np.asarray(leaf)
        if names[-1] in ("bias", "scale"):
            assert (values == (names[-1] == "scale")).all(), names
        elif names[0] == "projection":  # Glorot: uniform within sqrt(6 / (fan in + fan out))
            bound = (6 / (48 + 64)) ** 0.5
            assert 0.95 * bound < np.abs(values).max() <= bound
        else:
            assert np.abs(values).max() <= 0.04 + 1e-7, names
            error = 5 * (2 * values.size) ** -0.5
            assert abs(values.std() / (0.02 * 0.87962566) - 1) < error, names
    layers = [np.asarray(drawn[f"layers_{i}"]["attention"]["query"]["kernel"]) for i in range(2)]
    assert np.abs(layers[0] - layers[1]).max() > 0.01


def test_rows_of_padding_start_and_stay_at_zero() -> None:
    model = dataclasses.replace(
        TINY, num_layers=1, zero_pad_rows=True, position_offset=2, pad_id=7, truncated_init=False, mlm_head=False,
        pair_head=False,
    )  # fmt: skip
    params, batch = model.init(jax.random.key(0)), draws.encoder_batch(model)
    real = batch["encoder_input_tokens"] != 7
    tables = params["embeddings"]
    assert np.abs(tables["word"]["embedding"]).max() > 0.05  # beyond two deviations: normal, not cut
    gradient = jax.jit(
        jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, batch)["hidden"]) * real[..., None]))
    )
    moved = gradient(params)["embeddings"]
    for table, row in (("word", 7), ("position", 1)):
        assert not np.asarray(tables[table]["embedding"])[row].any()
        assert np.asarray(tables[table]["embedding"])[row - 1].any()
        assert not np.asarray(moved[table]["embedding"])[row].any()
    assert np.asarray(moved["position"]["embedding"])[2].any()


# Arrangements that must not change numbers


def test_scanned_equals_unrolled() -> None:
    """With dropout: layer i has the same masks in both."""
    params = draws.params(TINY)
    scanned = dataclasses.replace(TINY, scan_layers=True)
    close(apply(scanned, stack_layers(params), BATCH, RNGS), apply(TINY, params, BATCH, RNGS))


def test_padding_does_not_matter() -> None:
    params = draws.params(TINY)
    one, real = apply(TINY, params, BATCH), BATCH["encoder_input_tokens"] != 0
    longer = {
        name: np.pad(x, ((0, 0), (0, 5 * ("positions" not in name))), constant_values=0)
        for name, x in BATCH.items()
    }
    other = apply(TINY, params, longer)
    close(other["hidden"][:, : real.shape[1]][real], one["hidden"][real])
    close(other["mlm_logits"], one["mlm_logits"])
    types = np.where(real, BATCH["encoder_token_types"], 1)
    close(apply(TINY, params, {**BATCH, "encoder_token_types": types})["mlm_logits"], one["mlm_logits"])


def test_missing_token_types_are_zeros() -> None:
    params = draws.params(TINY)
    without = {name: x for name, x in BATCH.items() if name != "encoder_token_types"}
    zeros = {**BATCH, "encoder_token_types": np.zeros_like(BATCH["encoder_token_types"])}
    close(apply(TINY, params, without), apply(TINY, params, zeros))
    assert np.abs(apply(TINY, params, without)["hidden"] - apply(TINY, params, BATCH)["hidden"]).max() > 0.1


def test_picked_logits_are_those_of_all_places() -> None:
    """In value, and in the gradient of every parameter."""
    model = dataclasses.replace(TINY, num_layers=1, pair_head=False)
    params, positions = draws.params(model), BATCH["masked_positions"]
    everywhere = {name: x for name, x in BATCH.items() if name != "masked_positions"}

    def total(params: Params, picked: bool) -> tuple[jax.Array, jax.Array]:
        logits = model.apply(params, BATCH if picked else everywhere)["mlm_logits"]
        if not picked:
            logits = jnp.take_along_axis(logits, positions[..., None], axis=1)
        return jnp.sum(jnp.sin(logits)), logits

    gradient = light(jax.grad(total, has_aux=True), static_argnums=1)
    (one, logits), (other, expected) = gradient(params, True), gradient(params, False)
    close(logits, expected)
    used = [{k: v for k, v in tree.items() if k != "pooler"} for tree in (one, other)]
    for path, leaf in jax.tree.leaves_with_path(used[0]):
        if path[-2].key == "key" and path[-1].key == "bias":
            continue  # exactly zero in arithmetic without rounding: a softmax does not see it
        expected = functools.reduce(lambda tree, key: tree[key.key], path, used[1])
        close(leaf, expected, 1e-4)


@pytest.mark.slow
def test_remat_changes_no_gradient() -> None:
    params = draws.params(TINY)

    def gradient(remat: str) -> Params:
        model = dataclasses.replace(TINY, remat=remat)
        return light(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, BATCH, RNGS)["mlm_logits"]))))(params)

    plain = gradient("none")
    for remat in ("attention", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-4),
            gradient(remat),
            plain,
        )


def test_a_mesh_changes_nothing() -> None:
    """Logits, and the gradient of the table that is looked up, multiplied with and partitioned."""
    model = dataclasses.replace(TINY, num_layers=1)
    params, batch = draws.params(model), draws.encoder_batch(model, rows=4)

    def total(params: Params) -> tuple[jax.Array, dict]:
        out = model.apply(params, batch, RNGS)
        return jnp.sum(jnp.sin(out["mlm_logits"])), out

    def step(params: Params) -> tuple[jax.Array, dict]:
        gradient, out = jax.grad(total, has_aux=True)(params)
        return gradient["embeddings"]["word"]["embedding"], out

    alone, expected = light(step)(params)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    rules = (("batch", ("data", "fsdp")), ("vocab", "tensor"), ("mlp", "tensor"), ("heads", "tensor"))
    with logical_rules(mesh, rules):
        spread, out = light(lambda params: step(params))(params)  # not the compiled step of one device
    assert not out["mlm_logits"].sharding.is_fully_replicated
    close(out, expected)
    close(spread, alone, 1e-4)


def test_bfloat16_computes_there_and_answers_in_float32() -> None:
    params = draws.params(TINY)
    model = dataclasses.replace(TINY, dtype="bfloat16")
    out, exact = apply(model, params, BATCH), apply(TINY, params, BATCH)
    assert out["hidden"].dtype == jnp.bfloat16
    for name in ("mlm_logits", "pair_logits"):
        assert out[name].dtype == jnp.float32
        error = np.abs(out[name] - exact[name]).max() / np.abs(exact[name]).max()
        assert 1e-5 < error < 0.1
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model.abstract_params()))
    text = jax.jit(model.apply).lower(params, BATCH).as_text()
    for operation in ("stablehlo.exponential", "stablehlo.rsqrt"):
        lines = [line for line in text.splitlines() if operation in line]
        assert lines and all("f32" in line and "bf16" not in line for line in lines)


def test_dropout_needs_a_key_and_follows_it() -> None:
    params = draws.params(TINY)
    plain, one = apply(TINY, params, BATCH)["hidden"], apply(TINY, params, BATCH, RNGS)["hidden"]
    assert np.abs(plain - one).max() > 0.1
    np.testing.assert_array_equal(one, apply(TINY, params, BATCH, RNGS)["hidden"])
    other = apply(TINY, params, BATCH, {"dropout": jax.random.key(4)})["hidden"]
    assert np.abs(one - other).max() > 0.1


def test_dropout_sites_are_the_papers() -> None:
    """After the embeddings; in each layer the probabilities and both sub-layer outputs; none in the heads."""
    text = str(jax.make_jaxpr(TINY.apply)(TINY.abstract_params(), BATCH, RNGS))
    assert text.count("name=_dropout") == 1 + 3 * TINY.num_layers
    for field, left in (("dropout", TINY.num_layers), ("attention_dropout", 1 + 2 * TINY.num_layers)):
        model = dataclasses.replace(TINY, **{field: 0.0})
        text = str(jax.make_jaxpr(model.apply)(model.abstract_params(), BATCH, RNGS))
        assert text.count("name=_dropout") == left


def test_forward_flops_are_those_that_xla_counts() -> None:
    """XLA counts elementwise work, the picking of places and the pooler too: at these sizes a few per cent."""
    model = dataclasses.replace(
        TINY, hidden_size=128, embedding_size=64, d_ff=512, vocab_size=512, max_positions=64, dropout=0.0
    )
    batch = draws.encoder_batch(model, rows=1, length=48, picked=8)
    shapes = {name: x.shape[1:] for name, x in batch.items()}
    for ignored in ((), ("masked_positions",)):
        kept = {name: x for name, x in batch.items() if name not in ignored}
        counted = jax.jit(model.apply).lower(model.abstract_params(), kept).cost_analysis()["flops"]
        flops = model.flops({name: shape for name, shape in shapes.items() if name not in ignored})
        assert 0.9 < flops / counted < 1.0


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 18, "num_heads": 4}, r"multiple of num_heads \(4\), not 18"),
        ({"vocab_size": 0}, "must be at least 1, not 0"),
        ({"num_layers": 100000}, "must be at most 1,024, not 100,000"),
        ({"embedding_size": 0}, "must be at least 1"),
        ({"max_positions": 2, "position_offset": 2}, r"must exceed position_offset \(2\), not 2"),
        ({"pad_id": 50}, r"must lie in \[0, 50\)"),
        ({"dropout": 1.0}, r"must lie in \[0, 1\)"),
        ({"attention_dropout": -0.1}, r"must lie in \[0, 1\)"),
        ({"eps": 0.0}, "must be positive"),
        ({"pair_head": True, "pooler": "none"}, "needs a pooled state"),
        ({"zero_pad_rows": True}, "needs a position row for padding"),
        ({"attention": "fused"}, "no fused attention on cpu"),
    ],
)
def test_impossible_models_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        dataclasses.replace(TINY, **change).check()
    assert caught.value.where == f"model.{next(iter(change))}"


def test_long_rows_and_missing_heads_are_refused() -> None:
    model = dataclasses.replace(TINY, mlm_head=False, pair_head=False, pooler="none", position_offset=2)
    params, hidden = model.abstract_params(), jnp.zeros((1, 3, 16))
    with pytest.raises(UserError, match="a row of 19 tokens is longer than the 18"):
        model.encode(params, jnp.ones((1, 19), jnp.int32))
    for method, field in (("mlm_logits", "mlm_head"), ("pair_logits", "pair_head"), ("pooled", "pooler")):
        with pytest.raises(UserError) as caught:
            getattr(model, method)(params, hidden)
        assert caught.value.where == f"model.{field}"


def test_positions_can_begin_as_sinusoids() -> None:
    model = Encoder(vocab_size=16, hidden_size=8, num_layers=1, num_heads=1, d_ff=8, max_positions=32,
                    position_init="sinusoid", stddev=0.1, mlm_head=False, pair_head=False)  # fmt: skip
    table = np.asarray(model.init(jax.random.key(0))["embeddings"]["position"]["embedding"])
    angles = np.arange(32)[:, None] * np.array([1.0, 0.1, 0.01, 0.001])
    expected = 0.1 * np.sqrt(2) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(table, expected, atol=1e-6)
    assert np.sqrt(np.mean(table**2)) == pytest.approx(0.1)
