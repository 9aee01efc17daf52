"""Replaced token detection: ELECTRA's masking, samples, labels, losses and gradients."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import BERT, keys, segments

from t5x_like.data import counter
from t5x_like.errors import UserError
from t5x_like.models import dropout
from t5x_like.models.electra import ELECTRA, Electra
from t5x_like.objectives import masking
from t5x_like.objectives import replaced_token_detection as rtd
from t5x_like.objectives.base import Objective
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection

MASK = 103


def row(batch: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    return {name: values[number] for name, values in batch.items()}


def test_defaults_are_electras() -> None:
    objective = ReplacedTokenDetection()
    assert isinstance(objective, Objective)
    assert objective.terms == {"cross_entropy": 1.0, "detection": 50.0}
    assert objective.summary == "replaced token detection 15%: 128 places, 19 predictions"
    assert ReplacedTokenDetection(length=512).num_predictions == 79
    assert ReplacedTokenDetection(length=512, mask_rate=0.25).num_predictions == 130


def test_rows_equal_the_published_loop() -> None:
    objective = ReplacedTokenDetection(length=40)
    lengths, firsts = [37, 20, 0, 1, 30], [10, 20, 0, 1, 5]
    given, k = segments(lengths, firsts), keys(5)
    batch = objective.examples(given, k)
    slots = objective.num_predictions
    ranks = counter.uniform(k, (slots,), masking._WITH_REPLACEMENT)
    shows = counter.uniform(k, (slots,), rtd._SHOW)
    for number, (n, first) in enumerate(zip(lengths, firsts, strict=True)):
        a, b = given.tokens[number, :first].tolist(), given.tokens[number, first:n].tolist()
        ids = [101, *a, 102] + ([*b, 102] if b else []) if n else []
        candidates = [place for place, i in enumerate(ids) if i not in (101, 102, 103)]
        wanted = max(1, min(slots, round(len(ids) * 0.15))) if n else 0
        drawn = [candidates[int(u * len(candidates))] for u in ranks[number, :wanted]]
        shown = list(ids)
        for place, u in zip(drawn, shows[number], strict=False):
            if u < 0.85:
                shown[place] = MASK
        rest = [0] * (slots - wanted)
        assert batch["masked_positions"][number].tolist() == drawn + rest
        assert batch["masked_targets"][number].tolist() == [ids[i] for i in drawn] + rest
        assert batch["masked_weights"][number].tolist() == [1] * wanted + rest
        assert batch["encoder_input_tokens"][number].tolist() == shown + [0] * (40 - len(ids))


def test_statistics_of_the_masking() -> None:
    """Over 133,120 tokens: 15 % are drawn, 14.0 % are distinct places, 85 % of the draws hide the token."""
    objective = ReplacedTokenDetection(length=512)
    batch = objective.examples(segments([509] * 260, [300] * 260), keys(260))
    drawn = batch["masked_weights"].sum(axis=1)
    assert set(drawn.tolist()) == {77}
    distinct = np.mean([len(set(p[w > 0].tolist())) for p, w in zip(*places(batch), strict=True)])
    n = 509
    assert distinct == pytest.approx(n * (1 - (1 - 1 / n) ** 77), abs=0.5)  # 71.5
    hidden = (batch["encoder_input_tokens"] == MASK).sum(axis=1).mean()
    assert hidden == pytest.approx(n * (1 - (1 - 0.85 / n) ** 77), rel=0.01)  # any copy of a place hides it
    at = batch["masked_positions"][batch["masked_weights"] > 0]
    assert not np.isin(at, [0, 301, 511]).any()  # [CLS], both [SEP]
    assert not np.isin(batch["masked_targets"][batch["masked_weights"] > 0], [101, 102, 103]).any()

    distinct_only = dataclasses.replace(objective, with_replacement=False)
    batch = distinct_only.examples(segments([509] * 50, [300] * 50), keys(50))
    assert all(len(set(p[w > 0].tolist())) == 77 for p, w in zip(*places(batch), strict=True))
    share = (batch["encoder_input_tokens"] == MASK).sum() / (50 * 77)
    assert share == pytest.approx(0.85, abs=0.025)


def places(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return batch["masked_positions"], batch["masked_weights"]


@pytest.mark.parametrize("with_replacement", [True, False])
def test_nothing_is_lost_and_rows_are_made_alone(with_replacement: bool) -> None:
    objective = ReplacedTokenDetection(length=40, with_replacement=with_replacement, mask_rate=0.4)
    given, k = segments([37, 12, 0, 3, 25], [20, 12, 0, 1, 10]), keys(5)
    batch = objective.examples(given, k)
    for number, n in enumerate(given.lengths):
        np.testing.assert_array_equal(objective.restore(row(batch, number), BERT), given.tokens[number, :n])
        one = slice(number, number + 1)
        names = ("tokens", "lengths", "word_starts", "first_lengths", "pair_labels")
        alone = dataclasses.replace(given, **{name: getattr(given, name)[one] for name in names})
        for name, value in objective.examples(alone, k[one]).items():
            np.testing.assert_array_equal(value[0], batch[name][number])


# ---- samples ----


def test_gumbel_noise_is_finite_whatever_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = jnp.array([0, 1, 2**32 - 2, 2**32 - 1], jnp.uint32)
    monkeypatch.setattr(dropout, "bits", lambda seed, shape: extremes)
    np.testing.assert_allclose(
        rtd.gumbel(jnp.zeros(2, jnp.uint32), (4,)), [-2.81, -2.81, 16.64, 16.64], atol=0.01
    )


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    noise = np.array(rtd.gumbel(jnp.array([1, 2], jnp.uint32), (50, 40, 100)), np.float64)
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize("temperature, disallow", [(1.0, False), (2.0, False), (1.0, True)])
def test_samples_follow_the_softmax(temperature: float, disallow: bool) -> None:
    objective = ReplacedTokenDetection(temperature=temperature, disallow_correct=disallow)
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03], np.float32))
    targets = jnp.zeros((200, 100), jnp.int32)
    key = {"dropout": jax.random.key(0)}
    samples = np.array(objective.sample(jnp.tile(logits, (200, 100, 1)), targets, key))
    wanted = np.exp(logits / temperature) * ([0, 1, 1, 1, 1] if disallow else 1)
    found = np.bincount(samples.ravel(), minlength=5) / samples.size
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.015)
    again = np.array(objective.sample(jnp.tile(logits, (200, 100, 1)), targets, key))
    np.testing.assert_array_equal(samples, again)
    other, fixed, fixed_again = (
        np.array(objective.sample(jnp.tile(logits, (200, 100, 1)), targets, rngs))
        for rngs in ({"dropout": jax.random.key(1)}, None, None)
    )
    assert (samples != other).mean() > 0.3
    np.testing.assert_array_equal(fixed, fixed_again)


def scatter_update(rows: np.ndarray, updates: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """pretrain_helpers.py: sums of updates over how many there are, rounded down; place 0 is never touched."""
    out = rows.copy()
    for b in range(len(rows)):
        for place in set(positions[b].tolist()) - {0}:
            found = updates[b][positions[b] == place]
            out[b, place] = found.sum() // len(found)
    return out


def test_replacement_of_duplicates() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(104, 1000, (30, 12))
    used = np.arange(8) < rng.integers(1, 9, 30)[:, None]
    positions = np.where(used, rng.integers(1, 12, (30, 8)), 0)
    samples = rng.integers(104, 1000, (30, 8))
    for mean in (True, False):
        at, real = jnp.asarray(positions), jnp.asarray(used)
        one = rtd.one_sample(jnp.asarray(samples), at, real, mean=mean)
        found = rtd.put(jnp.asarray(rows), at, real, one)
        if mean:
            expected = scatter_update(rows, samples, positions)
        else:  # a set: the first sample drawn for a place
            expected = rows.copy()
            for b in range(30):
                for k in np.flatnonzero(used[b])[::-1]:
                    expected[b, positions[b, k]] = samples[b, k]
        np.testing.assert_array_equal(np.array(found), expected)


# ---- losses ----


class Parts:
    """A model whose parameters are its outputs; it keeps what the discriminator was shown."""

    pad_id = 0

    def generator_logits(self, params: Any, batch: Any, rngs: Any) -> Any:
        return params["generator"]

    def discriminate(self, params: Any, tokens: Any, token_types: Any, rngs: Any) -> Any:
        self.shown = tokens
        return params["detection"]

    def detection_logits(self, params: Any, hidden: Any) -> Any:
        return hidden


@pytest.mark.parametrize("task", ["detection", "detection_masked"])
def test_losses_equal_numpy(task: Any) -> None:
    objective, rng = ReplacedTokenDetection(length=24, task=task, mask_rate=0.4), np.random.default_rng(0)
    given = segments([20, 0, 9, 21], [5, 0, 5, 20])
    batch = objective.examples(given, keys(4))
    logits = rng.normal(size=(4, objective.num_predictions, 1000)).astype(np.float32)
    logits[..., 150] += 6.0
    np.put_along_axis(logits, batch["masked_targets"][..., None], 7.0, axis=-1)  # some samples are right
    params = {"generator": logits, "detection": rng.normal(size=(4, 24)).astype(np.float32)}

    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        def detection(params: Any) -> Any:
            model = Parts()
            found = objective.loss(model, params, batch, {"dropout": jax.random.key(0)})
            return found["detection"][0], (found, model.shown)

        return jax.grad(detection, has_aux=True)(params)

    gradient, (losses, shown) = run(params, batch)
    shown = np.array(shown)
    originals = batch["encoder_input_tokens"].copy()
    drawn = np.zeros(originals.shape, bool)
    for b, k in zip(*np.nonzero(batch["masked_weights"]), strict=True):
        originals[b, batch["masked_positions"][b, k]] = batch["masked_targets"][b, k]
        drawn[b, batch["masked_positions"][b, k]] = True
    real, replaced = originals != 0, shown != originals
    assert not (replaced & ~drawn).any()
    assert not (
        shown == MASK
    ).any()  # the discriminator never sees [MASK]: kept and hidden places are both replaced
    assert replaced.any() and (drawn & ~replaced).any()
    assert not replaced[np.isin(originals, [101, 102])].any()
    asked = real if task == "detection" else drawn
    label, x = replaced.astype(float), params["detection"].astype(float)
    nll = -(label * np.log(1 / (1 + np.exp(-x))) + (1 - label) * np.log(1 / (1 + np.exp(x))))
    alarm = (x > 0) & asked
    expected = {
        "detection": (nll[asked].sum(), asked.sum()),
        "detection_accuracy": (((x > 0) == replaced)[asked].sum(), asked.sum()),
        "detection_precision": ((alarm & replaced).sum(), alarm.sum()),
        "detection_recall": ((alarm & replaced).sum(), (replaced & asked).sum()),
        "replaced": (replaced.sum(), real.sum()),
    }
    assert set(losses) == {*expected, "cross_entropy", "accuracy"}
    for name, value in expected.items():
        np.testing.assert_allclose(np.array(losses[name]), value, rtol=1e-5)
    assert float(losses["cross_entropy"][1]) == batch["masked_weights"].sum()  # each copy of a place counts
    assert not np.abs(gradient["generator"]).any()
    np.testing.assert_array_equal(gradient["detection"] != 0, asked)


def quick(f: Any) -> Any:
    """`jax.jit`, compiled in half the time."""
    return jax.jit(
        f, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    )


def tiny(**changes: Any) -> Electra:
    encoder = dataclasses.replace(
        ELECTRA, vocab_size=1000, hidden_size=16, embedding_size=16, num_layers=1, num_heads=2, d_ff=16,
        max_positions=24, mlm_head=changes.get("head") == "mlm", scan_layers=False,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return Electra(encoder=encoder, generator_hidden=1.0, **changes)


def parameters(model: Electra) -> Any:
    """Small random numbers, without compiling `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(0, 0.02, s.shape).astype(np.float32), model.abstract_params())


def test_no_gradient_from_the_discriminator_to_the_generator_but_through_what_they_share() -> None:
    objective, model = ReplacedTokenDetection(length=24), tiny()
    objective.check(model, BERT)
    batch: Any = objective.examples(segments([20, 9], [5, 5]), keys(2))

    @quick
    def gradients(params: Any, weights: Any) -> Any:
        def total(params: Any) -> Any:
            losses = objective.loss(model, params, batch, None)
            return sum(weights[name] * losses[name][0] for name in objective.terms)

        grads = jax.grad(total)(params)
        return {name: sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(part)) for name, part in grads.items()}

    params = parameters(model)
    by_detection = gradients(params, {"cross_entropy": 0.0, "detection": 1.0})
    assert by_detection["generator"] == 0
    assert by_detection["discriminator"] > 0 and by_detection["shared"] > 0
    by_generator = gradients(params, {"cross_entropy": 1.0, "detection": 0.0})
    assert by_generator["discriminator"] == 0
    assert by_generator["generator"] > 0 and by_generator["shared"] > 0


@pytest.mark.parametrize("task, copy", [("replace_mlm", False), ("all_tokens_mlm", True)])
def test_ablations_that_name_the_originals(task: Any, copy: bool) -> None:
    objective = ReplacedTokenDetection(length=24, task=task, detection_weight=1.0)
    model = tiny(head="mlm", copy=copy)
    objective.check(model, BERT)
    assert objective.terms == {"cross_entropy": 1.0, "discriminator_cross_entropy": 1.0}
    given = segments([20, 9], [5, 5])
    batch: Any = objective.examples(given, keys(2))
    losses = quick(lambda p: objective.loss(model, p, batch, None))(parameters(model))
    value, weight = (float(x) for x in losses["discriminator_cross_entropy"])
    if copy:  # untrained, half of the probability goes to copying: right where nothing was replaced
        replaced, real = (float(x) for x in losses["replaced"])
        assert weight == real == given.lengths.sum() + 6
        expected = (real - replaced) * -np.log(0.5 + 0.5 / 1000) + replaced * np.log(2000)
    else:
        assert weight == batch["masked_weights"].sum()
        expected = weight * np.log(1000)
    assert value == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "changes, model, says",
    [
        ({"mask_share": 1.5}, {}, "mask_share is 1.5"),
        ({"detection_weight": -1.0}, {}, "detection_weight is -1"),
        ({"temperature": 0.0}, {}, "temperature is 0"),
        ({"mask_rate": 0.0}, {}, "mask_rate is 0"),
        (
            {},
            {"kind": "encoder"},
            "needs a model of the kind generator-discriminator; SimpleNamespace is encoder",
        ),
        ({"task": "replace_mlm"}, {}, "needs a discriminator with the head 'mlm'; this one has 'detection'"),
        ({"task": "all_tokens_mlm"}, {"head": "mlm"}, "has a copy mechanism, and model.copy is False"),
        ({}, {"max_length": 64}, "length is 128, and the model has 64 positions"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], model: dict[str, Any], says: str) -> None:
    facts = {"kind": "generator-discriminator", "head": "detection", "copy": False}
    facts |= {"vocab_size": 1000, "max_length": 512, "pad_id": 0}
    ReplacedTokenDetection().check(SimpleNamespace(**facts), BERT)
    with pytest.raises(UserError, match=says):
        ReplacedTokenDetection(**changes).check(SimpleNamespace(**facts | model), BERT)
