"""Layers against their formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from t5x_like.errors import UserError
from t5x_like.models.attention import MASKED, Visible, attend, choose
from t5x_like.models.layers import MLP, RelativeBias, RMSNorm, relative_position_bucket
from t5x_like.models.sharding import logical_rules, platform

F32 = jnp.dtype("float32")


def test_buckets_are_the_published_ones() -> None:
    """Golden values of the original (32 buckets, largest distance 128)."""
    distances = np.array([15, 16, 31, 32, 63, 64, 127, 128])
    both = np.array([9, 10, 11, 12, 13, 14, 15, 15])
    assert relative_position_bucket(-distances, bidirectional=True).tolist() == both.tolist()
    assert relative_position_bucket(distances, bidirectional=True).tolist() == (both + 16).tolist()
    causal = relative_position_bucket(-distances, bidirectional=False)
    assert causal.tolist() == [15, 16, 21, 21, 26, 26, 31, 31]
    assert not relative_position_bucket(np.arange(300), bidirectional=False).any()


@pytest.mark.parametrize(
    ("bidirectional", "firsts"),
    [
        (True, [*range(9), 12, 16, 23, 32, 46, 64, 91]),
        (False, [*range(17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]),
    ],
)
def test_first_distance_of_each_bucket(bidirectional: bool, firsts: list[int]) -> None:
    buckets = relative_position_bucket(-np.arange(1000), bidirectional=bidirectional)
    assert np.flatnonzero(np.diff(buckets, prepend=-1)).tolist() == firsts
    assert buckets[-1] == len(firsts) - 1


@pytest.mark.parametrize(
    ("bidirectional", "queries", "keys"), [(True, 7, 150), (True, 150, 7), (False, 150, 150), (False, 1, 9)]
)
def test_bias_matrix_is_the_table_at_the_buckets(bidirectional: bool, queries: int, keys: int) -> None:
    module = RelativeBias(num_heads=3, bidirectional=bidirectional)
    table = jax.random.normal(jax.random.key(0), (3, 32))
    weights = jax.random.normal(jax.random.key(1), (1, 3, queries, keys))
    distances = np.arange(keys)[None] - np.arange(queries)[:, None]
    buckets = relative_position_bucket(distances, bidirectional=bidirectional)

    def ours(table: jax.Array) -> jax.Array:
        return module.apply({"params": {"rel_embedding": table}}, queries, keys)

    np.testing.assert_array_equal(ours(table)[0], table[:, buckets])
    gradient = jax.jit(jax.grad(lambda t: jnp.sum(ours(t) * weights)))(table)
    expected = jax.jit(jax.grad(lambda t: jnp.sum(t[:, buckets] * weights[0])))(table)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_bias_row_is_a_row_of_the_matrix() -> None:
    module = RelativeBias(num_heads=2, bidirectional=False)
    params = {"params": {"rel_embedding": jax.random.normal(jax.random.key(0), (2, 32))}}
    matrix = module.apply(params, 40, 40)
    rows = module.apply(params, jnp.array([0, 39, 7]), 40, method="row")
    np.testing.assert_array_equal(rows[:, :, 0], jnp.stack([matrix[0, :, i] for i in (0, 39, 7)]))


def test_rms_norm() -> None:
    x = 1e-3 * jax.random.normal(jax.random.key(0), (2, 5, 16))
    scale = jnp.linspace(0.5, 2.0, 16)
    y = RMSNorm(F32, eps=1e-6).apply({"params": {"scale": scale}}, x)
    expected = (
        np.asarray(x) / np.sqrt((np.asarray(x) ** 2).mean(-1, keepdims=True) + 1e-6) * np.asarray(scale)
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_rms_norm_keeps_statistics_in_float32() -> None:
    """The sum of squares of a long row saturates in bfloat16; the result is cast before the scale is applied."""
    x = jnp.full((1, 4096), 3.0, jnp.bfloat16)
    scale = jnp.full((4096,), 1.0 + 2**-7)
    y = RMSNorm(jnp.dtype(jnp.bfloat16)).apply({"params": {"scale": scale}}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(np.float32), np.full((1, 4096), 1.0 + 2**-7))


@pytest.mark.parametrize("gated", [True, False])
def test_mlp(gated: bool) -> None:
    module = MLP(hidden=6, features=4, activation="gelu", gated=gated, dtype=F32)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    params = module.init(jax.random.key(1), x)["params"]
    kernels = {name: np.asarray(leaf["kernel"].value) for name, leaf in params.items()}
    y = module.apply({"params": jax.tree.map(jnp.asarray, {k: {"kernel": v} for k, v in kernels.items()})}, x)
    inner = np.asarray(x) @ kernels["wi_0" if gated else "wi"]
    # The tanh form, not the exact one.
    hidden = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    if gated:
        hidden = hidden * (np.asarray(x) @ kernels["wi_1"])
    np.testing.assert_allclose(y, hidden @ kernels["wo"], rtol=1e-4, atol=1e-6)
    assert set(kernels) == ({"wi_0", "wi_1", "wo"} if gated else {"wi", "wo"})


def heads(rows: int, queries: int, keys: int, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = ((rows, 2, queries, 8), (rows, 2, keys, 8), (rows, 2, keys, 8))
    q, k, v = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return q, k, v


def test_attention_is_unscaled_softmax_in_plain_numpy() -> None:
    q, k, v = heads(2, 5, 7)
    rng = np.random.default_rng(1)
    bias = rng.normal(size=(1, 2, 5, 7)).astype(np.float32)
    mask = rng.random((2, 1, 5, 7)) < 0.7
    mask[:, :, :, 0] = True
    out = attend(q, k, v, bias=jnp.asarray(bias), visible=Visible(mask=jnp.asarray(mask)))
    logits = np.asarray(q) @ np.asarray(k).swapaxes(2, 3) + bias
    weights = np.where(mask, np.exp(logits - logits.max(-1, keepdims=True)), 0.0)
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(out, weights @ np.asarray(v), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_kernel_interface_equals_einsum(masked: bool) -> None:
    """The path that cuDNN takes, through the same function's portable implementation: values and gradients."""
    q, k, v = heads(2, 6, 10)
    bias = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 6, 10)), jnp.float32)
    visible = Visible(mask=(jnp.arange(10) < jnp.array([[10], [4]]))[:, None, None, :]) if masked else None

    def loss(implementation: str, *arguments: jax.Array) -> jax.Array:
        q, k, v, bias = arguments
        out = attend(q, k, v, bias=bias, visible=visible, implementation=implementation)
        return jnp.sum(jnp.sin(out))

    both = jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)
    one, other = (both(implementation, q, k, v, bias) for implementation in ("einsum", "xla"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_segments_attend_within_themselves_and_never_to_padding() -> None:
    q, k, v = heads(1, 4, 5)
    segments = (jnp.array([[1, 1, 2, 0]]), jnp.array([[1, 2, 1, 0, 2]]))
    out = attend(q, k, v, visible=Visible(segments=segments))
    for query, keys in ((0, [0, 2]), (1, [0, 2]), (2, [1, 4])):
        alone = attend(q[:, :, query : query + 1], k[:, :, keys], v[:, :, keys])
        np.testing.assert_allclose(out[:, :, query], alone[:, :, 0], rtol=1e-5, atol=1e-6)
    # A query of padding sees nothing: finite all the same.
    np.testing.assert_allclose(out[:, :, 3], v.mean(2), rtol=1e-5, atol=1e-6)
    assert np.isfinite(MASKED)


def test_masked_keys_do_not_matter() -> None:
    q, k, v = heads(1, 4, 6)
    visible = Visible(mask=jnp.arange(6)[None, None, None] < 3)
    out = attend(q, k, v, visible=visible)
    np.testing.assert_array_equal(
        out, attend(q, k.at[:, :, 3:].set(1e6), v.at[:, :, 3:].set(-7.0), visible=visible)
    )


FITTING = {"dtype": jnp.bfloat16, "query_length": 128, "key_length": 512, "head_dim": 64, "drops": False}


@pytest.mark.parametrize(("platform", "expected"), [("cpu", "einsum"), ("gpu", "cudnn"), ("tpu", "flash")])
def test_auto_takes_the_kernel_of_the_platform(platform: str, expected: str) -> None:
    assert choose(wanted="auto", platform=platform, **FITTING) == expected
    assert choose(wanted="einsum", platform=platform, **FITTING) == "einsum"


@pytest.mark.parametrize(
    ("platform", "change", "reason"),
    [
        ("cpu", {}, "no fused attention on cpu"),
        ("gpu", {"drops": True}, "no dropout"),
        ("tpu", {"drops": True}, "no dropout"),
        ("gpu", {"dtype": jnp.float32}, "needs bfloat16, not float32"),
        ("gpu", {"head_dim": 20}, "divisible by 8"),
        ("gpu", {"query_length": 113}, "even lengths"),
        ("tpu", {"key_length": 500}, "divisible by 128"),
    ],
)
def test_what_a_kernel_cannot_do(platform: str, change: dict, reason: str) -> None:
    assert choose(wanted="auto", platform=platform, **{**FITTING, **change}) == "einsum"
    with pytest.raises(UserError, match=reason):
        choose(wanted="fused", platform=platform, **{**FITTING, **change})


def test_a_decoding_step_is_einsum_everywhere() -> None:
    assert choose(wanted="fused", platform="gpu", **{**FITTING, "query_length": 1}) == "einsum"


def test_kernels_refuse_dropout_rather_than_forget_it() -> None:
    q, k, v = heads(1, 4, 4)
    with pytest.raises(ValueError, match="no dropout"):
        attend(q, k, v, seed=jnp.zeros(2, jnp.uint32), dropout_rate=0.1, implementation="xla")


@pytest.mark.parametrize("bias_rows", [None, 1])
def test_the_tpu_kernel_is_split_over_a_mesh(bias_rows: int | None) -> None:
    """XLA refuses to split a kernel by itself: lowered for TPUs, with gradients, each device has its rows and heads."""
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    rules = (("batch", ("data", "fsdp")), ("heads", "tensor"))
    x = jax.ShapeDtypeStruct((8, 4, 128, 64), jnp.bfloat16)
    bias = None if bias_rows is None else jnp.zeros((bias_rows, 4, 128, 128))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        with logical_rules(mesh, rules):
            return attend(q, k, v, bias=bias, implementation="flash").sum()

    text = (
        jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(x, x, x).lower(lowering_platforms=("tpu",)).as_text()
    )
    assert text.count("tpu_custom_call") == 3
    assert "tensor<2x2x128x64xbf16>" in text  # 8 rows over 4 devices, 4 heads over 2


def test_the_platform_is_that_of_the_mesh() -> None:
    assert platform() == "cpu"

    class Elsewhere:
        devices = np.array([type("Device", (), {"platform": "tpu"})()])

    with logical_rules(Elsewhere(), ()):  # type: ignore[arg-type]
        assert platform() == "tpu"
    with logical_rules(jax.sharding.AbstractMesh((2,), ("data",)), ()):  # type: ignore[arg-type]
        assert platform() == "cpu"
