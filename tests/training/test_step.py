"""State and step on a toy model: equal updates for any mesh and any number of microbatches, shards, skipped steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.training import partitioning, state, step
from t5x_like.training.optimizers import Adafactor, AdamW, Optax
from t5x_like.training.partitioning import Mesh
from t5x_like.training.schedules import Constant, Linear

VOCAB, WIDTH, HIDDEN, LAYERS = 256, 128, 256, 2


@dataclasses.dataclass(frozen=True)
class Descent(Optax):
    """Plain gradient descent; hashable, unlike its parent."""

    name: str = "sgd"
    __hash__ = object.__hash__


SGD = Descent()
MESHES = [
    Mesh(),
    Mesh(data=2, fsdp=2, tensor=2),
    Mesh(data=1, fsdp=4, tensor=2),
    Mesh(data=1, fsdp=1, tensor=8),
]


class Toy:
    """Embedding, two stacked feed-forward layers, an output kernel."""

    def init(self, key):
        numbers = jax.random.normal(key, (LAYERS + 1, max(VOCAB, HIDDEN), WIDTH))
        layers = numbers[:LAYERS, :HIDDEN]
        return {
            "embedding": numbers[LAYERS, :VOCAB],
            "layers": {
                "scale": jnp.ones((LAYERS, WIDTH)),
                "wi": layers.swapaxes(1, 2) * WIDTH**-0.5,
                "wo": layers * HIDDEN**-0.5,
            },
            "head": numbers[LAYERS, :VOCAB].T * WIDTH**-0.5,
        }

    def abstract_params(self):
        return jax.eval_shape(self.init, jax.random.key(0))

    def logical_axes(self):
        layers = {
            "scale": ("layers", "embed"),
            "wi": ("layers", "embed", "mlp"),
            "wo": ("layers", "mlp", "embed"),
        }
        return {"embedding": ("vocab", "embed"), "layers": layers, "head": ("embed", "vocab")}


@dataclasses.dataclass
class NextToken:
    """Weighted cross-entropy; `dropout` of the embedded tokens where there is a key."""

    dropout: float = 0.0

    @property
    def terms(self):
        return {"loss": 1.0}

    def loss(self, model, params, batch, rngs):
        x = params["embedding"][batch["inputs"]]
        if rngs is not None and self.dropout:
            x = x * jax.random.bernoulli(rngs["dropout"], 1 - self.dropout, x.shape)
        for i in range(LAYERS):
            layer = jax.tree.map(lambda p: p[i], params["layers"])  # noqa: B023
            x = x + jax.nn.relu((x * layer["scale"]) @ layer["wi"]) @ layer["wo"]
        log_probs = jax.nn.log_softmax(x @ params["head"])
        losses = -jnp.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
        hits = (log_probs.argmax(-1) == batch["targets"]) * batch["weights"]
        weight = batch["weights"].sum()
        return {"loss": ((losses * batch["weights"]).sum(), weight), "accuracy": (hits.sum(), weight)}


@dataclasses.dataclass
class TwoTerms:
    """Next tokens, weighted by the batch, and 50 times the mean over rows of their first output squared."""

    factors: tuple[float, float] = (1.0, 50.0)

    @property
    def terms(self):
        return {"cross_entropy": self.factors[0], "square": self.factors[1]}

    def loss(self, model, params, batch, rngs):
        tokens = NextToken().loss(model, params, batch, rngs)
        first = params["embedding"][batch["inputs"][:, 0]] @ params["head"]
        rows = jnp.where(batch["weights"][:, 0] > 0, jnp.square(first).mean(-1), 0.0)
        return {"cross_entropy": tokens["loss"], "square": (rows.sum(), (batch["weights"][:, 0] > 0).sum())}


def batches(count, rows=16, length=6):
    random = np.random.default_rng(0)
    for _ in range(count):
        inputs = random.integers(0, VOCAB, (rows, length), dtype=np.int32)
        # Rows of very different weight, some of none: a mean of means over microbatches would show.
        weights = (np.arange(length) < random.integers(0, length + 1, (rows, 1))).astype(np.float32)
        yield {"inputs": inputs, "targets": (inputs * 7 + 3) % VOCAB, "weights": weights}


@functools.cache
def fresh(optimizer):
    """A new state, on the host; it is the same for every mesh and schedule (tested below)."""
    mesh = Mesh().build(jax.devices()[:1])
    return jax.device_get(state.create(Toy(), optimizer, Constant(), mesh, seed=0))


def train(mesh, optimizer, *, objective=NextToken(), schedule=Constant(rate=1e-2), feed=None, **options):
    """(losses, last sums, state) after a step on each batch of `feed`."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.abstract(Toy(), optimizer, schedule, mesh))
    now = jax.device_put(fresh(optimizer), shardings)
    one = step.make_train_step(Toy(), objective, optimizer, schedule, mesh, **options)
    losses, sums = [], {}
    for batch in feed or batches(3):
        placed = partitioning.shard_batch(batch, mesh)
        with jax.transfer_guard("disallow"):
            now, sums = one(now, placed)
        with np.errstate(invalid="ignore"):  # a skipped step sums up to 0 / 0
            losses.append(np.divide(*jax.device_get(sums[next(iter(objective.terms))])))
    return losses, jax.device_get(sums), now


def assert_close(a, b, tolerance):
    """Equal relative to the largest entry of each array."""
    for x, y in zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1e-30))


@pytest.fixture(scope="module")
def one_device():
    return Mesh().build(jax.devices()[:1])


@pytest.fixture(scope="module")
def reference(one_device):
    return train(one_device, Adafactor())


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_every_mesh_takes_the_same_steps(mesh, reference):
    found, _, last = train(mesh.build(), Adafactor())
    np.testing.assert_allclose(found, reference[0], rtol=1e-5)
    assert_close(last.params, reference[2].params, 1e-5)


@pytest.mark.parametrize(("microbatches", "mesh"), [(2, None), (4, None), (4, MESHES[1])], ids=str)
def test_microbatches_do_not_change_the_update(microbatches, mesh, one_device, reference):
    wanted, wanted_sums, wanted_state = reference
    found, sums, last = train(mesh.build() if mesh else one_device, Adafactor(), microbatches=microbatches)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert_close(last.params, wanted_state.params, 1e-6)
    np.testing.assert_allclose(sums["grad_norm"], wanted_sums["grad_norm"], rtol=1e-5)
    assert sums["accuracy"] == wanted_sums["accuracy"]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_pmap_takes_the_same_steps(microbatches, reference, one_device):
    mesh = Mesh().build()
    found, sums, last = train(mesh, Adafactor(), microbatches=microbatches, partitioner="pmap")
    np.testing.assert_allclose(found, reference[0], rtol=1e-5)
    np.testing.assert_allclose(sums["grad_norm"], reference[1]["grad_norm"], rtol=1e-5)
    assert_close(last.params, reference[2].params, 1e-5)


@pytest.mark.parametrize(
    ("microbatches", "mesh", "partitioner"),
    [
        (1, None, "jit"), (4, None, "jit"), (1, MESHES[1], "jit"), (2, MESHES[1], "jit"),
        (1, Mesh(), "pmap"), (2, Mesh(), "pmap"),
    ],
    ids=str,
)  # fmt: skip
def test_several_terms_are_each_divided_by_the_weight_of_the_whole_batch(
    microbatches, mesh, partitioner, one_device
):
    (batch,) = batches(1)
    params = fresh(SGD).params

    def wanted(params):
        losses = TwoTerms().loss(Toy(), params, batch, None)
        (a, of_a), (b, of_b) = losses["cross_entropy"], losses["square"]
        return a / of_a + 50.0 * b / of_b

    grads = jax.jit(jax.grad(wanted))(params)
    _, sums, last = train(
        mesh.build() if mesh else one_device,
        SGD,
        objective=TwoTerms(),
        schedule=Constant(rate=1.0),
        feed=[batch],
        microbatches=microbatches,
        partitioner=partitioner,
    )
    moved = jax.tree.map(lambda p, q: p - q, params, jax.device_get(last.params))
    assert_close(moved, grads, 2e-5)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(sums["grad_norm"][0], norm, rtol=1e-5)
    assert sums["cross_entropy"][1] == batch["weights"].sum()


def test_the_weights_of_several_terms_cost_no_second_forward_pass(one_device):
    def flops(objective, microbatches):
        args = (Toy(), SGD, Constant(), one_device)
        one = step.make_train_step(Toy(), objective, *args[1:], microbatches=microbatches)
        placed = partitioning.shard_batch(next(batches(1)), one_device)
        return (
            one.lower(state.abstract(*args), jax.eval_shape(lambda: placed))
            .compile()
            .cost_analysis()["flops"]
        )

    # XLA counts the body of the loop over microbatches once: half the batch. With one forward pass more: 0.84.
    assert flops(TwoTerms(), 2) / flops(TwoTerms(), 1) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("clip", [None, 0.25])
def test_the_update_is_the_clipped_gradient_of_the_mean(clip, one_device):
    (batch,) = batches(1)
    params = fresh(SGD).params

    def mean(params):
        total, weight = NextToken().loss(Toy(), params, batch, None)["loss"]
        return total / weight

    grads = jax.jit(jax.grad(mean))(params)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    assert norm > 0.5
    share = 1.0 if clip is None else clip / norm
    _, sums, last = train(one_device, SGD, schedule=Constant(rate=1.0), feed=[batch], clip_global_norm=clip)
    assert_close(last.params, jax.tree.map(lambda p, g: p - share * g, params, grads), 1e-6)
    np.testing.assert_allclose(sums["grad_norm"][0], norm, rtol=1e-5)  # before clipping


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(one_device):
    good, bad = batches(2)
    bad["weights"][3, 2] = np.inf
    _, _, wanted = train(one_device, AdamW(), feed=[good])
    losses, sums, last = train(one_device, AdamW(), feed=[good, bad])
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    assert (int(last.step), int(last.skipped), int(last.opt_state.updates)) == (2, 1, 1)
    assert_close(last.params, wanted.params, 1e-6)
    assert_close(last.opt_state.mu, wanted.opt_state.mu, 1e-5)
    assert sums["nonfinite"] == (1, 1) and sums["loss"] == (0, 0) and sums["grad_norm"] == (0, 0)


def test_the_learning_rate_shown_is_the_one_used(one_device):
    good, bad, after = batches(3)
    bad["weights"][:] = 0.0  # nothing to learn from: 0/0 is not finite
    schedule = Linear(peak=1.0, warmup=10, steps=100)
    _, sums, _ = train(one_device, AdamW(), schedule=schedule, feed=[good, bad, after])
    np.testing.assert_allclose(
        sums["learning_rate"], (0.2, 1.0), rtol=1e-6
    )  # the second update, on the third step


def test_dropout_is_a_function_of_seed_and_step(one_device):
    options = {
        "objective": NextToken(dropout=0.5),
        "feed": [next(batches(1))] * 2,
        "schedule": Constant(rate=0.0),
    }
    first, _, _ = train(one_device, SGD, **options)
    assert first[0] != first[1]  # the same batch and parameters, another step
    assert train(one_device, SGD, seed=1, **options)[0] != first
    on_mesh, _, _ = train(Mesh().build(), SGD, **options)
    np.testing.assert_allclose(on_mesh, first, rtol=1e-6)


def held(tree):
    """Bytes of the tree on the first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "optimizer", [Adafactor(), AdamW(), Optax(name="adamw")], ids=lambda o: type(o).__name__
)
def test_optimizer_state_is_split_like_the_parameters(optimizer):
    # Left to `jit`, Adam's moments come out whole on every device (google/jax issue 16080).
    mesh = Mesh(data=1, fsdp=4, tensor=2).build()
    before = state.create(Toy(), optimizer, Constant(), mesh, seed=0)
    placed = jax.tree.map(lambda leaf: leaf.sharding, before)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(before.params))
    scales = before.params["layers"]["scale"].nbytes  # split over fsdp only: 1/4
    assert held(before.params) == (total - scales) // 8 + scales // 4
    if isinstance(optimizer, Adafactor):
        moments = before.opt_state.moments
        assert moments["head"].row.addressable_shards[0].data.shape == (WIDTH // 4,)
        assert moments["head"].column.addressable_shards[0].data.shape == (VOCAB // 2,)
        assert moments["layers"]["wi"].row.addressable_shards[0].data.shape == (LAYERS, WIDTH // 4)
        assert moments["layers"]["scale"].addressable_shards[0].data.shape == (LAYERS, WIDTH // 4)
    else:
        counts = 2 * 4  # Optax keeps one for Adam and one for the schedule
        assert 2 * held(before.params) < held(before.opt_state) <= 2 * held(before.params) + counts
    one = step.make_train_step(Toy(), NextToken(), optimizer, Constant(), mesh)
    after, _ = one(before, partitioning.shard_batch(next(batches(1)), mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, after) == placed


def test_abstract_state_describes_the_real_one():
    mesh = Mesh(fsdp=2).build()
    real = state.create(Toy(), Adafactor(), Constant(), mesh, seed=0)
    promised = state.abstract(Toy(), Adafactor(), Constant(), mesh)
    assert jax.tree.structure(promised) == jax.tree.structure(real)
    for leaf, found in zip(jax.tree.leaves(promised), jax.tree.leaves(real)):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (found.shape, found.dtype, found.sharding)


def test_initial_parameters_do_not_depend_on_the_mesh(one_device):
    alone = state.create(Toy(), Adafactor(), Constant(), one_device, seed=3).params
    spread = state.create(Toy(), Adafactor(), Constant(), Mesh(fsdp=4, tensor=2).build(), seed=3).params
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(spread), jax.device_get(alone))


def test_the_step_compiles_ahead_and_donates(one_device):
    args = (Toy(), Adafactor(), Constant(), one_device)
    (batch,) = batches(1)
    placed = partitioning.shard_batch(batch, one_device)
    one = step.make_train_step(Toy(), NextToken(), Adafactor(), Constant(), one_device)
    compiled = one.lower(state.abstract(*args), jax.eval_shape(lambda: placed)).compile()
    before = state.create(*args, seed=0)
    after, _ = compiled(before, placed)
    assert int(after.step) == 1 and before.params["head"].is_deleted()


def test_evaluation_has_no_dropout_and_keeps_the_parameters():
    mesh, params, (batch,) = Mesh().build(), fresh(SGD).params, batches(1)
    placed = jax.device_put(params, partitioning.replicated(mesh))
    evaluate = step.make_eval_step(Toy(), NextToken(dropout=0.5), mesh)
    found = evaluate(placed, partitioning.shard_batch(batch, mesh))
    np.testing.assert_allclose(found["loss"], NextToken().loss(Toy(), params, batch, None)["loss"], rtol=1e-5)
    assert not placed["head"].is_deleted()
