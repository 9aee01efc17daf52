"""Builds the wheel, twice, from copies of the tracked files, and compares: the same bytes or an error.

python -m release.wheel --output=dist

The time stamps inside are those of the commit (SOURCE_DATE_EPOCH); modes and order do not hang on the machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from release.locked import ROOT

_BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def tracked(root: Path = ROOT) -> list[str]:
    """The files of the checkout that git knows, which are those of a release."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]


def commit_time(root: Path = ROOT) -> int:
    """Seconds since 1970."""
    told = subprocess.run(
        ["git", "-C", str(root), "log", "-1", "--format=%ct"], capture_output=True, check=True
    )
    return int(told.stdout)


def copy(files: list[str], target: Path, root: Path = ROOT) -> Path:
    """A copy with plain modes."""
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / name)
        (target / name).chmod(0o644)
    return target


def build(source: Path, output: Path, epoch: int) -> Path:
    """The wheel of a source tree; needs the setuptools that pyproject.toml asks for."""
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(output)],
        cwd=source, capture_output=True, text=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"building failed:\n{done.stderr}")
    return output / done.stdout.strip().splitlines()[-1]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def twice(output: Path, files: list[str], epoch: int) -> tuple[Path, str]:
    """Builds two copies; the wheel is left in `output`.

    Raises:
      RuntimeError: they differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        wheels = [
            build(copy(files, Path(folder) / name), Path(folder) / f"{name}-out", epoch)
            for name in ("a", "other")
        ]
        one, two = map(digest, wheels)
        if one != two:
            raise RuntimeError(f"two builds of the same files differ: {one} and {two}")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheels[0], output)), one


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    output = flags.DEFINE_string("output", "dist", "folder", flag_values=values)
    values(argv)
    path, hash = twice(Path(output.value or "dist"), tracked(), commit_time())
    print(f"{path}\nsha256 {hash}, the same in two builds")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
