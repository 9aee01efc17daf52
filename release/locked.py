"""requirements.lock: every package that requirements.txt brings along, with the hashes of its files.

    pip install --require-hashes -r requirements.lock

Made anew by `uv pip compile` (`make lock`). Nothing here asks the network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
REQUIREMENTS = ROOT / "requirements.txt"
_HASH = re.compile(r"--hash=(\S+)")


class Locked(NamedTuple):
    """One package: `marker` says on which machines; empty: on all."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def read(path: Path = LOCK) -> list[Locked]:
    """The packages of a lock file.

    Raises:
      ValueError: a line that is no exact pin with sha256 hashes.
    """
    found = []
    for entry in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        line = entry.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        hashes = tuple(_HASH.findall(line))
        requirement = Requirement(_HASH.sub("", line).strip())
        pins = list(requirement.specifier)
        if len(pins) != 1 or pins[0].operator != "==" or requirement.url:
            raise ValueError(f"{path.name}: not an exact pin: {requirement}")
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes):
            raise ValueError(f"{path.name}: no sha256 hashes for {requirement}")
        marker = str(requirement.marker or "")
        found.append(Locked(canonicalize_name(requirement.name), pins[0].version, marker, hashes))
    return found


def pins(path: Path = REQUIREMENTS) -> Iterator[Requirement]:
    """The lines of requirements.txt."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            yield Requirement(text)


def missing(lock: Path = LOCK, requirements: Path = REQUIREMENTS) -> list[str]:
    """What requirements.txt pins and the lock does not have in that version, in words; empty where all is well."""
    versions: dict[str, set[Version]] = {}
    for package in read(lock):
        versions.setdefault(package.name, set()).add(Version(package.version))
    wrong = []
    for requirement in pins(requirements):
        there = versions.get(canonicalize_name(requirement.name), set())
        if not any(requirement.specifier.contains(version, prereleases=True) for version in there):
            wrong.append(f"{requirement}: locked is {', '.join(map(str, sorted(there))) or 'nothing'}")
    return wrong


def main() -> int:
    wrong = missing()
    for line in wrong:
        print(f"error: {line}\n  help: make lock", file=sys.stderr)
    return 65 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
