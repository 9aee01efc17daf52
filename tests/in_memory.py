"""An engine without any engineering: what a comparison does to documents, by dictionaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.base import KEY_BYTES, Comparison
from t5x_like.data.documents import Document


def verdicts(comparison: Comparison, documents: Sequence[Document]) -> dict[int, list[bytes]]:
    """What the last round says to each document, by place."""
    heard: dict[int, set[bytes]] = {}
    for turn, round in enumerate(comparison.rounds):
        said: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        for number, document in enumerate(documents):
            if turn == 0 or number in heard:
                for key, value in round.entries(number, document, sorted(heard.get(number, ()))):
                    assert len(key) == KEY_BYTES
                    said[key].append((number, value))
        heard = defaultdict(set)
        for key, entries in said.items():
            if len(entries) > 1:
                for number, verdict in round.decide(key, entries):
                    heard[number].add(verdict)
    return {number: sorted(values) for number, values in heard.items()}


def compare(comparison: Comparison, documents: Sequence[Document]) -> list[Document | Rejection]:
    """Each document as the comparison leaves it."""
    heard = verdicts(comparison, documents)
    return [comparison.apply(document, heard.get(i, ())) for i, document in enumerate(documents)]


def texts(comparison: Comparison, documents: Sequence[Document]) -> list[str | None]:
    """Texts after the comparison, None for what is rejected."""
    results = compare(comparison, documents)
    return [None if isinstance(result, Rejection) else result.text for result in results]
