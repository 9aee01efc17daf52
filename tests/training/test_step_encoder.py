"""BERT with next sentence prediction, and ELECTRA: both have two losses with weights of their own, and take the same
steps in microbatches, on meshes, scanned or unrolled.

Tolerance: float32, sums in another order; losses agree to 2e-5 relative over four steps, as T5's do.
"""

import dataclasses

import jax
import numpy as np
import pytest

from t5x_like.data import counter
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.training import partitioning, state, step
from t5x_like.training.adam import berts
from t5x_like.training.meter import mean
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Linear

VOCABULARY = Vocabulary(size=256, pad=0, unk=1, cls=2, sep=3, mask=4)
# Without dropout, whose masks are drawn a microbatch at a time.
BERT = Encoder(
    vocab_size=256, hidden_size=32, num_layers=2, num_heads=2, d_ff=64, max_positions=32, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
ELECTRA = Electra(
    encoder=dataclasses.replace(BERT, pooler="first", mlm_head=False, pair_head=False, embedding_size=16),
    generator_hidden=0.5,
)
# Samples are drawn a microbatch at a time too; this cold, they are the likeliest id, whatever the draw.
COLD = ReplacedTokenDetection(length=32, temperature=1e-6)
FAMILIES = {"bert": (BERT, MaskedLM(length=32)), "electra": (ELECTRA, COLD)}
ROWS, STEPS = 8, 4

pytestmark = pytest.mark.slow  # five compilations of a step


def batch(objective, number):
    """Rows of different lengths, so that microbatches and devices hold different numbers of predictions; the tokens
    follow a rule, and one row is empty."""
    random = np.random.default_rng(number)
    width = 28
    lengths = random.integers(6, width + 1, ROWS).astype(np.int32)
    lengths[number % ROWS] = 0
    tokens = 5 + (random.integers(0, 250, (ROWS, 1)) + 3 * np.arange(width)) % 250
    windows = Windows(
        tokens=(tokens * (np.arange(width) < lengths[:, None])).astype(np.int32),
        lengths=lengths,
        vocabulary=VOCABULARY,
        first_lengths=(lengths // 2).astype(np.int32),
        pair_labels=random.integers(0, 2, ROWS).astype(np.int32),
    )
    return objective.examples(windows, counter.fold(counter.seed_key(number), np.arange(ROWS)))


def unrolled(model):
    if isinstance(model, Electra):
        return dataclasses.replace(model, encoder=unrolled(model.encoder))
    return dataclasses.replace(model, scan_layers=False)


def train(model, objective, mesh, microbatches=1):
    """All means of the first steps."""
    args = (model, berts(), Linear(peak=1e-3, warmup=2, steps=100), mesh)
    now = state.create(*args, seed=0)
    one = step.make_train_step(model, objective, *args[1:], microbatches=microbatches, clip_global_norm=1.0)
    found = []
    for number in range(STEPS):
        now, sums = one(now, partitioning.shard_batch(batch(objective, number), mesh))
        found.append(mean([jax.device_get(sums)], objective.terms))
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_microbatches_take_the_same_steps_unrolled_and_on_a_mesh(name):
    model, objective = FAMILIES[name]
    first = Mesh().build(jax.devices()[:1])
    wanted = train(model, objective, first)
    for term in ("loss", *objective.terms):  # they move
        assert np.ptp([means[term] for means in wanted]) > 1e-3, term
    cases = [(unrolled(model), Mesh(data=2, fsdp=2, tensor=2).build(), 2)]
    if name == "bert":
        cases.append((model, first, 4))
    for given, mesh, microbatches in cases:
        for a, b in zip(train(given, objective, mesh, microbatches), wanted, strict=True):
            np.testing.assert_allclose([a[n] for n in b], [*b.values()], rtol=2e-5, atol=1e-7)
