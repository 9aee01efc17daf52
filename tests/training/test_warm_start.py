"""Weights from runs and Hugging Face directories of every family; what does not belong together is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import MODEL, make

from t5x_like.errors import Exit, UserError
from t5x_like.hub.encoders import export_encoder
from t5x_like.hub.t5 import export_t5
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.training import start
from t5x_like.training.adam import berts

BERT = Encoder(
    vocab_size=256, hidden_size=16, num_layers=2, num_heads=2, d_ff=32, max_positions=32, activation="gelu",
    scan_layers=False,
)  # fmt: skip
ROBERTA = dataclasses.replace(
    BERT, position_offset=2, pad_id=1, token_types=1, pooler="none", pair_head=False, zero_pad_rows=True
)
ELECTRA = Electra(
    encoder=dataclasses.replace(BERT, pooler="first", mlm_head=False, pair_head=False), generator_hidden=0.5
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("warm") / "data"


def draw(model, seed=0):
    """Parameters without compiling anything."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), model.abstract_params()
    )


def sevens(model):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), model.abstract_params())


def warmed(data, model, origin):
    """What `start.warm_start` makes of parameters that are all 7."""
    electra = isinstance(model, Electra)
    run = dataclasses.replace(
        make(data),
        model=model,
        objective=ReplacedTokenDetection(length=16) if electra else MaskedLM(length=16),
        optimizer=berts(),
    )
    return start.warm_start(run, sevens(model), str(origin))


def exact(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_from_a_directory_of_bert_scanned_or_not(data, tmp_path):
    params = draw(BERT)
    export_encoder(BERT, params, tmp_path)
    found, (report,) = warmed(data, BERT, tmp_path)
    exact(found, params)
    scanned = dataclasses.replace(BERT, scan_layers=True)
    found, (report,) = warmed(data, scanned, tmp_path)
    assert "layers converted to scanned" in report
    np.testing.assert_array_equal(
        found["layers"]["mlp"]["wi"]["kernel"][1], params["layers_1"]["mlp"]["wi"]["kernel"]
    )


def test_from_a_classifier_its_encoder(data, tmp_path):
    model = EncoderWithHead(
        encoder=dataclasses.replace(BERT, mlm_head=False, pair_head=False),
        head="classification",
        num_labels=3,
    )
    params = draw(model)
    export_encoder(model, params, tmp_path)
    found, report = warmed(data, BERT, tmp_path)
    exact(found["embeddings"], params["encoder"]["embeddings"])
    assert (found["mlm"]["bias"] == 7).all() and "missing there, drawn at random" in "\n".join(report)


@pytest.mark.parametrize("sharing", ["embeddings", "none"])
def test_electra_goes_on_whatever_it_shares(sharing, data, tmp_path):
    params = draw(ELECTRA)
    export_encoder(ELECTRA, params, tmp_path)
    wider = {} if sharing == "embeddings" else {"embedding_size": 16}
    model = dataclasses.replace(
        ELECTRA, sharing=sharing, encoder=dataclasses.replace(ELECTRA.encoder, **wider)
    )
    found, report = warmed(data, model, tmp_path)
    exact(model.encoder_params(found), ELECTRA.encoder_params(params))
    exact(found["discriminator"]["detection"], params["discriminator"]["detection"])
    layer = found["generator"]["layers_0"]["mlp"]["wi"]["kernel"]
    np.testing.assert_array_equal(layer, params["generator"]["layers_0"]["mlp"]["wi"]["kernel"])
    if sharing == "none":  # its own tables are as narrow as itself
        assert (found["generator"]["embeddings"]["word"]["embedding"] == 7).all()
        assert "of another shape, drawn at random" in "\n".join(report)


@pytest.mark.parametrize(
    ("there", "here", "says"),
    [
        (MODEL, BERT, "these are weights of T5; the run trains BERT"),
        (ROBERTA, BERT, "these are weights of RoBERTa; the run trains BERT"),
        (BERT, ELECTRA, "these are weights of BERT; the run trains ELECTRA"),
    ],
)
def test_another_family_is_refused_with_both_names(there, here, says, data, tmp_path):
    (export_t5 if there is MODEL else export_encoder)(there, draw(there), tmp_path)
    with pytest.raises(UserError, match=says) as refusal:
        warmed(data, here, tmp_path)
    assert refusal.value.code == Exit.BAD_DATA and refusal.value.where == f"init_from={tmp_path}"


def test_an_embedding_of_another_size_is_refused_with_both_numbers(data, tmp_path):
    export_encoder(BERT, draw(BERT), tmp_path)
    with pytest.raises(UserError, match="the embedding there has 256 rows; the model's has 300"):
        warmed(data, dataclasses.replace(BERT, vocab_size=300), tmp_path)
