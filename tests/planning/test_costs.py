"""What is read off compiled programs, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5x_like.planning import collectives, costs, hlo

B, D, L = 8, 32, 5


@pytest.fixture(autouse=True, scope="module")
def no_stored_programs():
    """A program out of JAX's store has lost its text."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


def _count(function, *arrays):
    return costs.count(hlo.parse(jax.jit(function).lower(*arrays).compile().as_text()))


def _array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_loop_counts_as_often_as_it_runs():
    def scanned(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    def unrolled(x, weights):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    for function in (scanned, unrolled):
        found = _count(function, _array(B, D), _array(L, D, D))
        assert found.flops == L * 2 * B * D * D
        assert found.unknown_loops == 0
    # Each turn reads one layer's weights, never the whole stack.
    stack = L * D * D * 4
    assert stack <= _count(scanned, _array(B, D), _array(L, D, D)).bytes < L * stack


def test_loops_in_loops_multiply():
    def function(x, w):
        def inner(x, _):
            return x @ w, None

        def outer(x, _):
            return jax.lax.scan(inner, x, None, length=3)[0], None

        return jax.lax.scan(outer, x, None, length=7)[0]

    assert _count(function, _array(B, D), _array(D, D)).flops == 21 * 2 * B * D * D


def test_the_dearer_branch_counts():
    def function(x, w, flag):
        return jax.lax.cond(flag, lambda: jnp.tanh(x @ w) @ w, lambda: x)

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    assert _count(function, _array(B, D), _array(D, D), flag).flops == 2 * 2 * B * D * D


def test_collectives_have_kinds_sizes_and_groups():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def placed(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def function(x, w):  # rows over a, contraction over b: each device has a partial sum
        return jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, PartitionSpec("a")))

    found = _count(function, placed((B, D), "a", "b"), placed((D, D), "b"))
    (reduced,) = found.collectives
    assert (reduced.kind, reduced.bytes, reduced.times) == ("all-reduce", B // 4 * D * 4, 1)
    assert reduced.group == (0, 1)
    assert found.traffic() == {"all-reduce": (1, B // 4 * D * 4)}
    assert found.flops == 2 * (B // 4) * (D // 2) * D


def test_what_the_backward_pass_needs_is_kept():
    def function(x, weights):
        def loss(weights):
            def layer(x, w):
                return jnp.sin(x @ w), None

            return jax.lax.scan(layer, x, weights)[0].sum()

        return jax.grad(loss)(weights)

    found = _count(function, _array(B, D), _array(L, D, D))
    # Inputs and pre-activations (or their cosines) of every layer.
    assert found.kept == pytest.approx(2 * L * B * D * 4, rel=0.3)
    forward_only = _count(lambda x, w: jnp.sin(x @ w), _array(B, D), _array(D, D))
    assert forward_only.kept == 0


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("{{0,1},{2,3}}, x", (0, 1)),
        ("{{0,4},{4,0}}, x", (0, 4)),
        ("[2,4]<=[8], x", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0), x", (0, 4)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, x", (0, 4)),
        ("mesh['axis_0'=2,'axis_1'=4,'axis_2'=3] {'axis_0','axis_2'}", (0, 1, 2, 12, 13, 14)),
        ("{}", ()),
    ],
)
def test_groups_of_devices(text, group):
    assert collectives.devices(text) == group


# As libtpu 0.0.42 prints them: projections and attention of T5-base, eight rows of 512.
_TPU = """
HloModule jit_f, is_scheduled=true

%fused_computation (param_0: bf16[8,512,12,64], param_1: bf16[8,512,12,64]) -> f32[8,12,512,512] {
  %param_0 = bf16[8,512,12,64]{1,3,2,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[8,512,12,64]{1,3,2,0:T(8,128)(2,1)S(1)} parameter(1)
  %bitcast.1 = bf16[8,12,512,64]{2,3,1,0:T(8,128)(2,1)} bitcast(%param_0)
  %bitcast.2 = bf16[8,12,512,64]{2,3,1,0:T(8,128)(2,1)} bitcast(%param_1)
  ROOT %convolution.1 = f32[8,12,512,512]{2,3,1,0:T(8,128)} convolution(%bitcast.1, %bitcast.2), """ + (
    """window={size=8x12 stride=7x11 lhs_dilate=8x12}, dim_labels=01bf_01oi->01bf
}

ENTRY %main (x: bf16[8,512,768], w: bf16[12,64,768,1]) -> f32[8,12,512,512] {
  %x = bf16[8,512,768,1]{2,1,0,3:T(8,128)(2,1)} parameter(0)
  %w = bf16[12,64,768,1]{2,1,0,3:T(8,128)(2,1)} parameter(1)
  %q = bf16[8,512,12,64]{1,3,2,0:T(8,128)(2,1)} convolution(%x, %w), """
    """window={size=1x12 pad=0_0x11_11 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f
  ROOT %s = f32[8,12,512,512]{2,3,1,0:T(8,128)} fusion(%q, /*index=1*/%q), kind=kOutput, calls=%fused_computation
}
"""
)


def test_matrix_products_that_a_tpu_writes_as_convolutions():
    module = hlo.parse(_TPU)
    found = costs.count(module)
    projection, scores = 2 * 8 * 512 * 768 * 768, 2 * 8 * 12 * 512 * 512 * 64
    assert [w.flops for w in found.work] == [projection, scores]


_KERNELS = """
HloModule jit_f

ENTRY %main (q: bf16[2,4,128,64], k: bf16[2,4,256,64]) -> bf16[2,4,128,64] {
  %q = bf16[2,4,128,64]{3,2,1,0} parameter(0)
  %k = bf16[2,4,256,64]{3,2,1,0} parameter(1)
  %flash_attention.1 = bf16[2,4,128,64]{3,2,1,0} custom-call(%q, %k), custom_call_target="tpu_custom_call", """ + (
    """backend_config={"custom_call_config":{"cost_estimate":{"flops":"123","transcendentals":"1"}}}
  %flash_mha_bwd_dq_block_q_128.1 = bf16[2,4,128,64]{3,2,1,0} custom-call(%q, %k), custom_call_target="tpu_custom_call"
  %other.1 = bf16[2,4,128,64]{3,2,1,0} custom-call(%q, %k), custom_call_target="tpu_custom_call"
  ROOT %buffer.1 = bf16[2,4,128,64]{3,2,1,0} custom-call(), custom_call_target="AllocateBuffer"
}
"""
)


def test_kernels_tell_their_operations_or_are_reported():
    found = costs.count(hlo.parse(_KERNELS))
    assert [w.flops for w in found.work] == [123, 3 * 2 * 2 * 4 * 128 * 256 * 64, 0]
    assert found.unknown_kernels == 1


_SPREAD = """
HloModule jit_f

%async_collective_fusion.1 (param_0: f32[2,4]) -> f32[8,4] {
  %param_0 = f32[2,4]{1,0} parameter(0)
  ROOT %all-gather.1 = f32[8,4]{1,0} all-gather(%param_0), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
}

%condition (state.1: (s32[])) -> pred[] {
  %state.1 = (s32[]) parameter(0)
  %index.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(6)
  ROOT %less = pred[] compare(%index.1, %limit), direction=LT
}

%body (state.2: (s32[])) -> (s32[]) {
  %state.2 = (s32[]) parameter(0)
  %index.2 = s32[] get-tuple-element(%state.2), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%index.2, %one)
  %shard.2 = f32[2,4]{1,0} broadcast(%index.2), dimensions={}
  %step.2 = f32[8,4]{1,0} fusion(%shard.2), kind=kLoop, calls=%async_collective_fusion.1
  ROOT %state.3 = (s32[]) tuple(%next)
}

ENTRY %main (shard: f32[2,4]) -> f32[8,4] {
  %shard = f32[2,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %begin = (s32[]) tuple(%zero)
  %loop = (s32[]) while(%begin), condition=%condition, body=%body
  ROOT %step.1 = f32[8,4]{1,0} fusion(%shard), kind=kLoop, calls=%async_collective_fusion.1
}
"""


def test_a_collective_that_is_spread_over_fusions_counts_once():
    (gathered,) = costs.count(hlo.parse(_SPREAD)).collectives
    assert (gathered.kind, gathered.bytes, gathered.times) == ("all-gather", 8 * 4 * 4, 1)
    assert gathered.overlaps and gathered.group == (0, 1, 2, 3)


def test_tiles_pad_and_the_chip_is_not_main_memory():
    (plain,) = hlo._shapes("f32[12,8,512,1]{2,1,3,0:T(8,128)}")
    assert plain.bytes == 12 * 8 * 512 * 4
    (padded,) = hlo._shapes("f32[100,5]{1,0:T(8,128)}")
    assert padded.bytes == 104 * 128 * 4
    (on_chip,) = hlo._shapes("bf16[8,512]{1,0:T(8,128)(2,1)S(1)}")
    assert (on_chip.space, on_chip.memory_bytes, on_chip.bytes) == (1, 0, 8 * 512 * 2)
    assert [s.dtype for s in hlo._shapes("(s32[]{:T(128)}, /*index=1*/(f32[2]{0}, token[]))")] == [
        "s32", "f32", "token",
    ]  # fmt: skip


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no entry"):
        hlo.parse("HloModule x\n")
