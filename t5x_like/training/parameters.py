"""What is known of parameters by name: their paths, whether weight decay touches them, a table for people."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax

from t5x_like.training.layout import DEFAULT, Layout, shardings

NO_DECAY = ("embed", "bias", "norm", "scale")
"""Weight decay is for matrices that multiply activations; these words in a path mark the rest."""

VECTORS = ("bias", "norm", "scale")
"""Biases and norms alone: what BERT, ELECTRA and ALBERT leave out of weight decay (their embeddings decay)."""

STACKED = "layers"
"""The logical axis along which the separate parameters of a scanned stack are piled up."""


def path_of(keys: Sequence[Any]) -> str:
    """`encoder/layers_0/mlp/wi/kernel` from the keys of `jax.tree_util`."""
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def decay_mask(params: Any, no_decay: Sequence[str] = NO_DECAY) -> Any:
    """True for every parameter whose path holds none of the words in `no_decay`."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: not any(word in path_of(keys).lower() for word in no_decay), params
    )


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter: its path, shape, dtype, logical axes, mesh axes of each dimension, and bytes on one device."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str | None, ...]
    partition: tuple[Any, ...]
    bytes_per_device: int


def rows(axes: Any, shapes: Any, mesh: jax.sharding.Mesh, layout: Layout = DEFAULT) -> list[Row]:
    """One `Row` a parameter, in tree order. `axes` and `shapes` are a model's `logical_axes()` and
    `abstract_params()`; real arrays do as well."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    names = treedef.flatten_up_to(axes)
    placed = treedef.flatten_up_to(shardings(layout.place(axes, shapes, mesh), shapes, mesh, layout.rules))
    return [
        Row(
            path=path_of(keys),
            shape=tuple(leaf.shape),
            dtype=str(leaf.dtype),
            axes=tuple(name),
            partition=tuple(sharding.spec),
            bytes_per_device=math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        )
        for (keys, leaf), name, sharding in zip(leaves, names, placed)
    ]


def table(axes: Any, shapes: Any, mesh: jax.sharding.Mesh, layout: Layout = DEFAULT) -> str:
    """The rows as aligned text, layers that are alike in one, with a last line of totals."""
    found = rows(axes, shapes, mesh, layout)
    cells = [("parameter", "shape", "axes", "partition", "bytes/device")]
    for row in _alike_joined(found):
        shape = " x ".join(map(str, row.shape))
        names = ", ".join(n or "-" for n in row.axes)
        partition = ", ".join(
            "+".join((p,) if isinstance(p, str) else p) if p else "-" for p in row.partition
        )
        cells.append((row.path, f"{row.dtype} {shape}", names, partition, f"{row.bytes_per_device:,}"))
    count = sum(math.prod(row.shape) for row in found)
    held = sum(row.bytes_per_device for row in found)
    cells.append((f"{len(found)} arrays", f"{count:,} parameters", "", "", f"{held:,}"))
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4].rjust(15)])
        for row in cells
    )


_LAYER = re.compile(r"(?<![^/])layers_(\d+)(?![^/])")


def _alike_joined(found: Sequence[Row]) -> list[Row]:
    """Rows that differ in the number of their layer alone become one, `layers_0..11`, with all their bytes."""
    groups: dict[Row, list[Row]] = {}
    for row in found:
        groups.setdefault(dataclasses.replace(row, path=_LAYER.sub("layers_*", row.path)), []).append(row)
    joined = []
    for common, members in groups.items():
        numbers = [int(m[1]) for row in members if (m := _LAYER.search(row.path))]
        path = members[0].path
        if len(members) > 1:
            path = common.path.replace("layers_*", f"layers_{min(numbers)}..{max(numbers)}")
        size = sum(row.bytes_per_device for row in members)
        joined.append(dataclasses.replace(common, path=path, bytes_per_device=size))
    return joined
