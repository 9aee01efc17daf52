"""What is counted and kept for people while a corpus is made: the funnel, samples, distributions, clusters.

A tally of a unit is plain JSON data; tallies add up to the corpus's whatever the order, and what is kept as a sample
depends on the documents' numbers alone.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import xxhash

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.corpus.trail import Trail
from t5x_like.data.dedup.near import Membership
from t5x_like.data.documents import Document, Problem
from t5x_like.data.units import LISTED

REJECTED, CHANGED, KEPT = 10, 10, 50
"""Samples of each reason, of each step that changes text, and of the result."""
CLUSTERS, MEMBERS = 20, 3
"""Clusters that are shown, the largest, and documents of each."""
SHOWN = 4000
"""Characters of a sample."""

Data = dict[str, Any]


class Tally:
    """Counts and samples of one pass over one unit.

    Args:
      data: what `as_data` returned.
      trail: is told of every text that steps see.
    """

    def __init__(self, data: Data | None = None, trail: Trail | None = None):
        data = data or {}
        self._trail = trail
        self.problems: Counter[str] = Counter(data.get("problems", {}))
        self.listed: list[list[Any]] = data.get("listed", [])
        self.counts: Counter[str] = Counter(data.get("counts", {}))
        self.seconds: defaultdict[str, float] = defaultdict(float, data.get("seconds", {}))
        self._samples: dict[str, list[Any]] = data.get("samples", {})
        self._clusters: dict[str, Data] = data.get("clusters", {})

    def as_data(self) -> Data:
        """As JSON has it."""
        return {
            "problems": dict(sorted(self.problems.items())),
            "listed": self.listed,
            "counts": dict(sorted(self.counts.items())),
            "seconds": dict(sorted(self.seconds.items())),
            "samples": dict(sorted(self._samples.items())),
            "clusters": dict(sorted(self._clusters.items())),
        }

    def add(self, data: Data) -> None:
        """Adds another tally's data; tallies come in the order of units."""
        self.problems.update(data["problems"])
        self.listed += data["listed"]
        self.counts.update(data["counts"])
        for step, seconds in data["seconds"].items():
            self.seconds[step] += seconds
        for group, samples in data["samples"].items():
            for order, sample in samples:
                self._sample(group, order, sample)
        for label, cluster in data["clusters"].items():
            for member in cluster["members"]:
                self._cluster(label, cluster["size"], member)

    def problem(self, problem: Problem) -> None:
        """Something wrong with the input."""
        key = f"{problem.kind} {problem.action}"
        self.problems[key] += 1
        if self.problems[key] <= LISTED:
            self.listed.append(list(dataclasses.astuple(problem)))

    # ---- the funnel

    def read(self, step: str, characters: int) -> None:
        """Something that is read, markup or text."""
        self.counts[f"{step}/in/documents"] += 1
        self.counts[f"{step}/in/characters"] += characters

    def into(self, number: int, step: str, text: str, size: tuple[int, int]) -> None:
        """A document of (characters, words) that a step is given."""
        self._count(number, f"{step}/in", text, size)

    def out_of(self, number: int, step: str, text: str, size: tuple[int, int], changed: bool) -> None:
        """A document that a step leaves, changed or as it was."""
        self._count(number, f"{step}/out", text, size)
        self.counts[f"{step}/changed"] += changed

    def rejected(self, step: str, rejection: Rejection) -> None:
        """A document that a step rejects."""
        self.counts[f"{step}/rejected/{rejection.reason}"] += 1

    def _count(self, number: int, side: str, text: str, size: tuple[int, int]) -> None:
        self.counts[f"{side}/documents"] += 1
        self.counts[f"{side}/characters"] += size[0]
        self.counts[f"{side}/words"] += size[1]
        if self._trail is not None:
            self._trail.saw(number, text, side)

    # ---- samples

    def show_rejected(self, number: int, step: str, document: Document, rejection: Rejection) -> None:
        """Maybe keeps a rejected document as a sample."""
        group, order = f"rejected/{step}/{rejection.reason}", _order(number)
        if self._wanted(group, order):
            self._sample(
                group,
                order,
                {
                    "kind": "rejected",
                    "step": step,
                    "reason": rejection.reason,
                    "detail": rejection.detail[:SHOWN],
                }
                | shown(document),
            )

    def show_changed(self, number: int, step: str, before: Document, after: Document) -> None:
        """Maybe keeps a changed document as a sample."""
        group, order = f"changed/{step}", _order(number)
        if self._wanted(group, order):
            sample = {"kind": "changed", "step": step, "before": before.text[:SHOWN]} | shown(after)
            self._sample(group, order, sample)

    def show_kept(self, number: int, document: Document, split: str) -> None:
        """Maybe keeps a document of the result as a sample, and counts its language and length."""
        self.counts[f"language/{document.language or 'unknown'}"] += 1
        self.counts["characters"] += len(document.text)
        self.counts[f"length/{len(document.text).bit_length()}"] += 1
        group, order = "kept", _order(number)
        if self._wanted(group, order):
            self._sample(group, order, {"kind": "kept", "split": split} | shown(document))

    def _wanted(self, group: str, order: str) -> bool:
        samples = self._samples.get(group, [])
        return len(samples) < _limit(group) or order < samples[-1][0]

    def _sample(self, group: str, order: str, sample: Data) -> None:
        if self._wanted(group, order):
            samples = self._samples.setdefault(group, [])
            bisect.insort(samples, [order, sample], key=lambda entry: entry[0])
            del samples[_limit(group) :]

    # ---- clusters

    def member(self, number: int, document: Document, cluster: Membership) -> None:
        """A document of a cluster of near-duplicates."""
        self.counts["clusters/documents"] += 1
        if cluster.first:
            self.counts["clusters/clusters"] += 1
            self.counts[f"clusters/size/{cluster.size}"] += 1
        self._cluster(cluster.label, cluster.size, {"number": number} | shown(document))

    def _cluster(self, label: str, size: int, member: Data) -> None:
        entry = self._clusters.setdefault(label, {"size": size, "members": []})
        if len(entry["members"]) < MEMBERS:
            entry["members"].append(member)
        if len(self._clusters) > CLUSTERS:
            smallest = min(self._clusters, key=lambda label: (self._clusters[label]["size"], label))
            del self._clusters[smallest]

    # ---- what becomes of it

    def samples(self) -> list[Data]:
        """All samples, clusters included, in an order of their own."""
        found = [sample for _, group in sorted(self._samples.items()) for _, sample in group]
        largest = sorted(self._clusters.items(), key=lambda item: (-item[1]["size"], item[0]))
        for label, cluster in largest:
            for member in cluster["members"]:
                found.append({"kind": "cluster", "cluster": label, "size": cluster["size"], **member})
        return found

    def group(self, prefix: str) -> dict[str, int]:
        """Counts whose names begin with `prefix/`, by the rest of the name."""
        return {
            name.removeprefix(prefix + "/"): count
            for name, count in sorted(self.counts.items())
            if name.startswith(prefix + "/") and count
        }


def shown(document: Document) -> Data:
    """A document as a sample has it."""
    return {
        "text": document.text[:SHOWN],
        "characters": len(document.text),
        **{name: getattr(document, name) for name in ("url", "timestamp", "source", "position", "language")},
    }


def size(document: Document) -> tuple[int, int]:
    """Characters and words between white space."""
    return len(document.text), len(document.text.split())


def total(tallies: Iterable[Mapping[str, Any]]) -> Tally:
    """The sum of tallies."""
    result = Tally()
    for data in tallies:
        result.add(dict(data))
    return result


def _limit(group: str) -> int:
    return {"rejected": REJECTED, "changed": CHANGED}.get(group.partition("/")[0], KEPT)


def _order(number: int) -> str:
    return xxhash.xxh3_64_hexdigest(number.to_bytes(8, "big"))
