"""What became of the data under a run, in words: files added, removed, edited or put in another order.

A run keeps a description of what it reads (data.json). When the fingerprint does not fit any more, the description of
then and that of now say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t5x_like.data.batches import Batches

MOST = 8
"""Differences that are told one by one."""


def describe(batches: Batches) -> dict[str, Any]:
    """Plain data that decides what examples there are: contents of the token datasets, rates, packing."""
    datasets = {stream.dataset.path: stream.dataset for stream in batches.streams}
    sources = []
    for source in batches.data.sources:
        manifest = datasets[str(source.path).rstrip("/") or source.path].manifest
        sources.append(
            {
                "path": source.path,
                "split": source.split or batches.data.train_split,
                "fingerprint": manifest["fingerprint"],
                "splits": {
                    name: {"documents": split["documents"], "tokens": split["tokens"]}
                    for name, split in manifest["splits"].items()
                },
                "inputs": manifest.get("provenance", {}).get("input", []),
            }
        )
    rates = [round(rate, 6) for rate in batches.rates]
    return {"fingerprint": batches.fingerprint, "sources": sources, "rates": rates, "pack": batches.data.pack}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each thing that changed between two descriptions; empty where nothing did that they know of."""
    try:
        found = _sources(old["sources"], new["sources"])
        found += [
            f"{name} was {old[name]}, and is {new[name]} now"
            for name in ("rates", "pack")
            if old.get(name) != new.get(name)
        ]
    except (KeyError, TypeError, AttributeError):
        return []
    return found[:MOST] + ([f"and {len(found) - MOST} more"] if len(found) > MOST else [])


def _sources(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    def contents(sources: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        return [(source["fingerprint"], source["split"]) for source in sources]

    before, now = contents(old), contents(new)
    if before == now:
        return []
    if sorted(before) == sorted(now):
        order = [str(before.index(key)) for key in now]
        return [f"the sources are in another order: {', '.join(order)} of before"]
    found = []
    gone = [source for source, key in zip(old, before, strict=True) if key not in now]
    come = [source for source, key in zip(new, now, strict=True) if key not in before]
    for source in gone:
        other = next((s for s in come if s["path"] == source["path"]), None)
        if other is None and len(old) == len(new):
            at = list(old).index(source)
            other = new[at] if new[at] in come else None
        if other is None:
            found.append(f"{source['path']} was removed")
            continue
        come.remove(other)
        found += _one(source, other)
    return found + [f"{source['path']} was added" for source in come]


def _one(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One token dataset in the place of another."""
    path = new["path"] if old["path"] == new["path"] else f"{old['path']} (now {new['path']})"
    if old["fingerprint"] == new["fingerprint"]:
        return [f"{path}: split {old['split']}, now {new['split']}"]
    counts = [
        f"{name} {old['splits'].get(name, {}).get(unit, 0):,} -> {new['splits'].get(name, {}).get(unit, 0):,} {unit}"
        for name in dict.fromkeys([*old["splits"], *new["splits"]])
        for unit in ("documents", "tokens")
        if old["splits"].get(name, {}).get(unit) != new["splits"].get(name, {}).get(unit)
    ]
    return [
        f"{path} was edited: {', '.join(counts) or 'as many documents and tokens, others among them'}",
        *(f"{path}: its input: {line}" for line in inputs(old["inputs"], new["inputs"])),
    ]


def inputs(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between two lists of input files {name, bytes, probe}."""
    before = {file["name"]: file for file in old}
    now = {file["name"]: file for file in new}
    found = [f"{name} was removed" for name in before if name not in now]
    found += [f"{name} was added" for name in now if name not in before]
    for name in before.keys() & now.keys():
        one, two = before[name], now[name]
        if (one["bytes"], one["probe"]) != (two["bytes"], two["probe"]):
            size = (
                f"{one['bytes']:,} -> {two['bytes']:,} bytes" if one["bytes"] != two["bytes"] else "same size"
            )
            found.append(f"{name} was edited ({size})")
    common = [name for name in before if name in now]
    if not found and common != [name for name in now if name in before]:
        found.append("the files are in another order")
    return sorted(found)
