"""Heads against their formulas in NumPy, and their refusals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.errors import UserError
from t5x_like.models.encoder import Encoder
from t5x_like.models.family import Params, values
from t5x_like.models.heads import EncoderWithHead, HeadLayers
from t5x_like.models.roberta import roberta

TINY = Encoder(
    vocab_size=50, hidden_size=16, num_layers=1, num_heads=2, d_ff=24, max_positions=20, scan_layers=False
)
CHOICES = 3
HEADS = ("classification", "regression", "tagging", "span", "choice")
STYLES = ("bert", "roberta", "electra", "electra-hf")


def with_head(head: Any, style: Any = "bert", **change: Any) -> EncoderWithHead:
    labels = 4 if head in ("classification", "tagging") else 1
    return dataclasses.replace(
        EncoderWithHead(encoder=TINY, head=head, style=style, num_labels=labels), **change
    )


def inputs(head: str) -> dict[str, np.ndarray]:
    batch = draws.encoder_batch(TINY, rows=2 * CHOICES if head == "choice" else 2, length=9)
    batch = {name: x for name, x in batch.items() if name != "masked_positions"}
    if head == "choice":
        batch = {name: x.reshape(2, CHOICES, -1) for name, x in batch.items()}
    return batch


@pytest.fixture(scope="module")
def hidden() -> tuple[Params, dict[str, np.ndarray]]:
    """One encoder's parameters, pooler included, and its states of the flat and of the choice batch."""
    encoder = dataclasses.replace(TINY, mlm_head=False, pair_head=False)
    params = draws.params(encoder)
    states = {}
    for head in ("span", "choice"):
        flat = {name: x.reshape(-1, x.shape[-1]) for name, x in inputs(head).items()}
        states[head] = np.asarray(jax.jit(encoder.apply)(params, flat)["hidden"], np.float64)
    return params, states


def expected(model: EncoderWithHead, params: Params, x: np.ndarray) -> np.ndarray:
    """The module's tables, written out; `x` [rows, T, D]."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w["head"][name]["kernel"] + w["head"][name]["bias"]

    if model.head in ("tagging", "span"):
        return dense(x, "out")
    first = x[:, 0]
    if model.style == "bert" or (model.style == "roberta" and model.head == "choice"):
        first = np.tanh(first @ w["encoder"]["pooler"]["kernel"] + w["encoder"]["pooler"]["bias"])
    elif model.style == "roberta":
        first = np.tanh(dense(first, "dense"))
    elif model.style == "electra-hf":
        y = dense(first, "dense")
        first = 0.5 * y * (1 + np.vectorize(math.erf)(y / 2**0.5))
    y = dense(first, "out")
    if model.head == "choice":
        return y.reshape(-1, CHOICES)
    return y[:, 0] if model.head == "regression" else y


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("head", HEADS)
def test_logits_are_the_tables(head: str, style: str, hidden: tuple) -> None:
    encoder, states = hidden
    model = with_head(head, style)
    model.check()
    assert sum(leaf.size for leaf in jax.tree.leaves(model.abstract_params())) == model.num_params()
    params = model.with_encoder(draws.params(model, seed=5), encoder)
    assert params["encoder"].keys() == model.abstract_params()["encoder"].keys()
    logits = jax.jit(model.apply, compiler_options=draws.LIGHT)(params, inputs(head))
    assert logits.dtype == jnp.float32
    wanted = expected(model, params, states["choice" if head == "choice" else "span"])
    assert logits.shape == wanted.shape
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("head", "style", "sites"),
    [
        ("classification", "bert", 1),
        ("classification", "roberta", 2),
        ("regression", "electra", 1),
        ("classification", "electra-hf", 2),
        ("tagging", "bert", 1),
        ("tagging", "electra", 0),
        ("span", "roberta", 0),
        ("choice", "bert", 1),
        ("choice", "roberta", 1),
        ("choice", "electra-hf", 1),
    ],
)
def test_dropout_sites_are_the_originals(head: str, style: str, sites: int) -> None:
    model, rngs = with_head(head, style), {"dropout": jax.random.key(0)}
    within = 1 + 3 * TINY.num_layers
    text = str(jax.make_jaxpr(model.apply)(model.abstract_params(), inputs(head), rngs))
    assert text.count("name=_dropout") == within + sites
    plain = str(jax.make_jaxpr(model.apply)(model.abstract_params(), inputs(head)))
    assert plain.count("name=_dropout") == 0


@pytest.mark.parametrize(("style", "bound"), [("electra", (6 / (16 + 4)) ** 0.5), ("bert", 0.04)])
def test_initial_values(style: str, bound: float) -> None:
    """Official ELECTRA names no initialiser: Glorot-uniform; the others as their encoder, cut at two deviations."""
    layers = HeadLayers(with_head("classification", style))
    out = values(layers.init(jax.random.key(0), jnp.zeros((1, 16)))["params"])["out"]
    assert 0.5 * bound < np.abs(out["kernel"]).max() <= bound + 1e-7
    assert not np.asarray(out["bias"]).any()


def test_pretrained_parameters_go_in_and_a_missing_pooler_stays_random() -> None:
    encoder = dataclasses.replace(TINY, pooler="none", pair_head=False)
    model = dataclasses.replace(with_head("classification"), encoder=encoder)
    fresh, pretrained = draws.params(model), draws.params(encoder, seed=1)
    put = model.with_encoder(fresh, pretrained)
    assert "mlm" in pretrained and "mlm" not in put["encoder"]
    assert put["encoder"]["layers_0"] is pretrained["layers_0"]
    assert put["encoder"]["pooler"] is fresh["encoder"]["pooler"]
    assert put["head"] is fresh["head"]


def test_flops() -> None:
    encoder = roberta("base")
    shapes = {"encoder_input_tokens": (64,)}
    plain = dataclasses.replace(encoder, mlm_head=False).flops(shapes)
    for head, style, extra in (
        ("classification", "roberta", 2 * 768 * 768 + 2 * 768 * 4),
        ("classification", "bert", 2 * 768 * 768 + 2 * 768 * 4),
        ("tagging", "roberta", 64 * 2 * 768 * 4),
        ("span", "electra", 64 * 2 * 768 * 2),
        ("regression", "electra", 2 * 768),
    ):
        assert with_head(head, style, encoder=encoder).flops(shapes) == plain + extra
    choice = with_head("choice", "electra", encoder=encoder)
    assert choice.flops({"encoder_input_tokens": (5, 64)}) == 5 * (plain + 2 * 768)


# Refusals


@pytest.mark.parametrize(
    ("head", "change", "where", "message"),
    [
        ("classification", {"num_labels": 1}, "num_labels", "must be at least 2, not 1"),
        ("regression", {"num_labels": 3}, "num_labels", "must be at most 1, not 3"),
        ("tagging", {"num_labels": 0}, "num_labels", "must be at least 1, not 0"),
        ("span", {"dropout": 1.0}, "dropout", r"must lie in \[0, 1\)"),
        ("span", {"encoder": dataclasses.replace(TINY, num_heads=3)}, "encoder.hidden_size", "multiple of num_heads"),
    ],
)  # fmt: skip
def test_impossible_models_are_refused(head: str, change: dict, where: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        with_head(head, **change).check()
    assert caught.value.where == f"model.{where}"


def test_parameters_of_another_encoder_are_refused() -> None:
    model = with_head("classification")
    fresh = draws.params(model)
    wider = draws.params(dataclasses.replace(TINY, vocab_size=60))
    with pytest.raises(UserError, match=r"embeddings/word/embedding has the shape \(60, 16\).*\(50, 16\)"):
        model.with_encoder(fresh, wider)
    with pytest.raises(UserError, match="have no 'layers_0'"):
        model.with_encoder(fresh, {"embeddings": draws.params(TINY)["embeddings"]})


def test_rows_of_the_wrong_rank_are_a_defect() -> None:
    model = with_head("choice")
    with pytest.raises(ValueError, match=r"are \[B, C, T\], not \(2, 9\)"):
        model.apply(model.abstract_params(), inputs("span"))
