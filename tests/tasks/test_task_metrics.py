"""Metrics against values by hand, scikit-learn's definitions, conlleval and the official SQuAD scripts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t5x_like.tasks import definitions, metrics
from t5x_like.tasks.examples import Example
from t5x_like.tasks.metrics import Entity


def test_two_classes_by_hand():
    labels = np.array([1] * 8 + [0] * 4)
    predictions = np.array(
        [1] * 6 + [0] * 2 + [0] * 3 + [1]
    )  # 6 true positives, 2 missed, 3 true negatives, 1 false
    found = metrics.classes(labels, predictions, 2)
    assert found["accuracy"] == 9 / 12
    assert found["f1"] == pytest.approx(2 * 6 / (2 * 6 + 1 + 2))
    assert found["matthews"] == pytest.approx((6 * 3 - 1 * 2) / math.sqrt(7 * 8 * 4 * 5))
    assert found["macro_f1"] == pytest.approx((12 / 15 + 6 / 9) / 2)


def test_three_classes_and_what_is_none_of_them():
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, -1])
    found = metrics.classes(labels, predictions, 3)
    assert found["accuracy"] == pytest.approx(4 / 6)
    # R_K by its definition: covariances of the one-hot columns, the prediction that is no label in a fourth.
    a, b = np.eye(4)[labels], np.eye(4)[predictions % 4]
    cov = lambda x, y: np.sum((x - x.mean(0)) * (y - y.mean(0)))  # noqa: E731
    assert found["matthews"] == pytest.approx(cov(a, b) / math.sqrt(cov(a, a) * cov(b, b)))


def test_constant_predictions_have_no_correlation():
    assert metrics.classes(np.array([0, 1]), np.array([1, 1]), 2)["matthews"] == 0.0
    found = metrics.correlations([1.0, 2.0], [3.0, 3.0])
    assert found["pearson"] == found["spearman"] == 0.0


def test_an_invalid_answer_is_the_wrong_one_of_two():
    found = metrics.classes(np.array([1, 1, 0]), np.array([-1, 1, -1]), 2)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx(2 / (2 + 1 + 1))


def test_correlations_by_hand():
    found = metrics.correlations([1, 2, 3, 4], [1, 4, 9, 16])
    x, y = np.array([1, 2, 3, 4]) - 2.5, np.array([1, 4, 9, 16]) - 7.5
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)))
    assert found["mse"] == (0 + 4 + 36 + 144) / 4


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("I-PER I-PER O", [("PER", 0, 2)]),  # nothing before it: an I begins an entity
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER I-ORG I-ORG", [("PER", 0, 1), ("ORG", 1, 3)]),  # another type begins another
        ("B-LOC O I-LOC", [("LOC", 0, 1), ("LOC", 2, 3)]),
    ],
)
def test_entities_as_conlleval_cuts_them(tags, expected):
    assert metrics.chunks(tags.split()) == [Entity(*entity) for entity in expected]


def test_entity_f1():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    given = [["B-PER", "O", "O", "B-LOC"], ["B-ORG", "B-ORG"]]  # right: LOC, ORG; wrong: a short PER, an ORG
    found = metrics.entities(true, given)
    assert (found["precision"], found["recall"]) == (2 / 4, 2 / 3)
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["accuracy"] == 4 / 6


def test_squad_normalisation():
    assert metrics.normalise("  The  U.S.A.'s \n an   Answer; a ") == "usas answer"
    assert metrics.normalise("Theatre") == "theatre"  # articles are whole words
    assert metrics.normalise("x–y") == "x–y"  # the dash is no ASCII punctuation


def test_squad_scores():
    assert metrics.overlap("the black cat", "black cat sat") == pytest.approx(2 * 2 / (2 + 3))
    found = metrics.answers(
        [["Denver Broncos", "Broncos"], ["in 1999"], [], []], ["the Broncos!", "1999", "", "something"]
    )
    assert found["exact_match"] == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)


def test_compute_gives_the_metrics_of_the_task():
    task = definitions.find("mrpc")
    examples = [Example("", (), 1), Example("", (), 0)]
    assert list(metrics.compute(task, examples, [1, 0])) == ["f1", "accuracy"]


def test_better():
    assert metrics.better("accuracy", 0.5, 0.4) and not metrics.better("accuracy", 0.4, 0.4)
    assert metrics.better("mse", 0.1, 0.2) and metrics.better("f1", 0.0, math.nan)
