"""BERT's published sizes."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from t5x_like.errors import UserError
from t5x_like.models.bert import bert


@pytest.mark.parametrize(
    ("size", "encoder", "pretraining", "mlm"),
    [
        ("tiny", 4_385_920, 4_433_468, 4_416_698),
        ("mini", 11_170_560, 11_267_900, 11_201_594),
        ("small", 28_763_648, 29_058_876, 28_795_194),
        ("medium", 41_373_184, 41_668_412, 41_404_730),
        ("base-uncased", 109_482_240, 110_106_428, 109_514_298),
        ("base-cased", 108_310_272, 108_932_934, 108_340_804),
        ("large-uncased", 335_141_888, 336_226_108, 335_174_458),
        ("large-cased", 333_579_264, 334_661_958, 333_610_308),
        ("multilingual-cased", 177_853_440, 178_566_653, 177_974_523),
        ("chinese", 102_267_648, 102_882_442, 102_290_312),
    ],
)
def test_published_parameter_counts(size: str, encoder: int, pretraining: int, mlm: int) -> None:
    """Encoder with pooler; with both heads; with the head of masked language modelling and no pooler."""
    model = bert(size)
    for variant, count in (
        (model, pretraining),
        (dataclasses.replace(model, mlm_head=False, pair_head=False), encoder),
        (dataclasses.replace(model, pooler="none", pair_head=False), mlm),
    ):
        variant.check()
        assert sum(leaf.size for leaf in jax.tree.leaves(variant.abstract_params())) == count
        assert variant.num_params() == count


def test_arithmetic_is_the_originals() -> None:
    model = bert("base-uncased")
    assert (model.activation, model.eps, model.token_types, model.pooler) == ("gelu_tanh", 1e-12, 2, "tanh")
    assert (model.position_offset, model.max_length, model.head_dim, model.pad_id) == (0, 512, 64, 0)
    assert (model.truncated_init, model.dropout, model.attention_dropout) == (True, 0.1, 0.1)


def test_flops_are_those_of_the_benchmark() -> None:
    """BERT-mini at 128 tokens and 19 predictions, counted by hand."""
    layer = 128 * (8 * 256 * 256 + 4 * 128 * 256 + 4 * 256 * 1024)
    expected = 4 * layer + 19 * 2 * 256 * (256 + 30522) + 2 * 256 * 256 + 4 * 256
    assert bert("mini").flops({"encoder_input_tokens": (128,), "masked_positions": (19,)}) == expected


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="'base'") as caught:
        bert("base")
    assert "base-cased" in (caught.value.help or "") or "base-uncased" in (caught.value.help or "")
