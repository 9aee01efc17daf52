"""JSON that means one thing: the standard's parser takes the last of a key's values without a word."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str) -> Any:
    """What `json.loads` returns.

    Raises:
      ValueError: not JSON, or an object has a key more than once; which of them is meant nobody can tell.
      RecursionError: brackets within brackets.
    """
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found
