"""S11 to S14: the lock covers what is installed, a bill of materials, advisories, a wheel that can be rebuilt."""

import importlib.metadata
import json
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import advisories, locked, sbom, wheel


def test_the_lock_covers_requirements_with_hashes():
    """S11."""
    assert locked.missing() == [], "make lock"
    assert all(package.hashes for package in locked.read())
    text = locked.LOCK.read_text()
    assert "://" not in text and "--index-url" not in text, "any index may serve these files"


def test_the_lock_covers_what_they_bring_along():
    """Every package that is imported because another needs it, as installed here, is locked in that version."""
    lock: dict[str, set[str]] = {}
    for package in locked.read():
        lock.setdefault(package.name, set()).add(package.version)
    waiting, seen = [(canonicalize_name(r.name), r.extras) for r in locked.pins()], set()
    while waiting:
        name, extras = waiting.pop()
        if name in seen:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        assert version in lock.get(name, set()), f"{name} {version} is installed and not locked: make lock"
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (extras or {""})):
                waiting.append((canonicalize_name(needed.name), needed.extras))
    assert len(seen) > 40


@pytest.mark.parametrize(
    "line", ["numpy>=2.0 --hash=sha256:" + "0" * 64, "numpy==2.4.6", "numpy==2.4.6 --hash=md5:00"]
)
def test_what_is_no_lock_is_refused(tmp_path, line):
    (tmp_path / "x.lock").write_text(line + "\n")
    with pytest.raises(ValueError, match="numpy"):
        locked.read(tmp_path / "x.lock")


def test_a_pin_that_is_not_locked_is_named(tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy==1.0  # old\nno-such-package==3\n")
    one, two = locked.missing(requirements=tmp_path / "requirements.txt")
    assert one.startswith("numpy==1.0: locked is 2.") and two.endswith("locked is nothing")


def test_the_bill_of_materials(tmp_path):
    """S12."""
    parts = sbom.write(tmp_path / "a")
    sbom.write(tmp_path / "b")
    for name in ("sbom.json", "licences.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    bill = json.loads((tmp_path / "a" / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX" and bill["serialNumber"].startswith("urn:uuid:")
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(refs) == len(set(refs)) == len({(p.name, p.version) for p in locked.read()})
    licences = {part["name"]: part["licenses"][0]["license"]["name"] for part in parts}
    direct = {canonicalize_name(requirement.name) for requirement in locked.pins()}
    assert not [name for name in direct if licences[name] == "unknown"]
    assert licences["numpy"].startswith("BSD-3-Clause")


def test_no_known_advisory_is_about_us():
    """S13."""
    frozen = json.loads(advisories.ADVISORIES.read_text())["advisories"]
    assert advisories.hits([*advisories.installed(), *advisories.allowed()], frozen) == []


def test_the_check_of_advisories_sees():
    frozen = json.loads(advisories.ADVISORIES.read_text())["advisories"]
    packages = [("torch", "2.5.1", "x"), ("transformers", "5.2.0", "x"), ("torch", "2.13.0", "x")]
    found = advisories.hits(packages, frozen)
    assert [line.split(":")[1].strip() for line in found] == [
        "CVE-2025-32434",
        "CVE-2026-24747",
        "CVE-2026-4372",
    ]


@pytest.mark.slow
def test_two_builds_of_the_wheel_are_the_same_bytes(tmp_path):
    """S14."""
    path, hash = wheel.twice(tmp_path / "dist", wheel.tracked(), epoch=1_700_000_000)
    names = zipfile.ZipFile(path).namelist()
    assert "t5x_like/train.py" in names and "configs/t5/small.py" in names
    assert not any(name.startswith("tests/") for name in names)
    other = wheel.build(wheel.copy(wheel.tracked(), tmp_path / "c"), tmp_path / "later", 1_800_000_000)
    assert wheel.digest(other) != hash, "the time is in it: only the commit's makes two builds equal"
