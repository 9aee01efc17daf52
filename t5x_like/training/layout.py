"""Which mesh axes the dimensions of arrays lie over: rules by logical name, and overrides by a parameter's path."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models.sharding import MeshAxes, Pinned, Rules, partition_spec

AXES = ("data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("data", "fsdp")

RULES: Rules = (
    ("batch", BATCH_AXES),
    ("length", "sequence"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
)
"""Names without a rule (`layers`, `relpos_buckets`) stay whole. In an activation `batch` comes first and takes
`fsdp`, so that its `embed` stays whole too."""

NAMES = (
    *("length", "vocab", "heads", "mlp", "embed", "layers", "relpos_buckets"),
    *("positions", "token_types", "embedding", "pooled", "classes"),
)
"""The logical names that a configuration may give another rule. The batch always lies over data and fsdp."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which mesh axes the dimensions of arrays lie over.

    Attributes:
      rules: logical name -> mesh axes.
      overrides: (pattern of parameter paths, mesh axes of each dimension); the last that fits a path counts.
    """

    rules: Rules = RULES
    overrides: tuple[tuple[str, tuple[MeshAxes, ...]], ...] = ()

    def place(self, axes: Any, shapes: Any, mesh: jax.sharding.Mesh) -> Any:
        """The logical names of parameters, with those of overridden ones pinned to their mesh axes.

        Args:
          axes, shapes: trees as of a model's `logical_axes()` and `abstract_params()`.

        Raises:
          UserError: a pattern fits no parameter, or its axes do not fit one; names the nearest.
        """
        if not self.overrides:
            return axes
        leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
        paths = [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in leaves]
        names = dict(zip(paths, treedef.flatten_up_to(axes), strict=True))
        for pattern, wanted in self.overrides:
            fitting = fnmatch.filter(paths, pattern)
            if not fitting:
                raise UserError(
                    f"no parameter's path is like {pattern!r}",
                    where="mesh.overrides",
                    help=did_you_mean(pattern, paths) if len(paths) < 200 else _nearest_path(pattern, paths),
                )
            for path in fitting:
                shape = leaves[paths.index(path)][1].shape
                _check_override(pattern, path, shape, wanted, mesh)
                names[path] = tuple(Pinned(str(n), a) for n, a in zip(names[path], wanted, strict=True))
        return jax.tree.unflatten(treedef, [names[path] for path in paths])


DEFAULT = Layout()


def read(rules: Mapping[str, str], overrides: Mapping[str, str]) -> Layout:
    """The layout that a configuration writes: see `partitioning.Mesh`.

    Raises:
      UserError: a name or a mesh axis that does not exist, with the nearest; an axis for two dimensions.
    """
    own = []
    for name, text in rules.items():
        if name not in NAMES:
            help = did_you_mean(name, NAMES)
            raise UserError(f"no logical axis {name!r} has a rule to set", where="mesh.rules", help=help)
        own.append((name, _mesh_axes(text, f"mesh.rules.{name}")))
    placed = []
    for pattern, text in overrides.items():
        where = f"mesh.overrides.{pattern}"
        dimensions = tuple(_mesh_axes(part, where) for part in text.split(","))
        used = [axis for axes in dimensions for axis in flat(axes)]
        if len(set(used)) < len(used):
            raise UserError(f"{text!r} uses a mesh axis for two dimensions", where=where)
        placed.append((pattern, dimensions))
    return Layout((*own, *RULES), tuple(placed)) if own or placed else DEFAULT


def flat(axes: MeshAxes) -> tuple[str, ...]:
    """One, several or no mesh axes as a tuple."""
    return (axes,) if isinstance(axes, str) else axes or ()


def parts(axes: MeshAxes, mesh: jax.sharding.Mesh) -> int:
    """The number of pieces into which a dimension over these axes falls."""
    return math.prod(mesh.shape[axis] for axis in flat(axes))


def shardings(axes: Any, shapes: Any, mesh: jax.sharding.Mesh, rules: Rules = RULES) -> Any:
    """A `NamedSharding` for every leaf.

    Args:
      axes: tree of tuples of logical names, one name (or None) a dimension.
      shapes: tree of the same structure whose leaves have `.shape` (arrays or `ShapeDtypeStruct`).
      mesh: from `Mesh.build`.
      rules: logical name -> mesh axes.

    A dimension that its mesh axes do not divide stays whole: it is right, only larger, and `parameters.table`
    shows it. `check_vocabulary` refuses that for the tables of the vocabulary, so this touches small arrays only.
    """
    return jax.tree.map(
        lambda leaf, names: NamedSharding(mesh, partition_spec(names, leaf.shape, mesh, rules)), shapes, axes
    )


def _mesh_axes(text: str, where: str) -> MeshAxes:
    """`tensor`, `fsdp+tensor`, or - for none."""
    names = tuple(name.strip() for name in text.split("+"))
    if names == ("-",):
        return None
    if len(set(names)) < len(names):
        raise UserError(f"{text!r} names a mesh axis twice", where=where)
    for name in names:
        if name not in AXES:
            raise UserError(
                f"the mesh has no axis {name!r}; it has {', '.join(AXES)}, and - for none",
                where=where,
                help=did_you_mean(name, AXES),
            )
    return names[0] if len(names) == 1 else names


def _nearest_path(pattern: str, paths: Sequence[str]) -> str:
    """Of many paths the nearest and some others."""
    found = did_you_mean(pattern, paths)
    return found if found.startswith("did you mean") else "paths are such as " + ", ".join(paths[:3])


def _check_override(
    pattern: str,
    path: str,
    shape: Sequence[int],
    wanted: tuple[MeshAxes, ...],
    mesh: jax.sharding.Mesh,
) -> None:
    where = f"mesh.overrides.{pattern}"
    if len(wanted) != len(shape):
        raise UserError(
            f"{path} has {len(shape)} dimensions {list(shape)}, and the override names {len(wanted)}",
            where=where,
            help="one entry a dimension, with commas between; - for one that stays whole",
        )
    for size, axes in zip(shape, wanted):
        if size % parts(axes, mesh):
            raise UserError(
                f"{path} has a dimension of {size}, which does not divide into {parts(axes, mesh)} parts",
                where=where,
                help="- in its place keeps it whole",
            )
