"""Bill of materials (CycloneDX 1.6) and licences of what requirements.lock installs here; the same bytes every time.

python -m release.sbom --output=build

Writes OUTPUT/sbom.json and OUTPUT/licences.md. Versions and hashes are those of the lock; licences are what the
installed packages say of themselves. A package that is locked for other machines has no licence here, and says so.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

from absl import flags
from packaging.utils import canonicalize_name

from release import locked

_ELSEWHERE = "not installed here"
_UNKNOWN = "unknown"


def licence(name: str, version: str) -> str:
    """As the installed package says: its SPDX expression, else its classifiers, else its licence field's first line."""
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _ELSEWHERE
    if about["Version"] != version:
        return _ELSEWHERE
    if expression := about.get("License-Expression"):
        return expression
    prefix = "License :: OSI Approved :: "
    known = [c.removeprefix(prefix) for c in about.get_all("Classifier") or () if c.startswith(prefix)]
    if known:
        return " AND ".join(sorted(set(known)))
    lines = (about.get("License") or "").strip().splitlines()
    return lines[0].strip() if lines else _from_files(name)


def _from_files(name: str) -> str:
    """The first line of the licence file that is no blank, for packages whose metadata say nothing."""
    for file in importlib.metadata.files(name) or ():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            return lines[0] if lines else _UNKNOWN
    return _UNKNOWN


def components(lock: Path = locked.LOCK) -> list[dict[str, Any]]:
    """CycloneDX components, by name and version."""
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{package.name}@{package.version}",
            "name": package.name,
            "version": package.version,
            "purl": f"pkg:pypi/{package.name}@{package.version}",
            "licenses": [{"license": {"name": licence(package.name, package.version)}}],
            "properties": [
                *([{"name": "marker", "value": package.marker}] if package.marker else []),
                *({"name": "file", "value": value} for value in sorted(package.hashes)),
            ],
        }
        for package in sorted(set(locked.read(lock)))
    ]


def bill(lock: Path = locked.LOCK, project: Path = locked.ROOT / "pyproject.toml") -> dict[str, Any]:
    """The whole document; its serial number is a hash of its content, and it holds no time."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    subject = {
        "type": "application",
        "bom-ref": table["name"],
        "name": canonicalize_name(table["name"]),
        "version": table["version"],
        "licenses": [{"expression": table["license"]}],
    }
    parts = components(lock)
    digest = hashlib.sha256(json.dumps([subject, parts], sort_keys=True).encode()).digest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=5)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": parts,
    }


def licences(parts: list[dict[str, Any]]) -> str:
    """A table in Markdown."""
    rows = [f"| {p['name']} | {p['version']} | {p['licenses'][0]['license']['name']} |" for p in parts]
    return "\n".join(["| package | version | licence |", "| --- | --- | --- |", *rows, ""])


def write(output: Path, lock: Path = locked.LOCK) -> list[dict[str, Any]]:
    """Writes both files; returns the components."""
    found = bill(lock)
    output.mkdir(parents=True, exist_ok=True)
    (output / "sbom.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (output / "licences.md").write_text(licences(found["components"]), encoding="utf-8")
    return found["components"]


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    output = flags.DEFINE_string("output", "build", "folder", flag_values=values)
    values(argv)
    parts = write(Path(output.value or "build"))
    unknown = [p["name"] for p in parts if p["licenses"][0]["license"]["name"] == _UNKNOWN]
    print(
        f"{len(parts)} packages in {output.value}/sbom.json; licence unknown: {', '.join(unknown) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
