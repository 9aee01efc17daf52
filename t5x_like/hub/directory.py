"""What the Hugging Face directories of all families have in common: key tables, and folders whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.errors import Exit, UserError
from t5x_like.failpoints import reach
from t5x_like.hub import checksums, safetensors
from t5x_like.hub.safetensors import listed
from t5x_like.models.family import Params

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Key:
    """One parameter: our path, their name, and whether it is transposed on the way.

    `nn.Linear` weights are [out, in] and our kernels [in, out].
    """

    path: tuple[str, ...]
    name: str
    transposed: bool


def dense(path: tuple[str, ...], name: str) -> list[Key]:
    """A dense layer with a bias."""
    return [Key((*path, "kernel"), f"{name}.weight", True), Key((*path, "bias"), f"{name}.bias", False)]


def norm(path: tuple[str, ...], name: str) -> list[Key]:
    """A layer norm with a bias."""
    return [Key((*path, "scale"), f"{name}.weight", False), Key((*path, "bias"), f"{name}.bias", False)]


def to_arrays(table: Sequence[Key], params: Params) -> dict[str, np.ndarray]:
    """Their names to float32 arrays on the host, of parameters with unrolled layers.

    Raises:
      UserError: the parameters are others than those of the table.
    """
    ours = {tuple(k.key for k in path): leaf for path, leaf in jax.tree.flatten_with_path(params)[0]}
    differing = sorted("/".join(path) for path in ours.keys() ^ {key.path for key in table})
    if differing:
        raise UserError(f"these parameters are not those of this model: {listed(differing)}")
    arrays = {}
    for key in table:
        array = np.asarray(ours[key.path], np.float32)
        arrays[key.name] = array.T if key.transposed else array
    return arrays


def from_arrays(
    weights: safetensors.Weights,
    table: Sequence[Key],
    abstract: Params,
    *,
    stands_for: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
    on_host: bool = False,
) -> Params:
    """Float32 parameters with unrolled layers.

    Args:
      weights: the files.
      table: every parameter.
      abstract: the tree with the expected shapes, layers unrolled.
      stands_for: the table's name -> the stored one, where they differ.
      ignored: stored names that need not be in the table.
      on_host: leave NumPy arrays.

    Raises:
      UserError: every missing, unexpected and reshaped name is counted, the first ones named.
    """
    stands_for = stands_for or {}
    shapes = {
        tuple(k.key for k in path): leaf.shape for path, leaf in jax.tree.flatten_with_path(abstract)[0]
    }
    used, missing, reshaped = set(), [], []
    params: Params = {}
    for key in table:
        name = stands_for.get(key.name, key.name)
        used.add(name)
        if name not in weights.names():
            missing.append(key.name)
            continue
        array = weights.read(name)
        array = array.T if key.transposed else array
        if array.shape != shapes[key.path]:
            reshaped.append(f"{key.name} {list(array.shape)} for {list(shapes[key.path])}")
            continue
        array = np.ascontiguousarray(array, np.float32)
        _put(params, key.path, array if on_host else jnp.asarray(array))
    unexpected = sorted(weights.names() - used - set(ignored))
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    if any(names for _, names in found):
        report = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in found if names)
        raise UserError(
            f"the weights do not fit config.json: {report}", where=str(weights.folder), code=Exit.BAD_DATA
        )
    return params


def _put(tree: Params, path: tuple[str, ...], leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when all is in it, or never.

    Raises:
      UserError: something is there already, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("this exists already", where=str(folder), help="name another", code=Exit.CANNOT_WRITE)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            yield made
            checksums.write(made)
            made.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write: {error.strerror}", where=str(folder), code=Exit.CANNOT_WRITE
        ) from None


def publish(made: Path, folder: Path) -> None:
    """Gives a finished folder its name. One that has it is moved aside first, and goes when the new one is there."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    reach("export.aside")
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def check_tokenizer(vocab_size: int, tokenizer: Tokenizer, where: str | None = None) -> None:
    """Refuses a tokenizer with other ids than the word table has rows; a table may be padded by less than 256 rows.

    Raises:
      UserError: with the two numbers.
    """
    size = tokenizer.vocabulary.size
    if not size <= vocab_size < size + 256:
        raise UserError(
            f"the tokenizer has {size} ids and the model rows for {vocab_size}",
            where=where,
            help="the tokenizer must be the one that the model was trained with",
            code=Exit.BAD_DATA,
        )


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def number(config: dict[str, Any], name: str, kind: type, where: str, default: Any = None) -> Any:
    """An entry of config.json; raises `UserError` where it is no number of this kind."""
    value = config.get(name, default)
    if not isinstance(value, (int, kind)) or isinstance(value, bool):
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"{name} is {value!r}; expected {expected}", where=where, code=Exit.BAD_DATA)
    return kind(value)
