"""T5, BERT and ELECTRA take the same steps on every mesh of eight devices as on one: all twenty ways to give eight
devices to data, fsdp, sequence and tensor, and `pmap`; scanned or unrolled, with or without recomputation, the batch
in one piece or in microbatches.

Tolerance: float32, sums in another order; losses agree to 2e-5 relative over three steps.
"""

import dataclasses
import functools
import itertools
import os
import re

import jax
import numpy as np
import pytest

from t5x_like.data import counter
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.t5 import T5
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training import partitioning, state, step
from t5x_like.training.adam import berts
from t5x_like.training.meter import mean
from t5x_like.training.optimizers import Adafactor
from t5x_like.training.partitioning import AXES, Mesh
from t5x_like.training.schedules import Linear, Rsqrt

LENGTH, ROWS, STEPS = 32, 16, 3
TEXT = Vocabulary(size=250, sentinels=tuple(range(249, 149, -1)))
PIECES = Vocabulary(size=256, pad=0, unk=1, cls=2, sep=3, mask=4)

BERT = Encoder(vocab_size=256, hidden_size=32, num_layers=2, num_heads=2, d_ff=64, max_positions=32)
ELECTRA = Electra(
    encoder=dataclasses.replace(
        BERT, pooler="first", mlm_head=False, pair_head=False, embedding_size=16, num_layers=1
    ),
    generator_hidden=0.5,
)
FAMILIES = {
    "t5": (
        T5(vocab_size=256, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2, dropout=0.1),
        SpanCorruption(inputs_length=LENGTH),
        Adafactor(factor_from=16),
        Rsqrt(warmup=100),
    ),
    "bert": (BERT, MaskedLM(length=LENGTH), berts(), Linear(peak=1e-3, warmup=2, steps=100)),
    "electra": (
        ELECTRA,
        ReplacedTokenDetection(length=LENGTH),
        berts(),
        Linear(peak=1e-3, warmup=2, steps=100),
    ),
}
SHAPES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=4) if np.prod(shape) == 8]
# Scanned, recomputed, microbatches: each mesh with one of them, each of them with several meshes of each family.
VARIANTS = [
    (True, "none", 1), (True, "full", 2), (False, "none", 1), (True, "attention", 1), (True, "none", 2),
    (False, "full", 2), (True, "full", 1),
]  # fmt: skip
CASES = [
    (name, shape, VARIANTS[(i + 2 * f) % len(VARIANTS)])
    for f, name in enumerate(FAMILIES)
    for i, shape in enumerate(SHAPES)
]
EVERY = "T5X_LIKE_EVERY_MESH" in os.environ
"""All sixty take a quarter of an hour of CPU. Without it each mesh is tried with one family of the three."""


@functools.cache
def batch(name, number):
    """Rows of different lengths, so that microbatches and devices hold different numbers of targets; one is empty."""
    objective = FAMILIES[name][1]
    random = np.random.default_rng(number)
    width = objective.window_length() if name == "t5" else 28
    lengths = random.integers(width // 4, width + 1, ROWS).astype(np.int32)
    lengths[number % ROWS] = 0 if name != "t5" else width
    tokens = 5 + (random.integers(0, 140, (ROWS, 1)) + 3 * np.arange(width)) % 140
    windows = Windows(
        tokens=(tokens * (np.arange(width) < lengths[:, None])).astype(np.int32),
        lengths=lengths,
        vocabulary=TEXT if name == "t5" else PIECES,
        first_lengths=(lengths // 2).astype(np.int32),
        pair_labels=random.integers(0, 2, ROWS).astype(np.int32),
    )
    return objective.examples(windows, counter.fold(counter.seed_key(number), np.arange(ROWS)))


def changed(model, **fields):
    """A model with other fields, those of an encoder inside it too."""
    if isinstance(model, Electra):
        return dataclasses.replace(model, encoder=changed(model.encoder, **fields))
    return dataclasses.replace(model, **fields)


@functools.cache
def initial(name, scan):
    """Parameters on the host, drawn once: they are the same on every mesh (tests/training/test_step.py)."""
    return jax.device_get(changed(FAMILIES[name][0], scan_layers=scan).init(jax.random.key(0)))


def train(name, mesh, scan=False, remat="none", microbatches=1, partitioner="jit", chance=None):
    """All means of the first steps. `chance`: with dropout and samples, which are drawn a microbatch at a time."""
    model, objective, optimizer, schedule = FAMILIES[name]
    model = changed(model, scan_layers=scan, remat=remat)
    if chance is False or (chance is None and microbatches > 1):
        still = {"dropout": 0.0} if name == "t5" else {"dropout": 0.0, "attention_dropout": 0.0}
        model = changed(model, **still)
        if name == "electra":  # this cold, samples are the likeliest id, whatever the draw
            objective = dataclasses.replace(objective, temperature=1e-6)
    args = (model, optimizer, schedule, mesh)
    params = initial(name, scan)
    fresh = state.TrainState(
        step=np.int32(0),
        params=params,
        opt_state=jax.eval_shape(optimizer.build(schedule, model.logical_axes()).init, params),
        skipped=np.int32(0),
    )
    fresh = jax.tree.map(  # moments begin at zero
        lambda x: np.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, fresh
    )
    now = jax.device_put(fresh, jax.tree.map(lambda leaf: leaf.sharding, state.abstract(*args)))
    one = step.make_train_step(
        model, objective, *args[1:], microbatches=microbatches, clip_global_norm=1.0, partitioner=partitioner
    )
    found = []
    for number in range(STEPS):
        now, sums = one(now, partitioning.shard_batch(batch(name, number), mesh))
        found.append(mean([jax.device_get(sums)], objective.terms))
    return found


@functools.cache
def alone(name, chance):
    """The means on one device, scanned, in one piece, and proof that they move."""
    found = train(name, Mesh().build(jax.devices()[:1]), scan=True, chance=chance)
    for term in ("loss", *FAMILIES[name][1].terms):
        assert np.ptp([means[term] for means in found]) > 1e-3, term
    return found


def check(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose([a[n] for n in b], [*b.values()], rtol=2e-5, atol=1e-7)


def test_the_cases_cover_every_mesh_and_every_variant():
    assert len(SHAPES) == 20 and len(CASES) == 60
    for name in FAMILIES:
        assert {case[2] for case in CASES if case[0] == name} == set(VARIANTS)
    assert {shape for number, (_, shape, _) in enumerate(CASES) if chosen(number)} == set(SHAPES)


def chosen(number):
    """ELECTRA, two networks, takes longest to compile, and gets the fewest."""
    family, shape = divmod(number, len(SHAPES))
    return EVERY or family == (0, 0, 1, 1, 2)[shape % 5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "variant"),
    [case for number, case in enumerate(CASES) if chosen(number)],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_every_mesh_takes_the_same_steps(name, shape, variant):
    mesh = Mesh(**dict(zip(AXES, shape, strict=True))).build()
    check(train(name, mesh, *variant), alone(name, variant[2] == 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_pmap_takes_the_same_steps(name):
    """Dropout and ELECTRA's samples included: they depend on a row's number in the whole batch."""
    check(train(name, Mesh().build(), scan=True, partitioner="pmap"), alone(name, True))


@pytest.mark.parametrize("name", ["t5", "electra"])
def test_activations_are_placed_too(name):
    """In the program that the compiler is given, for whatever platform: hidden states, heads, feed-forward units."""
    model, objective, _, _ = FAMILIES[name]
    model, mesh = changed(model, scan_layers=True), Mesh(fsdp=2, sequence=2, tensor=2).build()
    lowered = step.make_eval_step(model, objective, mesh).lower(model.abstract_params(), batch(name, 0))
    placed = set(
        re.findall(r"sharding_constraint %\S+ <@mesh, (\[.*?\])> : tensor<(\S+)xf32>", lowered.as_text())
    )
    heads, width = (4, 8) if name == "t5" else (2, 16)
    assert {
        ('[{"data", "fsdp"}, {"sequence"}, {}]', f"{ROWS}x{LENGTH}x32"),
        ('[{"data", "fsdp"}, {"tensor"}, {"sequence"}, {}]', f"{ROWS}x{heads}x{LENGTH}x{width}"),
        ('[{"data", "fsdp"}, {"sequence"}, {"tensor"}]', f"{ROWS}x{LENGTH}x64"),
    } <= placed
