"""MinHash, its detection curve, the check by true Jaccard, clusters."""

from __future__ import annotations

import random
import string
import tracemalloc

import numpy as np
import pytest
from in_memory import compare, verdicts

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup import near
from t5x_like.data.dedup.near import Membership, NearDuplicates
from t5x_like.data.documents import Document
from t5x_like.errors import UserError


def some_words(count: int, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return ["".join(drawn.choices(string.ascii_lowercase, k=8)) for _ in range(count)]


def document(words: list[str]) -> Document:
    return Document(" ".join(words))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hello, World! It's 1999.", ["hello", "world", "it", "s", "0000"]),
        ("Café déjà VU—naïve…", ["cafe", "deja", "vu", "naive"]),
        ("東京は 12 月", ["東", "京", "は", "00", "月"]),
        ("a_b\tc\n\nd", ["a", "b", "c", "d"]),
        ("!!! ...", []),
        ("ÉCOLE 2", ["ecole", "0"]),
    ],
)
def test_words_of_the_normalised_text(text, expected):
    assert near.words(text) == expected


def test_both_ways_to_words_agree_on_ascii():
    for code in range(128):
        plain, other = f"a{chr(code)}b", f"a{chr(code)}b é"
        assert [*near.words(plain), "e"] == near.words(other), repr(chr(code))


def test_shingles_are_distinct_and_know_order():
    a, b = near.shingles("a b c d e f", 5), near.shingles("a b c d e a b c d e", 5)
    assert len(a) == 2 and len(b) == 5 and np.all(np.diff(b.astype(object)) > 0)
    assert len(np.intersect1d(near.shingles("e d c b a", 5), a)) == 0
    assert len(near.shingles("two words", 5)) == 1 and len(near.shingles("...", 5)) == 0
    assert near.shingles("a b c d", 5) != near.shingles("a b c", 5)
    assert near.jaccard(a, b) == 1 / 6


def test_a_hash_of_the_signature_agrees_as_often_as_the_jaccard_index_says():
    drawn = np.random.default_rng(0)
    hashes = 4096
    for share in (0.2, 0.5, 0.8):
        both = round(2 * 1000 * share / (1 + share))  # of 1000 in each
        pool = drawn.integers(0, 2**64, 2000 - both, dtype=np.uint64)
        a, b = np.sort(pool[:1000]), np.sort(pool[1000 - both :])
        true = near.jaccard(a, b)
        found = np.mean(near.signature(a, hashes) == near.signature(b, hashes))
        assert abs(found - true) < 4 * np.sqrt(true * (1 - true) / hashes)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_pairs_meet_in_a_band_as_often_as_the_curve_says(similarity):
    """1 - (1 - s^8)^14, over many pairs of known Jaccard index (Leskovec et al., section 3.4.2)."""
    drawn = np.random.default_rng(round(100 * similarity))
    trials, size = 800, 300
    both = round(2 * size * similarity / (1 + similarity))
    true = both / (2 * size - both)
    expected = 1 - (1 - true**8) ** 14
    met = 0
    for _ in range(trials):
        pool = drawn.integers(0, 2**64, 2 * size - both, dtype=np.uint64)
        a, b = (near.signature(part, 112).reshape(14, 8) for part in (pool[:size], pool[size - both :]))
        met += bool(np.any(np.all(a == b, axis=1)))
    assert abs(met / trials - expected) < 4 * np.sqrt(expected * (1 - expected) / trials) + 1e-3


def changed(words: list[str], places: int) -> list[str]:
    """The words with so many of them changed, far from each other: each takes five shingles away."""
    words = list(words)
    for i in range(places):
        words[(2 * i + 1) * len(words) // (2 * places)] = f"changed{i}"
    return words


def test_near_duplicates_are_found_and_the_first_stays():
    base = some_words(400, 0)
    documents = [
        document(some_words(400, 1)),
        document(base),
        document(changed(base, 1)),
        document(some_words(400, 2)),
        document(base),
    ]
    results = compare(NearDuplicates(), documents)
    assert [isinstance(result, Rejection) for result in results] == [False, False, True, False, True]
    assert results[2].reason == "near_duplicate"  # pyright: ignore
    assert results[0] is documents[0], "who has no near-duplicate is left alone"
    marked = compare(NearDuplicates(keep="all"), documents)
    labels = [result.cluster for result in marked]  # pyright: ignore
    assert labels[1] == labels[2] == labels[4] != "" and labels[0] == labels[3] == ""
    assert [result.text for result in marked] == [d.text for d in documents]  # pyright: ignore


def test_a_pair_below_the_threshold_is_no_pair():
    base = some_words(400, 0)
    places = 20
    other = changed(base, places)
    true = near.jaccard(near.shingles(" ".join(base), 5), near.shingles(" ".join(other), 5))
    assert 0.55 < true < 0.65
    # Bands of one hash let all of them through: what is refused is refused by the check.
    for threshold, expected in ((true - 0.01, True), (true + 0.01, False), (None, True)):
        step = NearDuplicates(rows=1, threshold=threshold)
        results = compare(step, [document(base), document(other)])
        assert isinstance(results[1], Rejection) is expected


def test_clusters_are_connected_whatever_the_order():
    words = some_words(900, 0)
    # Each is like the one before, and the last not like the first.
    documents = [document(words[60 * i : 60 * i + 600]) for i in range(6)]
    strangers = [document(some_words(300, seed)) for seed in range(10, 14)]
    step = NearDuplicates(rows=2, threshold=0.7)
    first, last = (near.shingles(documents[i].text, 5) for i in (0, -1))
    assert near.jaccard(first, last) < 0.7
    labels = []
    for seed in range(3):
        mixed = [*documents, *strangers]
        random.Random(seed).shuffle(mixed)
        heard = verdicts(step, mixed)
        members = {number: Membership.read(v[0]) for number, v in heard.items()}
        assert {mixed[number].text for number in members} == {d.text for d in documents}
        assert len({m.label for m in members.values()}) == 1
        assert {m.size for m in members.values()} == {len(documents)}
        assert [m.first for _, m in sorted(members.items())] == [True] + [False] * (len(documents) - 1)
        labels.append(next(iter(members.values())).label)
    assert len(set(labels)) == 1, "the label is of the texts, not of their order"


@pytest.mark.parametrize("at_once", [3, 1 << 16])
def test_clusters_of_any_pairs(monkeypatch, at_once):
    monkeypatch.setattr(near, "_SAID", at_once)
    drawn = random.Random(at_once)
    for _ in range(40):
        pairs = {tuple(sorted(drawn.sample(range(50), 2))) for _ in range(drawn.randrange(1, 60))}
        parts = {number: {number} for number in sum(pairs, ())}
        for a, b in pairs:
            both = parts[a] | parts[b]
            parts.update(dict.fromkeys(both, both))
        code = {number: drawn.getrandbits(64) for number in parts}
        said = sorted((n, near._pair(a, b) + code[n].to_bytes(8, "big")) for a, b in pairs for n in (a, b))
        expected = {
            number: Membership(f"{min(code[n] for n in part):016x}", len(part), number == min(part))
            for number, part in parts.items()
        }
        decided = near._Clusters().decide(bytes(16), said)
        assert {number: Membership.read(verdict) for number, verdict in decided} == expected


class _Copies:
    """What `total` documents say of clusters of five, read as it comes."""

    def __init__(self, total: int):
        self._total = total

    def __iter__(self):
        for number in range(self._total):
            first = number // 5 * 5
            for other in range(first + 1, first + 5) if number == first else [first]:
                pair = near._pair(min(number, other), max(number, other))
                yield number, pair + number.to_bytes(8, "big")


def test_clusters_take_little_memory_for_a_document(monkeypatch):
    """The figure of docs/corpus.md."""
    monkeypatch.setattr(near, "_SAID", 1000)
    peaks = []
    for total in (2_000, 8_000):
        tracemalloc.start()
        assert sum(1 for _ in near._Clusters().decide(bytes(16), _Copies(total))) == total
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 60 * 6_000


def test_many_copies_make_few_pairs():
    bands = NearDuplicates().rounds[0]
    found = list(bands.decide(b"k" * 16, [(number, b"") for number in range(1000)]))
    assert len(found) < 4 * 1000
    assert {number for number, _ in found} == set(range(1000))


def test_documents_without_words_have_no_near_duplicates():
    assert compare(NearDuplicates(), [Document("..."), Document("!?"), Document("...")])[2] == Document("...")


@pytest.mark.parametrize(
    "field, value", [("bands", 0), ("threshold", 1.5), ("ngram", -1), ("threshold", 0.0)]
)
def test_impossible_settings(field, value):
    with pytest.raises(UserError, match=field):
        NearDuplicates(**{field: value})
