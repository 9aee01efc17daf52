from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import encoder_fixtures as fixtures
import jax
import numpy as np
import pytest
import safetensors.numpy

from t5x_like.data.wordpiece import SPECIAL, from_pieces
from t5x_like.errors import Exit, UserError
from t5x_like.hub.encoder_import import import_electra, import_encoder
from t5x_like.hub.encoders import export_encoder, to_hugging_face
from t5x_like.hub.pretrained import load_pretrained
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead
from t5x_like.models.stack import stack_layers

TINY = Encoder(
    vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, d_ff=24, max_positions=20, scan_layers=False
)
ROBERTA = dataclasses.replace(
    TINY, max_positions=22, position_offset=2, token_types=1, pooler="none", activation="gelu", eps=1e-5,
    truncated_init=False, zero_pad_rows=True, pad_id=1, pair_head=False,
)  # fmt: skip
DISCRIMINATOR = dataclasses.replace(
    TINY, embedding_size=8, pooler="first", activation="gelu", glorot_projection=True, mlm_head=False,
    pair_head=False,
)  # fmt: skip
ELECTRA = Electra(encoder=DISCRIMINATOR, generator_hidden=0.5)


def draw(model) -> dict:
    """Random parameters, none zero or equal to another."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), model.abstract_params())


def equal(a, b) -> bool:
    alike = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
    return bool(jax.tree.all(alike))


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def close(found, expected) -> None:
    """To 1e-5 of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= 1e-5 * np.abs(expected).max()


# ---- parity with transformers


def batch(kind: str, name: str = "") -> dict:
    known = fixtures.expected(kind)
    ids, types = ("choices", "choice_types") if name.endswith("Choice") else ("tokens", "types")
    return {"encoder_input_tokens": known[ids], "encoder_token_types": known[types]}


def run(model, params, features):
    # Operation by operation: these are compiled once for all classes.
    return model.apply(params, features)


@pytest.mark.parametrize(("name", "activation"), [("ForPreTraining", "gelu"), ("gelu_new", "gelu_new")])
def test_bert_for_pretraining(tmp_path, name, activation):
    model, params = import_encoder(
        fixtures.write(tmp_path / "x", "bert", "ForPreTraining", hidden_act=activation)
    )
    assert isinstance(model, Encoder)
    out, known = run(model, params, batch("bert")), fixtures.expected("bert")
    close(out["mlm_logits"], known[f"{name}/prediction_logits"])
    close(out["pair_logits"], known[f"{name}/seq_relationship_logits"])
    differing = np.abs(known["gelu_new/prediction_logits"] - known["ForPreTraining/prediction_logits"]).max()
    assert differing > 1e-4 * np.abs(known["ForPreTraining/prediction_logits"]).max(), (
        "the test tells them apart"
    )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_masked_language_modelling(tmp_path, kind):
    model, params = import_encoder(fixtures.write(tmp_path / "x", kind, "ForMaskedLM"))
    assert isinstance(model, Encoder) and model.pooler == "none"
    close(run(model, params, batch(kind))["mlm_logits"], fixtures.expected(kind)["ForMaskedLM/logits"])


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_bare_models(tmp_path, kind):
    model, params = import_encoder(fixtures.write(tmp_path / "x", kind, "Model"))
    assert isinstance(model, Encoder) and not (model.mlm_head or model.pair_head)
    known = fixtures.expected(kind)
    hidden = run(model, params, batch(kind))["hidden"]
    close(hidden, known["Model/last_hidden_state"])
    if kind != "electra":
        close(model.pooled(params, hidden), known["Model/pooler_output"])


def test_electras_two_networks(tmp_path):
    first = fixtures.write(tmp_path / "d", "electra", "ForPreTraining")
    second = fixtures.write_generator(tmp_path / "g")
    model, params = import_electra(first, second)
    assert (model.sharing, model.generator_hidden, model.head) == ("embeddings", 0.5, "detection")
    assert params.keys() == {"shared", "generator", "discriminator"}
    known = fixtures.expected("electra")
    close(run(model, params, batch("electra"))["detection_logits"], known["ForPreTraining/logits"])
    places = np.broadcast_to(np.arange(9), (4, 9))
    found = model.generator_logits(params, batch("electra") | {"masked_positions": places})
    close(found, known["generator/logits"])
    alone, own = import_encoder(first)
    assert isinstance(alone, Electra) and own.keys() == {"discriminator"}
    export_encoder(alone, own, tmp_path / "again")
    assert equal(import_encoder(tmp_path / "again")[1], own)
    close(run(alone, own, batch("electra"))["detection_logits"], known["ForPreTraining/logits"])


@pytest.mark.parametrize(
    "task", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]
)
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_heads_of_tasks(tmp_path, kind, task):
    model, params = import_encoder(fixtures.write(tmp_path / "x", kind, f"For{task}"))
    assert isinstance(model, EncoderWithHead)
    known = fixtures.expected(kind)
    logits = run(model, params, batch(kind, task))
    if task == "QuestionAnswering":
        close(logits[..., 0], known["ForQuestionAnswering/start_logits"])
        close(logits[..., 1], known["ForQuestionAnswering/end_logits"])
    else:
        close(logits, known[f"For{task}/logits"])
    export_encoder(model, params, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["architectures"] == [f"{kind.capitalize()}For{task}"]
    stored = [safetensors.numpy.load_file(tmp_path / name / "model.safetensors") for name in ("x", "again")]
    read = {name: array for name, array in stored[0].items() if name in stored[1]}
    assert equal(read, stored[1])


# ---- there and back


def heads() -> list[EncoderWithHead]:
    tasks = ("classification", "regression", "tagging", "span", "choice")
    styles = (("bert", TINY), ("roberta", ROBERTA), ("electra-hf", DISCRIMINATOR))
    found = [
        EncoderWithHead(
            encoder=encoder, head=task, style=style, num_labels=3 if task in tasks[::2][:2] else 1
        )
        for style, encoder in styles
        for task in tasks
    ]
    return [*found, EncoderWithHead(encoder=DISCRIMINATOR, head="choice", style="electra")]


@pytest.mark.parametrize(
    "model",
    [
        TINY,
        dataclasses.replace(TINY, pair_head=False),
        dataclasses.replace(TINY, mlm_head=False, activation="relu"),
        dataclasses.replace(TINY, mlm_head=False, pair_head=False),
        dataclasses.replace(TINY, pair_head=False, pooler="none"),
        ROBERTA,
        dataclasses.replace(ROBERTA, mlm_head=False),
        dataclasses.replace(DISCRIMINATOR, mlm_head=True),
        DISCRIMINATOR,
        ELECTRA,
        dataclasses.replace(ELECTRA, sharing="none"),
        dataclasses.replace(ELECTRA, sharing="all", generator_hidden=1.0),
        Electra(encoder=dataclasses.replace(DISCRIMINATOR, mlm_head=True), head="mlm", generator_hidden=0.5),
    ],
    ids=lambda model: "",
)  # fmt: skip
def test_exported_and_imported(tmp_path, model):
    params = draw(model)
    export_encoder(model, params, tmp_path / "out")
    again, found = load_pretrained(tmp_path / "out", on_host=True)
    assert again == model
    assert equal(params, found)
    export_encoder(again, found, tmp_path / "out2")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


@pytest.mark.parametrize("model", heads(), ids=lambda model: f"{model.style}-{model.head}")
def test_fine_tuned_models_exported_and_imported(tmp_path, model):
    params = draw(model)
    export_encoder(model, params, tmp_path / "out")
    again, found = import_encoder(tmp_path / "out", on_host=True)
    assert isinstance(again, EncoderWithHead)
    assert again.backbone == model.backbone
    assert (again.head, again.style, again.num_labels) == (model.head, model.style, model.num_labels) or (
        # What electra and electra-hf have in common is read as the latter.
        model.style.startswith("electra") and again.head == model.head
    )
    assert equal(params, found)


def test_exported_parameters_may_be_stacked(tmp_path):
    params = draw(TINY)
    scanned = dataclasses.replace(TINY, scan_layers=True)
    assert equal(to_hugging_face(TINY, params), to_hugging_face(scanned, stack_layers(params)))


def test_no_token_types_become_a_row_of_zeros(tmp_path):
    model = dataclasses.replace(ROBERTA, token_types=0)
    arrays = to_hugging_face(model, draw(model))
    assert not arrays["roberta.embeddings.token_type_embeddings.weight"].any()


# ---- what is refused


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (dataclasses.replace(TINY, pooler="first"), "no head for pairs"),
        (dataclasses.replace(TINY, embedding_size=8, pair_head=False), "no dense pooler"),
        (dataclasses.replace(ROBERTA, activation="gelu_tanh"), "the activation 'gelu', not 'gelu_tanh'"),
        (dataclasses.replace(ROBERTA, pad_id=0), "another row than pad_id"),
        (EncoderWithHead(encoder=TINY, head="span", style="roberta"), "the encoder is Bert's and the head's style"),
        (EncoderWithHead(encoder=DISCRIMINATOR, head="regression", style="electra"), "'electra-hf', not 'electra'"),
        (
            Electra(encoder=dataclasses.replace(DISCRIMINATOR, mlm_head=True), head="mlm", copy=True),
            "no copy mechanism",
        ),
    ],
)  # fmt: skip
def test_models_that_transformers_does_not_have(tmp_path, model, says):
    with pytest.raises(UserError, match=says):
        export_encoder(model, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_family_is_refused_with_both_names(tmp_path):
    fixtures.write(tmp_path / "x", "roberta", "ForMaskedLM")
    with pytest.raises(UserError, match="a checkpoint of 'roberta', and 'electra' is expected"):
        load_pretrained(tmp_path / "x", expect="electra")
    assert isinstance(load_pretrained(tmp_path / "x", expect="roberta")[0], Encoder)
    edit(tmp_path / "x", model_type="deberta")
    with pytest.raises(
        UserError, match="model_type is 'deberta'; expected one of t5, bert, roberta, electra"
    ):
        load_pretrained(tmp_path / "x")


def test_t5_is_loaded_too():
    model, _ = load_pretrained(fixtures.FIXTURES.parent / "t5_1_0", expect="t5")
    assert model.kind == "encoder-decoder"


def tokenizer(size: int):
    return from_pieces([*SPECIAL.values(), *(chr(ord("a") + i) * 2 for i in range(size - 5))], lowercase=True)


def test_a_tokenizer_of_another_size_is_refused_with_both_numbers(tmp_path):
    fixtures.write(tmp_path / "x", "bert", "Model")
    with pytest.raises(UserError, match="the tokenizer has 41 ids and the model rows for 40"):
        load_pretrained(tmp_path / "x", tokenizer=tokenizer(41))
    load_pretrained(tmp_path / "x", tokenizer=tokenizer(40))
    with pytest.raises(UserError, match="the tokenizer has 41 ids and the model rows for 40"):
        export_encoder(TINY, draw(TINY), tmp_path / "out", tokenizer(41))
    big = dataclasses.replace(TINY, vocab_size=1000)
    with pytest.raises(UserError, match="the tokenizer has 20 ids and the model rows for 1000"):
        export_encoder(big, draw(big), tmp_path / "out", tokenizer(20))
    with pytest.raises(UserError, match="padding is id 0 and the model's 1"):
        export_encoder(dataclasses.replace(TINY, pad_id=1), draw(TINY), tmp_path / "out", tokenizer(40))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "silu"}, "hidden_act is 'silu'"),
        ({"hidden_size": "16"}, "hidden_size is '16'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 3}, "hidden_size must be a multiple"),
        ({"num_hidden_layers": 3}, "16 missing: bert.encoder.layer.2"),
        ({"type_vocab_size": 3}, "1 of another shape: bert.embeddings.token_type_embeddings.weight"),
    ],
)
def test_configurations_that_cannot_be(tmp_path, changes, says):
    folder = fixtures.write(tmp_path / "x", "bert", "ForPreTraining", **changes)
    with pytest.raises(UserError, match=says) as refused:
        import_encoder(folder)
    assert str(refused.value.where).startswith(str(folder)) and refused.value.code == Exit.BAD_DATA


def change(folder: Path, **arrays) -> None:
    path = folder / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | arrays, path)


def test_copies_of_shared_arrays_must_agree(tmp_path):
    folder = fixtures.write(tmp_path / "x", "bert", "ForPreTraining")
    word = fixtures.stored("bert")["bert.embeddings.word_embeddings.weight"]
    change(folder, **{"cls.predictions.decoder.weight": word, "bert.embeddings.position_ids": np.arange(20)})
    import_encoder(folder)
    change(folder, **{"cls.predictions.decoder.weight": word + 1})
    with pytest.raises(UserError, match=r"cls.predictions.decoder.weight differs from bert.embeddings.word"):
        import_encoder(folder)


def test_names_of_the_oldest_checkpoints(tmp_path):
    folder = fixtures.write(tmp_path / "x", "bert", "ForPreTraining")
    expected = import_encoder(folder)
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in arrays.items()
    }
    assert old.keys() != arrays.keys()
    safetensors.numpy.save_file(old, path)
    again = import_encoder(folder)
    assert again[0] == expected[0] and equal(again[1], expected[1])


def test_strangers_are_named(tmp_path):
    folder = fixtures.write(tmp_path / "x", "bert", "ForTokenClassification")
    change(folder, **{"adapter.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"1 unexpected: adapter.weight"):
        import_encoder(folder)
    edit(folder, architectures=["BertModel"])
    with pytest.raises(UserError, match=r"a task's head, but architectures is \['BertModel'\]"):
        import_encoder(folder)
    edit(folder, architectures=["BertForQuestionAnswering"])
    with pytest.raises(UserError, match=r"the weights have no qa_outputs.weight"):
        import_encoder(folder)


def test_networks_that_do_not_belong_together(tmp_path):
    first = fixtures.write(tmp_path / "d", "electra", "ForPreTraining")
    second = fixtures.write_generator(tmp_path / "g")
    with pytest.raises(UserError, match="no discriminator"):
        import_electra(fixtures.write(tmp_path / "m", "electra", "Model"), second)
    with pytest.raises(UserError, match="no generator"):
        import_electra(first, first)
    edit(second, num_attention_heads=2)
    with pytest.raises(UserError, match="the generator's num_heads is 2; beside this discriminator it is 1"):
        import_electra(first, second)


# ---- in Hugging Face's hands


@pytest.mark.slow
def test_transformers_loads_what_is_exported(tmp_path):
    """Outputs and token ids of AutoModel and AutoTokenizer; runs where torch and transformers are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        pytest.skip("needs torch and transformers (extra `parity`)")
    folders = write_exports(tmp_path)
    script = Path(__file__).parent / "check_encoders_with_transformers.py"
    subprocess.run([sys.executable, script, *folders], check=True)


def write_exports(parent: Path) -> list[Path]:
    """One export for each class, with `expected.npz`; see check_encoders_with_transformers.py."""
    own = tokenizer(40)
    text = ["aa bb [MASK] cc dd", "ee, ff gg"]
    models = [
        TINY, dataclasses.replace(TINY, mlm_head=False, pair_head=False), ROBERTA, DISCRIMINATOR, ELECTRA,
        dataclasses.replace(DISCRIMINATOR, mlm_head=True), *heads(),
    ]  # fmt: skip
    folders = []
    for index, model in enumerate(models):
        params = draw(model)
        # Wide enough to matter, small enough that 1e-4 of a logit is no rounding.
        params = jax.tree.map(lambda leaf: 0.2 * leaf, params)
        folder = parent / f"{index}"
        export_encoder(model, params, folder, own if model.pad_id == 0 else None)
        rng = np.random.default_rng(index)
        shape = (2, 3, 7) if isinstance(model, EncoderWithHead) and model.head == "choice" else (3, 7)
        tokens = rng.integers(3, 40, shape)
        tokens[..., 1, 5:] = model.pad_id
        out = model.apply(params, {"encoder_input_tokens": tokens})
        out = {"logits": out} if isinstance(model, EncoderWithHead) else out
        arrays = {name: np.asarray(array) for name, array in out.items()}
        ids = [[own.vocabulary.cls, *own.encode(t), own.vocabulary.sep] for t in text]
        flat = {f"ids{i}": np.array(row) for i, row in enumerate(ids)}
        np.savez(
            folder / "expected.npz",
            tokens=tokens,
            mask=tokens != model.pad_id,
            texts=np.array(text),
            **flat,
            **arrays,
        )
        folders.append(folder)
    return folders
