"""RoBERTa's published sizes and its differences from BERT."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from t5x_like.errors import UserError
from t5x_like.models.bert import bert
from t5x_like.models.electra import electra
from t5x_like.models.roberta import roberta


@pytest.mark.parametrize(
    ("size", "mlm", "encoder"), [("base", 124_697_433, 124_645_632), ("large", 355_412_057, 355_359_744)]
)
def test_published_parameter_counts(size: str, mlm: int, encoder: int) -> None:
    model = roberta(size)
    for variant, count in (
        (model, mlm),
        (dataclasses.replace(model, mlm_head=False, pooler="tanh"), encoder),
    ):
        variant.check()
        assert sum(leaf.size for leaf in jax.tree.leaves(variant.abstract_params())) == count
        assert variant.num_params() == count


def test_arithmetic_is_the_originals() -> None:
    model = roberta("base")
    assert (model.activation, model.eps, model.token_types, model.pooler) == ("gelu", 1e-5, 1, "none")
    assert (model.position_offset, model.max_length, model.pad_id) == (2, 512, 1)
    assert (model.truncated_init, model.zero_pad_rows, model.pair_head) == (False, True, False)


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="'basse'") as caught:
        roberta("basse")
    assert caught.value.help == "did you mean base?"


def test_only_a_model_without_second_token_type_sets_segments_apart_by_two_separators() -> None:
    assert roberta("base").double_separator
    assert not bert("base-cased").double_separator and not electra("base").encoder.double_separator
