"""Compares what we install, and what we allow, with a frozen list of security advisories; asks no network.

python -m release.advisories

release/advisories.json holds the advisories that matter to a project of this kind: {id, package, affected, what}.
`affected` is a version specifier; several are alternatives. A package is at fault where requirements.lock pins an
affected version, or where a range of pyproject.toml has an affected version for its lower end.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from release import locked

ADVISORIES = Path(__file__).with_name("advisories.json")


def installed(lock: Path = locked.LOCK) -> list[tuple[str, str, str]]:
    """(package, version, where it says so) of the lock."""
    return [(package.name, package.version, lock.name) for package in locked.read(lock)]


def allowed(project: Path = locked.ROOT / "pyproject.toml") -> list[tuple[str, str, str]]:
    """(package, lowest version, where it says so) of the ranges that users install by."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    groups = {"dependencies": table["dependencies"], **table["optional-dependencies"]}
    return [
        (canonicalize_name(requirement.name), pin.version, f"{project.name}, {group}")
        for group, lines in groups.items()
        for requirement in map(Requirement, lines)
        for pin in requirement.specifier
        if pin.operator in (">=", "==", "~=")
    ]


def hits(packages: list[tuple[str, str, str]], advisories: list[dict[str, Any]]) -> list[str]:
    """One line for each package that an advisory is about."""
    return [
        f"{name} {version} ({where}): {advisory['id']}: {advisory['what']}"
        for name, version, where in packages
        for advisory in advisories
        if canonicalize_name(advisory["package"]) == name
        and any(SpecifierSet(range).contains(version, prereleases=True) for range in advisory["affected"])
    ]


def main() -> int:
    frozen = json.loads(ADVISORIES.read_text(encoding="utf-8"))
    packages = [*installed(), *allowed()]
    found = hits(packages, frozen["advisories"])
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    print(f"{len(packages)} versions against {len(frozen['advisories'])} advisories: {len(found)} hits")
    return 65 if found else 0


if __name__ == "__main__":
    sys.exit(main())
