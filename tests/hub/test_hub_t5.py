"""Hugging Face directories of T5: exact round trips, what they say of tying, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece

from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import UserError
from t5x_like.hub.t5 import export_t5, from_config, import_t5, key_table, to_config, to_hugging_face
from t5x_like.models.stack import stack_layers, unstack_layers
from t5x_like.models.t5 import T5, Params, t5_1_0, t5_1_1

FIXTURES = Path(__file__).parent.parent / "fixtures"
VARIANTS = ("t5_1_0", "t5_1_1")
TINY = T5(vocab_size=40, d_model=8, d_kv=4, num_heads=3, d_ff=12, num_layers=2, num_decoder_layers=1)


def equal(one: object, other: object) -> bool:
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), one, other)
    return jax.tree.all(same)


def draw(model: T5) -> Params:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), model.abstract_params()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the 1.1 fixture, to be spoiled."""
    copy = tmp_path / "model"
    shutil.copytree(FIXTURES / "t5_1_1", copy)
    return copy


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("variant", VARIANTS)
def test_their_files_come_back_bit_for_bit(variant: str, tmp_path: Path) -> None:
    model, params = import_t5(FIXTURES / variant)
    export_t5(model, params, tmp_path / "out")
    original = safetensors.numpy.load_file(FIXTURES / variant / "model.safetensors")
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert original.keys() == written.keys()
    assert equal(original, written)
    again = import_t5(tmp_path / "out")
    assert again[0] == model
    assert equal(again[1], params)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_our_parameters_come_back_bit_for_bit(scan: bool, tied: bool, tmp_path: Path) -> None:
    model = dataclasses.replace(TINY, scan_layers=scan, tie_embeddings=tied)
    params = draw(model)
    export_t5(model, params, tmp_path / "out")
    found, imported = import_t5(tmp_path / "out")
    assert found == dataclasses.replace(model, scan_layers=False)
    assert equal(stack_layers(imported) if scan else imported, params)


@pytest.mark.parametrize("model", [t5_1_0("small"), t5_1_1("small"), t5_1_1("base")])
def test_key_table_names_every_parameter_once(model: T5) -> None:
    table = key_table(model)
    assert len({key.name for key in table}) == len({key.path for key in table}) == len(table)
    leaves = jax.tree.flatten_with_path(dataclasses.replace(model, scan_layers=False).abstract_params())[0]
    assert {tuple(k.key for k in path) for path, _ in leaves} == {key.path for key in table}


@pytest.mark.parametrize("model", [t5_1_0("3B"), t5_1_1("xl"), dataclasses.replace(TINY, activation="relu")])
def test_configuration_round_trip(model: T5) -> None:
    config = json.loads(json.dumps(to_config(model)))
    assert from_config(config) == dataclasses.replace(model, num_decoder_layers=model.decoder_layers)


def test_tying_as_transformers_4_and_5_write_it() -> None:
    config = to_config(TINY)
    for flags, tied in (
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({}, True),
    ):
        given = {k: v for k, v in config.items() if k != "tie_word_embeddings"} | flags
        assert from_config(given).tie_embeddings is tied, flags


def test_unscaled_model_without_a_head_uses_its_embedding(folder: Path) -> None:
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    del arrays["lm_head.weight"]
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    model, params = import_t5(folder)
    assert not model.tie_embeddings
    assert np.array_equal(params["decoder"]["logits_dense"]["kernel"], arrays["shared.weight"].T)


def shard(folder: Path) -> dict[str, str]:
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    where = {name: f"model-{1 + i % 2:05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        safetensors.numpy.save_file({n: arrays[n] for n in names if where[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def test_shards_read_as_one(folder: Path) -> None:
    whole = import_t5(folder, on_host=True)
    shard(folder)
    assert equal(import_t5(folder, on_host=True)[1], whole[1])


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "x.bin"]
)
def test_index_that_leaves_the_folder_is_refused(folder: Path, file: str) -> None:
    where = shard(folder)
    where[min(where)] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match="a shard is a"):
        import_t5(folder)


def test_index_that_names_the_wrong_shard_is_refused(folder: Path) -> None:
    where = shard(folder)
    name = min(where)
    where[name] = next(file for file in where.values() if file != where[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match="does not hold it"):
        import_t5(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError, match="pickled weights are not read") as caught:
        import_t5(folder)
    assert name in caught.value.what


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"tail",
        struct.pack("<Q", 9) + b"not json!",
    ],
)
def test_damaged_files_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        import_t5(folder)


def test_every_kind_of_misfit_is_reported(folder: Path) -> None:
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    del arrays["encoder.final_layer_norm.weight"]
    arrays["adapter.weight"] = np.zeros(3, np.float32)
    arrays["shared.weight"] = arrays["shared.weight"][:-1]
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        import_t5(folder)
    assert "1 missing: encoder.final_layer_norm.weight" in caught.value.what
    assert "1 unexpected: adapter.weight" in caught.value.what
    assert "1 of another shape: shared.weight [63, 24] for [64, 24]" in caught.value.what


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "umt5"}, "model_type is 'umt5'"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj is 'gated-silu'"),
        ({"d_model": "24"}, "d_model is '24'"),
        ({"num_heads": None}, "num_heads is None"),
        ({"num_decoder_layers": "2"}, "num_decoder_layers is '2'"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from shared.weight"),
    ],
)
def test_configurations_that_cannot_be_are_refused(folder: Path, changes: dict, message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(UserError, match=message):
        import_t5(folder)


def test_half_precision_is_widened(folder: Path) -> None:
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    half = {k: v.astype(jnp.bfloat16) for k, v in arrays.items()}
    safetensors.numpy.save_file(half, folder / "model.safetensors")
    model, params = import_t5(folder)
    expected = {k: v.astype(np.float32) for k, v in half.items()}
    assert equal(to_hugging_face(model, params), expected)


def test_export_is_whole_or_absent(tmp_path: Path) -> None:
    params = draw(TINY)
    wrong = {k: v for k, v in params.items() if k != "token_embedder"}
    with pytest.raises(UserError, match="token_embedder/embedding"):
        export_t5(TINY, wrong, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    export_t5(TINY, params, tmp_path / "out")
    with pytest.raises(UserError, match="exists already"):
        export_t5(TINY, params, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


TEXTS = [
    "It was the best of times.",
    " two   spaces\n",
    "fill <extra_id_0> the <extra_id_1> blanks",
    "日本 ½ ﬁ",
    "",
]


def train_tokenizer(folder: Path, kind: str, byte_fallback: bool) -> None:
    text = "it was the best of times fill blanks two spaces and what not else may come here by and by"
    words = text.split()
    lines = [" ".join(words[i % 7 :: 1 + i % 5]) for i in range(400)]
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=50 + 256 * byte_fallback, model_type=kind,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=byte_fallback, minloglevel=2,
            hard_vocab_limit=False,
        )  # fmt: skip


def test_too_small_a_model_for_its_tokenizer_is_refused(tmp_path: Path) -> None:
    train_tokenizer(tmp_path, "unigram", False)
    with pytest.raises(UserError, match="the tokenizer has"):
        export_t5(TINY, draw(TINY), tmp_path / "out", load_tokenizer(tmp_path))


@pytest.mark.slow
def test_transformers_loads_what_is_exported(tmp_path: Path) -> None:
    """Logits and token ids in Hugging Face's hands; runs where torch and transformers are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        pytest.skip("needs torch and transformers (extra `parity`)")
    folders = write_exports(tmp_path)
    script = Path(__file__).parent / "check_with_transformers.py"
    subprocess.run([sys.executable, script, *folders], check=True)


def write_exports(parent: Path) -> list[Path]:
    """One export for each kind of model and tokenizer, each with its `expected.npz`."""
    folders = []
    rng = np.random.default_rng(0)
    for tied, kind, byte_fallback in (
        (True, "unigram", False),
        (False, "bpe", True),
        (False, "unigram", True),
    ):
        raw = parent / f"raw_{kind}_{byte_fallback}"
        raw.mkdir()
        train_tokenizer(raw, kind, byte_fallback)
        tokenizer = load_tokenizer(raw)
        model = dataclasses.replace(
            TINY, vocab_size=tokenizer.vocabulary.size + 3, tie_embeddings=tied, scan_layers=not tied,
            activation="relu" if tied else "gelu", gated=not tied,
        )  # fmt: skip
        params = draw(model)
        inputs = rng.integers(2, model.vocab_size, (3, 9))
        inputs[1, 4:] = 0
        decoder = np.concatenate([np.zeros((3, 1), int), rng.integers(2, model.vocab_size, (3, 5))], axis=1)
        batch = {
            "encoder_input_tokens": inputs, "decoder_input_tokens": decoder,
            "decoder_target_tokens": np.ones_like(decoder),
        }  # fmt: skip
        ids = [[*tokenizer.encode(text), tokenizer.vocabulary.eos] for text in TEXTS]
        longest = max(map(len, ids))
        folder = parent / f"export_{kind}_{byte_fallback}"
        export_t5(model, params, folder, tokenizer)
        np.savez(
            folder / "expected.npz", inputs=inputs, inputs_mask=inputs > 0, decoder_inputs=decoder,
            logits=model.apply(params, batch), texts=np.array(TEXTS),
            ids=np.array([row + [-1] * (longest - len(row)) for row in ids]),
        )  # fmt: skip
        folders.append(folder)
    return folders


def test_exported_parameters_may_be_stacked_or_not() -> None:
    scanned = draw(TINY)
    unrolled = dataclasses.replace(TINY, scan_layers=False)
    assert equal(to_hugging_face(TINY, scanned), to_hugging_face(unrolled, unstack_layers(scanned)))
