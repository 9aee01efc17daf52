import pytest

from t5x_like.errors import UserError
from t5x_like.planning import topologies


@pytest.mark.parametrize(
    ("text", "devices", "accelerator"),
    [
        ("v5e:16x16", 256, "v5litepod-256"),
        ("v5e:1x1", 1, "v5litepod-1"),
        ("v4:4x4x4", 64, "v4-128"),
        ("v5p:8x8x16", 1024, "v5p-2048"),
        ("v6e:16x16*2", 512, "v6e-256"),
    ],
)
def test_names_of_slices(text, devices, accelerator):
    topology = topologies.parse(text)
    assert topology.name == text
    assert topology.devices == devices
    assert topology.accelerator_type == accelerator
    assert topologies.parse(f" {text.upper().replace('*', ' * ')}") == topology


@pytest.mark.parametrize(
    ("text", "what", "help"),
    [
        ("v5e:16x15", "no slice of TPU v5e of 16x15", "v5e:16x16"),
        ("v5e:3x5", "no slice", "v5e:4x4"),
        ("v4:3x4x4", "no slice", "v4:"),
        ("v5p:8x16x8", "no slice", "v5p:8x8x16"),
        ("v5f:4x4", "no chip 'v5f'", "v5"),
        ("h100:12", "no node of NVIDIA H100 SXM of 12", "h100:8"),
        ("v5e", "CHIP:SHAPE", "v5e:16x16"),
        ("h100", "CHIP:SHAPE", "h100:8"),
        ("h100:16", "no node of NVIDIA H100 SXM of 16", "h100:8*2"),
        ("v5p", "CHIP:SHAPE", "v5p:4x4x4"),
        ("v5litepod-16", "CHIP:SHAPE", "v5e:4x4"),
        ("v5p-32", "CHIP:SHAPE", "v5p:2x2x4"),
        ("tpu:8", "no chip 'tpu'", "choose one of: v4, v5e, v5p, v6e"),
        ("gpu:8", "no chip 'gpu'", "choose one of: a100, h100, h200"),
        ("v5e:4x4*0", "at least 1 slice", "v5e:4x4"),
        ("cpu:0", "no node", "cpu:1"),
        ("", "CHIP:SHAPE", "v5e:16x16"),
    ],
)
def test_what_is_not_sold_is_refused_with_the_nearest(text, what, help):
    with pytest.raises(UserError) as refusal:
        topologies.parse(text)
    assert what in refusal.value.what
    assert help in (refusal.value.help or "")
    assert text in (refusal.value.where or "")


def test_a_slice_of_the_nearest_size_is_itself_sold():
    for text in ("v4:5x5x5", "v5p:100x100x100", "v6e:40x40", "v5e:7x9"):
        with pytest.raises(UserError) as refusal:
            topologies.parse(text)
        name = (refusal.value.help or "").rpartition(" ")[2]
        assert topologies.parse(name).name == name


def test_rings_close_where_the_torus_is_whole():
    assert topologies.parse("v5e:16x16").wraps == (True, True)
    assert topologies.parse("v5e:8x16").wraps == (False, True)
    assert topologies.parse("v4:2x2x4").wraps == (False, False, False)
    assert topologies.parse("v4:4x4x8").wraps == (True, True, True)


def test_float32_is_slower_on_gpus_only():
    assert topologies.parse("h100:8").flops("float32") == 494e12
    assert topologies.parse("v5e:4x4").flops("float32") == topologies.parse("v5e:4x4").flops("bfloat16")
