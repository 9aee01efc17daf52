"""Near-duplicates: MinHash and banded locality-sensitive hashing, then the true Jaccard index, then clusters.

Broder 1997 (resemblance of documents); 14 bands of 8 hashes over 5-grams of normalised words are datatrove's and
FineWeb's (huggingface/datatrove, pipeline/dedup/minhash.py), which take every pair of a band for a duplicate; here a
pair also has to share `threshold` of its 5-grams. Two documents of Jaccard index s meet in a band with probability
1 - (1 - s^8)^14: 0.05 at 0.5, 0.77 at 0.75, 0.92 at 0.8, 0.9996 at 0.9.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import xxhash
from jaxtyping import Int64, Integer, UInt64

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.base import Entry, Round, Said, Verdict
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

_ASCII = "".join(
    c.lower() if c.isalpha() else "0" if c.isdigit() else " " for c in map(chr, range(128))
)  # by code
# Scripts written without spaces give a word for each character.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+"
)
_DIGIT = re.compile(r"\d")
_CHUNK = 1 << 12
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_CLUSTER_KEY = bytes(16)
_SAID = 1 << 16


def words(text: str) -> list[str]:
    """Words of the normalised text: lower case, accents folded, digits 0, no punctuation."""
    if text.isascii():
        return text.translate(_ASCII).split()
    folded = unicodedata.normalize("NFKD", text.lower())
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    return _WORD.findall(_DIGIT.sub("0", folded))


def shingles(text: str, ngram: int) -> UInt64[np.ndarray, "S"]:
    """Hashes of the distinct n-grams of words, ascending; of all words together where there are fewer."""
    hashes = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in words(text)], np.uint64)
    if not len(hashes):
        return hashes
    n = min(ngram, len(hashes))
    mixed = np.full(len(hashes) - n + 1, n, np.uint64)
    for place in range(n):  # order counts: the sum so far is multiplied before the next word comes in
        mixed = _mix(mixed * _PRIME + hashes[place : len(hashes) - n + 1 + place])
    return np.unique(mixed)


def _mix(x: UInt64[np.ndarray, "S"]) -> UInt64[np.ndarray, "S"]:
    """The finaliser of splitmix64: a bijection that spreads every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=8)
def _multipliers(hashes: int, seed: int) -> tuple[UInt64[np.ndarray, "H 1"], UInt64[np.ndarray, "H 1"]]:
    a, b = _mix(np.arange(2 * hashes, dtype=np.uint64) + np.uint64(seed << 32)).reshape(2, hashes, 1)
    return a | np.uint64(1), b


def signature(found: UInt64[np.ndarray, "S"], hashes: int, seed: int = 0) -> UInt64[np.ndarray, "H"]:
    """The smallest value of each of `hashes` permutations over the shingles; S at least 1.

    A permutation is x -> a x + b modulo 2**64 with odd a; the shingles are well mixed already.
    """
    a, b = _multipliers(hashes, seed)
    least = np.full(hashes, ~np.uint64(0))
    for begin in range(0, len(found), _CHUNK):
        np.minimum(least, (a * found[begin : begin + _CHUNK] + b).min(axis=1), out=least)
    return least


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Shared part of two sets of distinct numbers, not both empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Finds near-duplicates and keeps the first of each cluster, or all of them, marked.

    The documents of a band that agree are compared with the first of them and with the one before, so that a text
    that is there a million times makes two million pairs and not 10^12. Clusters are connected components of the
    pairs. What a cluster's documents have in common, the smallest hash of their texts, becomes `Document.cluster`:
    it decides the split, so that the cluster stays together.

    Memory: some 50 bytes for each document that has a near-duplicate, in the process that makes clusters.

    Attributes:
      bands, rows: `bands` groups of `rows` hashes; a pair that agrees in all rows of a band is looked at.
      ngram: words in a shingle.
      threshold: share of the shingles that a pair must have in common; None believes the bands, as datatrove does.
      keep: `first` of a cluster in the order of the input, or `all`.
    """

    name: ClassVar[str] = "near_duplicates"

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    threshold: float | None = 0.75
    keep: Literal["first", "all"] = "first"

    def __post_init__(self) -> None:
        for field in ("bands", "rows", "ngram"):
            if not 1 <= (value := getattr(self, field)) <= 10_000:
                raise UserError(f"{field} is {value}, expected 1 to 10000", where=f"NearDuplicates.{field}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(
                f"threshold is {self.threshold}, expected above 0, at most 1",
                where="NearDuplicates.threshold",
            )

    @property
    def rounds(self) -> tuple[Round, ...]:
        bands = _Bands(self.bands, self.rows, self.ngram)
        check = () if self.threshold is None else (_Check(self.ngram, self.threshold),)
        return (bands, *check, _Clusters())

    def apply(self, document: Document, verdicts: Sequence[bytes]) -> Document | Rejection:
        if not verdicts:
            return document
        cluster = Membership.read(verdicts[0])
        if self.keep == "first" and not cluster.first:
            return Rejection(self.name, "near_duplicate", f"of cluster {cluster.label}")
        return dataclasses.replace(document, cluster=cluster.label)


@dataclasses.dataclass(frozen=True)
class Membership:
    """What a document of a cluster is told.

    Attributes:
      label: 16 hexadecimal digits, the same for all its documents.
      size: documents in the cluster.
      first: whether this one is the first of the input.
    """

    label: str
    size: int
    first: bool

    @classmethod
    def read(cls, verdict: bytes) -> Membership:
        return cls(verdict[:8].hex(), int.from_bytes(verdict[8:16], "big"), verdict[16] == 1)


@dataclasses.dataclass(frozen=True)
class _Bands:
    """Documents that agree in a band are candidates: pairs with the first, and with the one before."""

    bands: int
    rows: int
    ngram: int

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        found = shingles(document.text, self.ngram)
        if not len(found):
            return []
        bands = signature(found, self.bands * self.rows).reshape(self.bands, self.rows).astype("<u8")
        return [(xxhash.xxh3_128_digest(band.tobytes(), seed=place), b"") for place, band in enumerate(bands)]

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        first = before = None
        for number, _ in said:
            if first is None or before is None:
                first = before = number
                continue
            for other in {first, before}:
                pair = _pair(other, number)
                yield other, pair
                yield number, pair
            before = number


@dataclasses.dataclass(frozen=True)
class _Check:
    """Both documents of a pair show their shingles: those with too few in common are no pair.

    Shingles are shown as 32 bits, which takes one in 2**32 for another.
    """

    ngram: int
    threshold: float

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        found = np.unique(shingles(document.text, self.ngram).astype("<u4")).tobytes()
        # Keys have to be spread evenly, and numbers are not.
        return [(xxhash.xxh3_128_digest(pair), pair + found) for pair in verdicts]

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        shown = dict(said)
        values = list(shown.values())
        pair = values[0][:16]
        a, b = (np.frombuffer(value, "<u4", offset=16) for value in values)
        return [(number, pair) for number in shown] if jaccard(a, b) >= self.threshold else []


@dataclasses.dataclass(frozen=True)
class _Clusters:
    """All pairs meet under one key and become clusters.

    Pairs are read as they come, from disk where they are many; what is held is some 50 bytes for each document that
    is in a pair.
    """

    def entries(self, number: int, document: Document, verdicts: Sequence[bytes]) -> Iterable[Entry]:
        code = xxhash.xxh3_64_digest(document.text.encode())
        return [(_CLUSTER_KEY, pair + code) for pair in verdicts]

    def decide(self, key: bytes, said: Iterable[Said]) -> Iterable[Verdict]:
        seen = array("Q")
        for number, _ in said:
            if not seen or seen[-1] != number:
                seen.append(number)
        documents = np.frombuffer(seen, np.uint64)
        parent, codes = array("Q", range(len(documents))), np.zeros(len(documents), np.uint64)
        for numbers, first, second, code in _columns(said):
            rows = np.searchsorted(documents, numbers)
            codes[rows] = code
            later = numbers == np.maximum(first, second)  # the other end says the same pair
            _unite(parent, rows[later], np.searchsorted(documents, np.minimum(first, second)[later]))
        component = _roots(parent)
        label = np.full(len(documents), ~np.uint64(0))
        np.minimum.at(label, component, codes)
        members = np.bincount(component, minlength=len(documents))
        for begin in range(0, len(documents), _SAID):
            some = slice(begin, begin + _SAID)
            columns = (documents[some], component[some], label[component[some]], members[component[some]])
            told = zip(*(column.tolist() for column in columns), strict=True)
            for place, (number, first, name, size) in enumerate(told, begin):
                yield number, name.to_bytes(8, "big") + size.to_bytes(8, "big") + bytes([first == place])


def _columns(said: Iterable[Said]) -> Iterator[tuple[UInt64[np.ndarray, "S"], ...]]:
    """What was said of clusters, some at a time: who said it, both ends of the pair, the hash of the text."""
    going = iter(said)
    while some := list(itertools.islice(going, _SAID)):
        values = np.frombuffer(b"".join(value for _, value in some), ">u8").astype(np.uint64)
        yield np.array([number for number, _ in some], np.uint64), *values.reshape(-1, 3).T


def _unite(parent: array, a: Integer[np.ndarray, "E"], b: Integer[np.ndarray, "E"]) -> None:
    """Union-find: edges (a, b) come in. A parent is never behind its children."""

    def root(node: int) -> int:
        while (above := parent[node]) != node:
            parent[node] = parent[above]
            node = above
        return node

    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        one, other = root(one), root(other)
        if one < other:
            parent[other] = one
        else:
            parent[one] = other


def _roots(parent: array) -> Int64[np.ndarray, "N"]:
    """For each node the smallest that it is connected with."""
    found = np.frombuffer(parent, np.uint64).astype(np.int64)
    while np.any((above := found[found]) != found):
        found = above
    return found


def _pair(a: int, b: int) -> bytes:
    return a.to_bytes(8, "big") + b.to_bytes(8, "big")
