"""Masked language modelling: rows, their statistics, the way back, what is refused, and the loss."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from examples import BERT, keys, segments
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import counter
from t5x_like.data.batches import Stream
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.inputs import Contiguous, FullSentences, SegmentPairs
from t5x_like.errors import UserError
from t5x_like.objectives.base import Objective
from t5x_like.objectives.encoder import KEPT, MASKED, RANDOM, UNTOUCHED
from t5x_like.objectives.masked_lm import MaskedLM

PLAIN = Contiguous()
MASK, CLS, SEP = 103, 101, 102


def model(**changes: Any) -> SimpleNamespace:
    """As much of a model as a check looks at."""
    facts = {
        "kind": "encoder",
        "vocab_size": 1000,
        "max_length": 512,
        "pad_id": 0,
        "mlm_head": True,
        "pair_head": True,
    }
    return SimpleNamespace(**facts | changes)


def roberta(**changes: Any) -> MaskedLM:
    return MaskedLM(inputs=PLAIN, rounding="random", mask_specials=True, random_ids="ordinary", **changes)


def row(batch: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    return {name: values[number] for name, values in batch.items()}


def test_defaults_are_berts() -> None:
    assert isinstance(MaskedLM(), Objective)
    assert MaskedLM().terms == {"cross_entropy": 1.0, "pair_loss": 1.0}
    assert MaskedLM(inputs=PLAIN).terms == {"cross_entropy": 1.0}
    assert MaskedLM().summary == "masked LM 15% by token + next sentence: 128 places, 20 predictions"
    assert MaskedLM(length=512).num_predictions == 77
    assert MaskedLM().window_length() == 125
    assert MaskedLM(unit="word").needs == {"word_starts"}
    features = MaskedLM().features(BERT)
    assert {name: feature.shape for name, feature in features.items()} == {
        "encoder_input_tokens": (128,),
        "encoder_token_types": (128,),
        "masked_positions": (20,),
        "masked_targets": (20,),
        "masked_weights": (20,),
        "pair_labels": (),
    }


def test_a_row_by_hand() -> None:
    """[CLS] A [SEP] B [SEP], two of ten tokens hidden, everything [MASK]."""
    objective = MaskedLM(length=12, keep_share=0, random_share=0, max_predictions=3)
    tokens = np.array([[201, 202, 203, 204, 205, 206, 207]], np.int32)
    given = Windows(
        tokens, np.array([7]), BERT, first_lengths=np.array([4]), pair_labels=np.array([1], np.int32)
    )
    batch = objective.examples(given, keys(1))
    framed = np.array([CLS, 201, 202, 203, 204, SEP, 205, 206, 207, SEP, 0, 0])
    at = batch["masked_positions"][0, :2]
    assert batch["masked_weights"].tolist() == [[1, 1, 0]]  # round(.15 * 10) = 2
    assert 0 < at[0] < at[1] and not set(at.tolist()) & {5, 9, 10, 11}
    assert batch["masked_targets"].tolist() == [[*framed[at].tolist(), 0]]
    framed[at] = MASK
    assert batch["encoder_input_tokens"][0].tolist() == framed.tolist()
    assert batch["encoder_token_types"].tolist() == [[0] * 6 + [1] * 4 + [0] * 2]
    assert batch["pair_labels"].tolist() == [1]
    assert batch["masked_positions"][0, 2] == 0
    ids, weights = objective.targets(batch)
    assert ids.shape == weights.shape == (1, 3)


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
def test_bert_hides_15_percent_80_10_10(unit: Any) -> None:
    objective = MaskedLM(length=512, unit=unit)
    given = segments([509] * 260, [200] * 260)
    batch = objective.examples(given, keys(260))
    hidden = batch["masked_weights"].sum()
    assert hidden == pytest.approx(0.15 * 260 * 512, rel=0.005)  # 133,120 tokens
    fates = np.concatenate([objective.shown(row(batch, i), BERT).fates for i in range(260)])
    for fate, share in ((MASKED, 0.8 + 0.1 / 1000), (KEPT, 0.1), (RANDOM, 0.1)):
        found = (fates == fate).sum() / hidden
        assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / hidden))
    assert (fates != UNTOUCHED).sum() == hidden
    at = batch["masked_positions"][batch["masked_weights"] > 0]
    assert not np.isin(at, [0, 201, 511]).any()  # [CLS], both [SEP]
    halves = (at < 256).mean()
    assert halves == pytest.approx(0.5, abs=0.015)
    inputs = np.take_along_axis(batch["encoder_input_tokens"], batch["masked_positions"], axis=1)
    random = inputs[(inputs != MASK) & (inputs != batch["masked_targets"]) & (batch["masked_weights"] > 0)]
    assert (random < 104).mean() == pytest.approx(0.104, abs=0.03)  # special ids are drawn too


def test_roberta_hides_special_ids_too() -> None:
    objective = roberta(length=130)
    given = segments([128] * 900)
    batch = objective.examples(given, keys(900))
    used = batch["masked_weights"] > 0
    assert set(used.sum(axis=1).tolist()) == {19, 20}  # floor(19.5 + u)
    assert used.sum() / (900 * 130) == pytest.approx(0.15, abs=0.001)
    for place in (0, 129):
        share = ((batch["masked_positions"] == place) & used).any(axis=1).mean()
        assert share == pytest.approx(0.15, abs=0.05)
    inputs = np.take_along_axis(batch["encoder_input_tokens"], batch["masked_positions"], axis=1)
    random = inputs[used & (inputs != MASK) & (inputs != batch["masked_targets"])]
    assert not np.isin(random, [0, 100, 101, 102]).any()
    for number in range(5):
        np.testing.assert_array_equal(objective.restore(row(batch, number), BERT), given.tokens[number])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["token", "word", "ngram", "span"]),
    st.sampled_from(["half_even", "random", "up"]),
    st.floats(0.01, 1.0),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_nothing_is_lost(
    unit: Any, rounding: Any, rate: float, specials: bool, double: bool, data: st.DataObject
) -> None:
    width = data.draw(st.integers(3, 40))
    lengths = data.draw(st.lists(st.integers(0, width), min_size=1, max_size=4))
    firsts = [data.draw(st.integers(1, n)) if n else 0 for n in lengths]
    objective = MaskedLM(
        length=width + 4, inputs=SegmentPairs(double_separator=double), mask_rate=rate, unit=unit,
        rounding=rounding, mask_specials=specials, random_share=0.5,
    )  # fmt: skip
    objective.check(model(), BERT)
    given = segments(lengths, firsts, width)
    batch = objective.examples(given, keys(len(lengths), width))
    for name, feature in objective.features(BERT).items():
        assert batch[name].shape == (len(lengths), *feature.shape)
        assert batch[name].dtype == feature.dtype
    takes = objective.example_lengths(given.lengths)["encoder"]
    for number, n in enumerate(lengths):
        one = row(batch, number)
        np.testing.assert_array_equal(objective.restore(one, BERT), given.tokens[number, :n])
        shown = objective.shown(one, BERT)
        assert len(shown.inputs) == len(shown.originals) <= takes[number]
        assert (shown.inputs == shown.originals)[(shown.fates == UNTOUCHED) | (shown.fates == KEPT)].all()
        assert (shown.fates != UNTOUCHED).sum() == one["masked_weights"].sum()
        assert shown.pair_label == given.pair_labels[number]  # pyright: ignore[reportOptionalSubscript]


def test_a_row_is_the_same_in_any_company() -> None:
    given, k = segments([40, 12, 0, 3, 25], [20, 12, 0, 1, 10]), keys(5)
    for unit in ("token", "word", "ngram", "span"):
        objective = MaskedLM(length=43, unit=unit, rounding="random")
        together = objective.examples(given, k)
        for number in range(5):
            at = slice(number, number + 1)
            alone = dataclasses.replace(
                given,
                **{
                    name: getattr(given, name)[at]
                    for name in ("tokens", "lengths", "word_starts", "first_lengths", "pair_labels")
                },
            )
            for name, value in objective.examples(alone, k[at]).items():
                np.testing.assert_array_equal(value[0], together[name][number])


def test_fixed_masks_come_round_again() -> None:
    """Every epoch has new masks, or the masks of n epochs ago; in every case another order."""
    text = segments([40] * 6)

    class Index:
        count = 6

        def windows(self, index: np.ndarray, *_: Any) -> Windows:
            return dataclasses.replace(text, tokens=text.tokens[index], lengths=text.lengths[index])

    def epochs(fixed: int | None) -> list[np.ndarray]:
        objective = MaskedLM(length=42, inputs=PLAIN, fixed_masks=fixed)
        index: Any = Index()
        dataset: Any = SimpleNamespace(vocabulary=BERT, path="", tokenizer=SimpleNamespace(word_starts=None))
        stream = Stream(
            name="", dataset=dataset, objective=objective, windows=index, plan=None, features={}, sides=(),
            key=counter.seed_key(0), shuffle=True,
        )  # fmt: skip
        found = [stream.batch(np.arange(6) + 6 * epoch)["encoder_input_tokens"] for epoch in range(5)]
        assert not any(np.array_equal(found[0], other) for other in found[1:])
        return [np.array(sorted(map(tuple, rows.tolist()))) for rows in found]

    dynamic, fixed = epochs(None), epochs(2)
    assert len({rows.tobytes() for rows in dynamic}) == 5
    assert len({rows.tobytes() for rows in fixed}) == 2
    np.testing.assert_array_equal(fixed[0], fixed[4])


# ---- device half ----


class FixedLogits:
    """A model whose parameters are its outputs."""

    pad_id = 0

    def apply(self, params: Any, batch: Any, rngs: Any) -> Any:
        return params


def test_loss_equals_numpy_and_adds_up() -> None:
    objective, rng = MaskedLM(length=24), np.random.default_rng(0)
    batch = objective.examples(segments([20, 0, 9, 21], [5, 0, 5, 20]), keys(4))
    logits = {
        "mlm_logits": rng.normal(size=(4, objective.num_predictions, 1000)).astype(np.float32),
        "pair_logits": rng.normal(size=(4, 2)).astype(np.float32),
    }

    @jax.jit
    def losses(params: Any, rows: Any) -> Any:
        def loss(params: Any) -> Any:
            found = objective.loss(FixedLogits(), params, rows, None)
            return sum(found[name][0] for name in objective.terms), found

        return jax.grad(loss, has_aux=True)(params)

    def nll(x: np.ndarray, at: np.ndarray) -> np.ndarray:
        x = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
        return -np.take_along_axis(x, at[..., None], axis=-1)[..., 0]

    gradient, whole = losses(logits, batch)
    weights, targets = batch["masked_weights"], batch["masked_targets"]
    real = np.array([1.0, 0.0, 1.0, 1.0])  # a row of padding has no pair
    right = logits["pair_logits"].argmax(-1) == batch["pair_labels"]
    expected = {
        "cross_entropy": ((nll(logits["mlm_logits"], targets) * weights).sum(), weights.sum()),
        "accuracy": (((logits["mlm_logits"].argmax(-1) == targets) * weights).sum(), weights.sum()),
        "pair_loss": ((nll(logits["pair_logits"], batch["pair_labels"]) * real).sum(), 3.0),
        "pair_accuracy": ((right * real).sum(), 3.0),
    }
    assert set(objective.terms) < set(whole) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(np.array(whole[name]), value, rtol=1e-5)
    np.testing.assert_array_equal(np.abs(gradient["mlm_logits"]).sum(axis=-1) > 0, weights > 0)
    np.testing.assert_array_equal(np.abs(gradient["pair_logits"]).sum(axis=-1) > 0, real > 0)
    # Halves filled up with rows of padding: losses and gradients are sums over rows.
    empty = objective.examples(segments([0, 0, 0, 0], [0, 0, 0, 0], 21), keys(4))
    for half in (np.array([True, True, False, False]), np.array([False, False, True, True])):
        keep = {n: np.where(half.reshape(-1, *[1] * (v.ndim - 1)), v, empty[n]) for n, v in batch.items()}
        part_gradient, part = losses(logits, keep)
        whole = {name: np.array(value) - np.array(part[name]) for name, value in whole.items()}
        for name, value in part_gradient.items():
            np.testing.assert_allclose(value[half], gradient[name][half], rtol=1e-5)
    for value in whole.values():
        np.testing.assert_allclose(value, 0, atol=1e-4)


# ---- what is refused ----


@pytest.mark.parametrize(
    "objective, says",
    [
        (MaskedLM(mask_rate=0.0), "mask_rate is 0; it must be above 0"),
        (MaskedLM(mask_rate=float("nan")), "mask_rate is nan"),
        (MaskedLM(mask_rate=1.5), "mask_rate is 1.5"),
        (MaskedLM(length=3), "length is 3"),
        (MaskedLM(max_predictions=0), "max_predictions is 0, in rows of 128"),
        (MaskedLM(max_predictions=129), "max_predictions is 129"),
        (MaskedLM(keep_share=-0.1), "keep_share is -0.1"),
        (MaskedLM(keep_share=0.6, random_share=0.5), "keep_share is 0.6 and random_share 0.5: together more"),
        (MaskedLM(fixed_masks=0), "fixed_masks is 0"),
        (MaskedLM(inputs=SegmentPairs(duplicates=0)), "duplicates is 0"),
    ],
)
def test_fields_that_cannot_be(objective: MaskedLM, says: str) -> None:
    with pytest.raises(UserError, match=says):
        objective.check(model(), None)


@pytest.mark.parametrize(
    "changes, says",
    [
        (
            {"kind": "encoder-decoder"},
            "MaskedLM needs a model of the kind encoder; SimpleNamespace is encoder-decoder",
        ),
        ({"mlm_head": False}, "needs the head over the vocabulary"),
        ({"pair_head": False}, "needs the head over pairs"),
        ({"max_length": 64}, "length is 128, and the model has 64 positions"),
        ({"vocab_size": 999}, "1000 ids and the model's table 999 rows"),
        ({"pad_id": 1}, "pads with id 0; the model takes 1"),
    ],
)
def test_models_that_do_not_fit(changes: dict[str, Any], says: str) -> None:
    MaskedLM().check(model(), BERT)
    with pytest.raises(UserError, match=says):
        MaskedLM().check(model(**changes), BERT)


def test_a_pair_head_is_wanted_for_pairs_alone() -> None:
    MaskedLM(inputs=FullSentences()).check(model(pair_head=False), BERT)


@pytest.mark.parametrize("name, shown", [("mask", r"\[MASK\]"), ("cls", r"\[CLS\]"), ("sep", r"\[SEP\]")])
def test_vocabularies_that_do_not_fit(name: str, shown: str) -> None:
    vocabulary: Vocabulary = dataclasses.replace(BERT, **{name: None})
    with pytest.raises(UserError, match=f"the tokenizer has no {shown}"):
        MaskedLM().check(model(), vocabulary)
