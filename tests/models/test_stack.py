"""Stacked and separate layers: the same numbers in another arrangement."""

from __future__ import annotations

import jax
import numpy as np

from t5x_like.models.stack import stack_layers, unstack_layers


def test_layers_are_ordered_by_number_at_any_depth() -> None:
    tree = {"a": {"b": {f"layers_{i}": {"w": np.full((2, 3), i)} for i in range(12)}, "c": np.ones(2)}}
    stacked = stack_layers(tree)
    assert stacked["a"]["b"].keys() == {"layers"}
    assert isinstance(stacked["a"]["b"]["layers"]["w"], np.ndarray)
    np.testing.assert_array_equal(stacked["a"]["b"]["layers"]["w"][:, 0, 0], np.arange(12))
    again = unstack_layers(stacked)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_trees_without_layers_stay_as_they_are() -> None:
    tree = {"a": {"w": np.ones(3)}}
    assert stack_layers(tree) == tree == unstack_layers(tree)
