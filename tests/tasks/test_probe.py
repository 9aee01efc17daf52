"""Linear probes: the linear models against their optimality conditions, and a probe end to end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_tasks
from scipy import special

from t5x_like.errors import UserError
from t5x_like.tasks import pretrained, probe

RANDOM = pretrained.of(
    tiny_tasks.ENCODER, tiny_tasks.params(tiny_tasks.ENCODER), tiny_tasks.tokenizer(), "random numbers"
)


def test_softmax_regression_has_no_gradient_where_it_ends():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.integers(3, size=200)
    found = probe._softmax(3, x, y, (1.0, 0.1))
    for penalty, predict in found:
        w = predict.args[0]
        error = special.softmax(x @ w[:-1] + w[-1], axis=1) - np.eye(3)[y]
        assert np.abs(x.T @ error / 200 + penalty * w[:-1]).max() < 1e-3
        assert np.abs(error.mean(0)).max() < 1e-3
    assert np.abs(found[0][1].args[0]).sum() < np.abs(found[1][1].args[0]).sum()


def test_ridge_without_penalty_is_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) + 2.0
    y = x @ [1.0, -2.0, 0.5] + 3.0
    ((_, predict),) = probe._ridge(x, y, [1e-12])
    np.testing.assert_allclose(predict(x), y, atol=1e-8)


@pytest.mark.parametrize(
    "task", [tiny_tasks.CLASSIFICATION, tiny_tasks.REGRESSION], ids=lambda task: task.name
)
def test_probe(task, tmp_path):
    """A random encoder already sets its words apart: the mean of its states counts them."""
    data = tiny_tasks.write(tmp_path, task)
    found = probe.linear_probe(RANDOM, task, str(data), seeds=(0, 1), length=32)
    assert [r.seed for r in found] == [0, 1]
    assert all(r.metrics[task.metric] > 0.8 for r in found), found
    assert found[0].penalty in probe.PENALTIES
    again = probe.linear_probe(RANDOM, task, str(data), seeds=(1,), length=32)
    assert again[0].metrics == found[1].metrics


def test_pooling_leaves_padding_out():
    task = tiny_tasks.CLASSIFICATION
    example = probe.Example("0", ("the film was good",), 1)
    alone = probe.vectors(RANDOM, RANDOM.params, task, [example], length=32, pooling="both")
    padded = probe.vectors(
        RANDOM,
        RANDOM.params,
        task,
        [example, example._replace(texts=("the " * 20,))],
        length=32,
        pooling="both",
    )
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-5)
    assert alone.shape == (1, 2 * tiny_tasks.ENCODER.hidden_size)


def test_other_kinds_are_refused(tmp_path):
    with pytest.raises(UserError, match="people is tagging"):
        probe.linear_probe(RANDOM, tiny_tasks.TAGGING, str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        probe.linear_probe(dataclasses.replace(RANDOM), tiny_tasks.CLASSIFICATION, str(tmp_path / "x"))
