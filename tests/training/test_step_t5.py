"""The real thing: T5 and span corruption take the same steps scanned or unrolled, on one device and on meshes.

Tolerance: float32, sums in another order; losses agree to 2e-5 relative over four steps of Adafactor.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from t5x_like.data import counter
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.models.t5 import T5
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.training import partitioning, state, step
from t5x_like.training.optimizers import Adafactor
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Rsqrt

VOCABULARY = Vocabulary(size=250, sentinels=tuple(range(249, 149, -1)))
OBJECTIVE = SpanCorruption(inputs_length=32)
MODEL = T5(
    vocab_size=256, d_model=128, d_kv=32, num_heads=4, d_ff=256, num_layers=2, dropout=0.1, scan_layers=True
)
ROWS, STEPS = 8, 4

pytestmark = pytest.mark.slow  # seven compilations of a T5 step


def batch(number):
    """Rows of different lengths, so that microbatches and devices hold different numbers of targets."""
    random = np.random.default_rng(number)
    width = OBJECTIVE.window_length()
    lengths = random.integers(width // 3, width + 1, ROWS).astype(np.int32)
    tokens = random.integers(3, 150, (ROWS, width), dtype=np.int32) * (np.arange(width) < lengths[:, None])
    windows = Windows(tokens=tokens.astype(np.int32), lengths=lengths, vocabulary=VOCABULARY)
    keys = counter.fold(counter.seed_key(number), np.arange(ROWS))
    return OBJECTIVE.examples(windows, keys)


def train(model, mesh, microbatches=1):
    """The mean losses of the first steps."""
    args = (model, Adafactor(), Rsqrt(warmup=100), mesh)
    now = state.create(*args, seed=0)
    one = step.make_train_step(model, OBJECTIVE, *args[1:], microbatches=microbatches)
    sums = []
    for number in range(STEPS):
        now, found = one(now, partitioning.shard_batch(batch(number), mesh))
        sums.append(jax.device_get(found["loss"]))
    return [total / weight for total, weight in sums]


@functools.cache
def alone(model):
    """The losses on one device, and proof that they move."""
    losses = train(model, Mesh().build(jax.devices()[:1]))
    assert max(losses) - min(losses) > 1e-3
    return losses


UNROLLED = dataclasses.replace(MODEL, scan_layers=False)


@pytest.mark.parametrize(
    "mesh", [Mesh(), Mesh(data=2, fsdp=2, tensor=2), Mesh(data=1, fsdp=4, tensor=2)], ids=str
)
def test_every_mesh_takes_the_same_steps(mesh):
    np.testing.assert_allclose(train(MODEL, mesh.build()), alone(MODEL), rtol=2e-5)


def test_scanned_and_unrolled_layers_take_the_same_steps():
    np.testing.assert_allclose(alone(UNROLLED), alone(MODEL), rtol=2e-5)


def test_unrolled_layers_in_microbatches_on_a_mesh():
    # Dropout is drawn per microbatch: compare without.
    scanned, unrolled = (dataclasses.replace(model, dropout=0.0) for model in (MODEL, UNROLLED))
    found = train(unrolled, Mesh(data=4, tensor=2).build(), microbatches=2)
    np.testing.assert_allclose(found, alone(scanned), rtol=2e-5)
