"""Weights as safetensors, in the layouts that the Hugging Face Hub knows: one file, or shards with an index.

Pickled weights (`.bin`, `.pt`) are refused: to read one is to run whatever program is inside.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from t5x_like.errors import Exit, UserError
from t5x_like.hub import checksums

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz")
"""Pickles, and NumPy's files, which may hold pickles."""
_OTHERS = (".h5", ".msgpack", ".gguf", ".onnx", ".safetensor")
_LARGEST_JSON = 64 << 20


class Weights:
    """Named arrays in a folder, read one at a time.

    Args:
      folder: holds `model.safetensors`, or shards and `model.safetensors.index.json`.

    Raises:
      UserError: no such files, only pickled ones, or files that do not hold together.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file_of: dict[str, str] = {}
        self._open: dict[str, Any] = {}
        if (self.folder / SINGLE).is_file():
            self._file_of = dict.fromkeys(self._handle(SINGLE).keys(), SINGLE)
        elif (self.folder / INDEX).is_file():
            self._file_of = self._read_index()
        else:
            raise _nothing_to_read(self.folder)

    def names(self) -> set[str]:
        return set(self._file_of)

    def read(self, name: str) -> np.ndarray:
        """The array `name` on the host, in its stored dtype (bfloat16 by ml_dtypes)."""
        file = self._file_of[name]
        try:
            return self._handle(file).get_tensor(name)
        except safetensors.SafetensorError as error:
            raise UserError(
                f"cannot read {name}: {error}", where=str(self.folder / file), code=Exit.CORRUPT
            ) from None

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            path = self.folder / file
            checksums.check(path)
            try:
                # The library bounds the header, and checks that its offsets cover the file exactly.
                self._open[file] = safetensors.safe_open(path, framework="np")
            except (safetensors.SafetensorError, OSError) as error:
                raise UserError(
                    f"not a whole safetensors file: {error}", where=str(path), code=Exit.CORRUPT
                ) from None
        return self._open[file]

    def _read_index(self) -> dict[str, str]:
        path = self.folder / INDEX
        index = read_json(path)
        file_of = index.get("weight_map")
        if not isinstance(file_of, dict) or not all(isinstance(v, str) for v in file_of.values()):
            raise UserError('expected {"weight_map": {name: file}}', where=str(path), code=Exit.CORRUPT)
        for file in sorted(set(file_of.values())):
            if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
                raise UserError(
                    f"the index names {file!r}; a shard is a .safetensors file in the same folder",
                    where=str(path),
                    code=Exit.CORRUPT,
                )
            held = set(self._handle(file).keys())
            lost = sorted(name for name, where in file_of.items() if where == file and name not in held)
            if lost:
                raise UserError(
                    f"the index places {listed(lost)} in {file}, which does not hold it",
                    where=str(path),
                    code=Exit.CORRUPT,
                )
        return file_of


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes `model.safetensors`; `{"format": "pt"}` is what transformers asks for in the header."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(contiguous, folder / SINGLE, metadata={"format": "pt"})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 64 MiB."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise UserError(f"larger than {_LARGEST_JSON >> 20} MiB", where=str(path), code=Exit.CORRUPT)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path), code=Exit.BAD_DATA) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where=str(path), code=Exit.CORRUPT) from None
    if not isinstance(value, dict):
        raise UserError("expected a JSON object", where=str(path), code=Exit.CORRUPT)
    return value


def listed(names: list[str], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _nothing_to_read(folder: Path) -> UserError:
    if not folder.is_dir():
        return UserError("no such folder", where=str(folder), code=Exit.BAD_DATA)
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
    if pickled:
        return UserError(
            f"{listed(pickled)}: pickled weights are not read, since reading them runs code",
            where=str(folder),
            help="save them as safetensors where you trust them: model.save_pretrained(folder)",
            code=Exit.BAD_DATA,
        )
    others = sorted(file.name for file in folder.iterdir() if file.suffix in _OTHERS)
    if others:
        return UserError(
            f"{listed(others)}: weights are read from safetensors only",
            where=str(folder),
            help="convert them where they come from: model.save_pretrained(folder)",
            code=Exit.BAD_DATA,
        )
    return UserError(f"neither {SINGLE} nor {INDEX} here", where=str(folder), code=Exit.BAD_DATA)
