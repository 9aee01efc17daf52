"""Decoding of T5: cached steps agree with teacher forcing, and outputs equal Hugging Face's `generate`."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.decoding.base import SpecialIds
from t5x_like.decoding.beam import Beam
from t5x_like.decoding.generate import generate, score
from t5x_like.decoding.sampling import greedy
from t5x_like.hub.t5 import import_t5
from t5x_like.models.t5 import T5

FIXTURES = Path(__file__).parent.parent / "fixtures"
IDS = SpecialIds(eos=1, pad=0)
NEW_TOKENS = 20
OTHERS = [("padded", 0.6, True), ("padded", 1.0, False), ("padded", 2.0, True), ("unpadded", 1.0, True)]


@pytest.fixture(scope="module", params=["t5_1_0", "t5_1_1"])
def case(request):
    folder = FIXTURES / request.param
    expected = np.load(folder / "expected.npz", allow_pickle=False)
    model, params = import_t5(str(folder))
    return model, params, expected


def same_tokens(out, sequences: np.ndarray) -> None:
    """Hugging Face's sequences begin with the start id; behind the end beam search fills with EOS where the padding
    id is 0 (`pad or eos`), so they are compared up to their end."""
    ours = np.asarray(out.tokens).reshape(len(sequences), NEW_TOKENS)
    for row, length, theirs in zip(ours, np.asarray(out.lengths).ravel(), sequences[:, 1:], strict=True):
        end = np.flatnonzero(theirs == IDS.eos)
        assert length == (end[0] + 1 if len(end) else NEW_TOKENS)
        np.testing.assert_array_equal(row[:length], theirs[:length])
        assert not row[length:].any()


@pytest.mark.parametrize("which", ["padded", "unpadded"])
def test_greedy_equals_hugging_face(case, which):
    model, params, expected = case
    out = generate(model, params, expected[f"generate/{which}/inputs"], strategy=greedy(NEW_TOKENS), ids=IDS)
    same_tokens(out, expected[f"generate/{which}/greedy"])


@pytest.mark.parametrize(
    "which, alpha, early",
    [
        ("padded", 0.6, False),
        ("padded", 1.0, True),
        ("unpadded", 2.0, False),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS),
    ],
)
def test_beam_search_equals_hugging_face(case, which, early, alpha):
    model, params, expected = case
    strategy = Beam(num_beams=4, max_length=NEW_TOKENS, penalty="hf", alpha=alpha, early_stopping=early)
    out = generate(model, params, expected[f"generate/{which}/inputs"], strategy=strategy, ids=IDS)
    at = f"generate/{which}/beam/lp{alpha}/early{int(early)}"
    same_tokens(out, expected[f"{at}/sequences"])
    np.testing.assert_allclose(np.asarray(out.scores).ravel(), expected[f"{at}/scores"], rtol=2e-5)


def test_scores_of_search_and_of_teacher_forcing_agree(case):
    model, params, expected = case
    inputs = expected["generate/padded/inputs"]
    out = generate(model, params, inputs, strategy=Beam(num_beams=3, max_length=12, alpha=0.0), ids=IDS)
    best = np.asarray(out.tokens)[:, 0]
    forced = np.asarray(score(model, params, inputs, best))
    for row, length in enumerate(np.asarray(out.lengths)[:, 0]):
        np.testing.assert_allclose(forced[row, :length].sum(), out.scores[row, 0], rtol=1e-4)


def test_search_does_not_copy_what_belongs_to_the_source():
    """The cache of the source comes back from a step as it went in, which is how `Beam` knows not to gather it."""
    model = T5(vocab_size=64, d_model=16, d_kv=4, num_heads=2, d_ff=16, num_layers=1, scan_layers=False)
    params = model.abstract_params()

    def step(params, inputs):
        cache = model.init_cache(params, model.encode(params, inputs), inputs != 0, 4)
        _, after = model.decode_step(params, cache, inputs[:, 0])
        kept = jax.tree.map(lambda old, new: new is old, cache, after)
        assert all(jax.tree.leaves(kept["cross"])) and kept["encoder_mask"]
        assert not any(jax.tree.leaves(kept["self"]))
        return after

    jax.eval_shape(step, params, jnp.ones((2, 5), jnp.int32))
