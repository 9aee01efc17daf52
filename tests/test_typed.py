"""Typed trees: what is refused, what it says, and that JSON and overrides lose nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5x_like import typed
from t5x_like.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    rate: float = 0.1
    mode: Literal["plain", "nesterov"] = "plain"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decayed:
    decay: float
    groups: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    path: str
    weight: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    steps: int = 5
    optimizer: Sgd | Decayed = Sgd()
    files: tuple[File, ...] = ()
    fast: bool = False
    label: str | None = None
    extra: dict[str, int | float | str] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    nested: Sgd = Sgd()


@pytest.mark.parametrize(
    "assignment, path, value",
    [
        ("steps=7", "steps", 7),
        ("steps=1e6", "steps", 1_000_000),
        ("steps=1_000", "steps", 1000),
        ("optimizer.rate=3", "optimizer.rate", 3.0),
        ("optimizer.mode=nesterov", "optimizer.mode", "nesterov"),
        ("fast=true", "fast", True),
        ("label=a=b", "label", "a=b"),
        ("files=x,y", "files.1.path", "y"),
        ('optimizer={"type": "Decayed", "decay": 1}', "optimizer.decay", 1),
        ('extra={"a": 1}', "extra", {"a": 1}),
        ('files=[{"path": "z", "weight": 2.5}]', "files.0.weight", 2.5),
    ],
)
def test_override(assignment: str, path: str, value: object) -> None:
    new = typed.override(Tree(), assignment)
    assert dict(typed.leaves(new))[path] == value
    assert typed.from_json(json.dumps(typed.to_data(new)), Tree) == new


def test_override_inside_a_tuple_and_back_to_none() -> None:
    tree = typed.override(Tree(label="x", files=(File(path="a"), File(path="b"))), "files.1.weight=0.5")
    assert [f.weight for f in tree.files] == [None, 0.5]
    assert typed.override(tree, "label=none").label is None


@pytest.mark.parametrize(
    "assignment, says",
    [
        ("stesp=7", "did you mean steps?"),
        ("optimizer.rat=1", "did you mean optimizer.rate?"),
        ("rate=1", "did you mean optimizer.rate?"),
        ("steps=many", "steps wants a whole number, not 'many'"),
        ("steps=1.5", "steps wants a whole number"),
        ("optimizer=Adam", "wants Sgd or Decayed, not 'Adam'"),
        ("optimizer=sgd", "did you mean Sgd?"),
        ("optimizer=Decayed", "cannot be made without decay"),
        ("optimizer.mode=nestrov", "did you mean nesterov?"),
        ("fast=maybe", "true or false"),
        ("files.0.weight=1", "0 entries"),
        ("steps.more=1", "is a plain value"),
        ("steps", "reads path=value"),
        ("=3", "reads path=value"),
        ('extra={"a": [1]}', "extra wants a JSON object"),
        ('files=[{"path": 3}]', "files.0.path wants text, not 3"),
        ('optimizer={"type": "os.system"}', "unknown type 'os.system'"),
        ('optimizer={"type": "Sgd", "rates": 1}', "did you mean optimizer.rate?"),
        ("files=[", "not valid JSON"),
        ('optimizer={"type": "Sgd", "rate": 1.0, "rate": 2.0}', "the key 'rate' is there twice"),
        ('names={"a": 3}', "names wants a JSON object of text"),
        ('names={"a": null}', "names wants a JSON object of text"),
        ("nested=3", "set its fields: nested.rate=VALUE or nested.mode=VALUE"),
        ("nested=", "nested wants Sgd, not ''"),
        ("nested=rate=1,rate=2", "a field is named twice"),
    ],
)
def test_refusals(assignment: str, says: str) -> None:
    with pytest.raises(UserError) as e:
        typed.override(Tree(), assignment)
    assert says in str(e.value)
    assert assignment in str(e.value), "an error must repeat what was typed"


@pytest.mark.parametrize(
    "tree, says",
    [
        (Tree(steps="3"), "steps wants a whole number, not '3'"),  # type: ignore[arg-type]
        (Tree(steps=True), "steps wants a whole number"),
        (Tree(optimizer=File(path="x")), "optimizer wants Sgd or Decayed, not File"),  # type: ignore[arg-type]
        (Tree(files=[File(path="x")]), "files wants a list of File"),  # type: ignore[arg-type]
        (Tree(files=(File(path=3),)), "files.0.path wants text, not 3"),  # type: ignore[arg-type]
        (Tree(optimizer=Sgd(mode="fast")), "optimizer.mode wants 'plain' or 'nesterov'"),  # type: ignore[arg-type]
    ],
)
def test_a_tree_made_in_python_is_checked_too(tree: Tree, says: str) -> None:
    with pytest.raises(UserError, match="wants") as e:
        typed.check(tree, Tree)
    assert says in str(e.value)


def test_diff_and_non_defaults() -> None:
    a, b = Tree(), Tree(steps=6, optimizer=Decayed(decay=1.0), files=(File(path="p"),))
    assert ("steps", 5, 6) in typed.diff(a, b)
    assert ("optimizer", "Sgd", "Decayed") in typed.diff(a, b)
    assert ("files.0.path", "-", "p") in typed.diff(a, b)
    assert typed.diff(a, Tree()) == []
    assert typed.diff(Tree(fast=True), Tree()) == [("fast", True, False)]
    assert dict(typed.non_defaults(b)) == {"steps": 6, "optimizer": "Decayed", "optimizer.decay": 1.0,
                                           "files.0": "File", "files.0.path": "p"}  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_read_or_refused_and_never_crashes(data: object) -> None:
    for field in ("steps", "optimizer", "files", "label", "extra"):
        text = json.dumps({"type": "Tree", field: data})
        try:
            tree = typed.from_json(text, Tree)
        except UserError:
            continue
        typed.check(tree, Tree)
        assert typed.from_data(typed.to_data(tree), Tree) == tree


@given(st.text(), st.text())
def test_any_override_is_applied_or_refused_and_never_crashes(path: str, value: str) -> None:
    for key in (path, "steps", "optimizer", "files", "extra", "optimizer.rate"):
        try:
            typed.check(typed.override(Tree(), f"{key}={value}"), Tree)
        except UserError:
            continue


def test_huge_and_deep_json_are_refused() -> None:
    for text in ("[" * 100_000, " " * (typed.MAX_JSON_BYTES + 1), "{", "null nonsense"):
        with pytest.raises(UserError):
            typed.from_json(text, Tree)
