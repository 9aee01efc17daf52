"""What a step will need by arithmetic alone: for chips without a compiler here, and to choose what to compile.

    model = Formula(stage)
    model.memory(mesh)      # {"parameters": ..., "optimizer": ..., "activations": ..., "temporaries": ...}

The train state is exact: it is laid out as training would. Activations are what JAX itself would keep for the backward
pass of one microbatch (the residuals of `jax.vjp`, traced without arrays), shared out over the mesh as the logical axes
say; XLA may keep less. Temporaries are gradients, and twice the largest intermediate result.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from t5x_like.planning.collectives import Collective
from t5x_like.planning.stages import AnyMesh, Stage, state_bytes
from t5x_like.training import partitioning

_SPLIT = ("heads", "mlp", "vocab")
"""Logical axes that the tensor axis of a mesh splits, in parameters and activations alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """Of arrays: those with a dimension that tensor parallelism splits, and the rest."""

    split: float = 0.0
    whole: float = 0.0

    def on(self, tensor: int) -> float:
        return self.split / tensor + self.whole


@dataclasses.dataclass(frozen=True)
class Formula:
    stage: Stage

    def memory(self, mesh: AnyMesh) -> dict[str, int]:
        """Bytes a device by kind."""
        run, tensor = self.stage.run, _size(mesh, "tensor")
        rows = run.batch_size / (_batch_shards(mesh) * run.microbatches)
        known = state_bytes(run, mesh)
        gradients = known["parameters"] * (2 if run.microbatches > 1 else 1)
        gathered = self._gathered(mesh)
        kept, largest = self._per_row
        again = 0.0  # of one layer at a time, what recomputation makes anew
        if _remat(run.model) == "full":
            again = self._unabridged[0].on(tensor) / max(1, _layers(run.model))
        return known | {
            "activations": int(rows * kept.on(tensor)),
            "temporaries": int(gradients + gathered + rows * (again + 2 * largest.on(tensor))),
        }

    def flops(self, mesh: AnyMesh) -> float:
        """Operations of a step on one device, recomputation included: the stacks' forward pass again with
        `remat=full`, the products of queries and keys again with `remat=attention`, which are left out here."""
        again = 4 / 3 if _remat(self.stage.run.model) == "full" else 1.0
        return self.stage.flops * again / mesh.size

    def bytes(self, mesh: AnyMesh) -> float:
        """Main memory traffic of a step on one device, roughly: each microbatch reads the weights three times, and
        what a step without recomputation would keep is written, read and its gradient written; recomputation adds a
        third. The update reads and writes the state."""
        run = self.stage.run
        known = state_bytes(run, mesh)
        weights = known["parameters"] * _size(mesh, "fsdp")
        rows = run.batch_size / _batch_shards(mesh)
        activations = rows * self._unabridged[0].on(_size(mesh, "tensor"))
        again = 4 / 3 if _remat(run.model) == "full" else 1.0
        return 3.0 * run.microbatches * weights + 3.0 * again * activations + 2.0 * sum(known.values())

    def collectives(self, mesh: AnyMesh) -> tuple[Collective, ...]:
        """Gradients are summed over copies, weights gathered and gradients scattered over fsdp, and activations summed
        four times a layer over tensor (Shoeybi et al. 2019, section 3)."""
        run = self.stage.run
        parameters = state_bytes(run, mesh)["parameters"]
        fsdp, tensor = _size(mesh, "fsdp"), _size(mesh, "tensor")
        copies = _batch_shards(mesh) // fsdp
        found = []
        if fsdp > 1:
            group = _group(mesh, ("fsdp",))
            gathered = parameters * fsdp
            found.append(Collective("all-gather", gathered, 2 * run.microbatches, group, True))
            found.append(Collective("reduce-scatter", gathered, run.microbatches, group, True))
        if copies > 1:
            axes = tuple(a for a in partitioning.BATCH_AXES if a != "fsdp")
            found.append(Collective("all-reduce", parameters, run.microbatches, _group(mesh, axes), False))
        if tensor > 1:
            rows = run.batch_size / (_batch_shards(mesh) * run.microbatches)
            whole = int(rows * self._per_row[1].whole)
            layers = 4 * _layers(run.model)
            group = _group(mesh, ("tensor",))
            found.append(Collective("all-reduce", whole, layers * run.microbatches, group, False))
        return tuple(found)

    # ---- parts ----

    def _gathered(self, mesh: AnyMesh) -> int:
        """Weights of the largest leaf (of one layer, in a stack), gathered over fsdp for its product: two at a time."""
        if _size(mesh, "fsdp") == 1:
            return 0
        run = self.stage.run
        sizes = [
            math.prod(leaf.shape) * leaf.dtype.itemsize / (leaf.shape[0] if names[:1] == ("layers",) else 1)
            for leaf, names in zip(
                jax.tree.leaves(run.model.abstract_params()),
                jax.tree.leaves(run.model.logical_axes(), is_leaf=lambda x: isinstance(x, tuple)),
                strict=True,
            )
        ]
        return int(2 * max(sizes) / _size(mesh, "tensor"))

    @functools.cached_property
    def _per_row(self) -> tuple[Bytes, Bytes]:
        """(kept for the backward pass, largest intermediate) for each row of a microbatch."""
        return _residuals(self.stage.run.model, self.stage.run.objective, _Features(self.stage.features))

    @functools.cached_property
    def _unabridged(self) -> tuple[Bytes, Bytes]:
        """`_per_row` of the model when it keeps everything."""
        run = self.stage.run
        return _residuals(_without_remat(run.model), run.objective, _Features(self.stage.features))


class _Features(dict[str, Any]):
    """Features, as an argument that a cache can hold."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple((n, f.shape) for n, f in sorted(self.items())))


@functools.lru_cache(maxsize=64)
def _residuals(model: Any, objective: Any, features: _Features) -> tuple[Bytes, Bytes]:
    rows = 4  # more than 1, so that no dimension of 1 looks like that of rows; everything grows with them
    sizes = _split_sizes(model)

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        losses = objective.loss(model, params, batch, {"dropout": key})
        return jnp.sum(jnp.stack([factor * losses[name][0] for name, factor in objective.terms.items()]))

    def backward(params: Any, batch: Any, key: jax.Array) -> Any:
        return jax.vjp(lambda p: loss(p, batch, key), params)[1]

    params = model.abstract_params()
    key = jax.eval_shape(lambda: jax.random.key(0))

    def batch(number: int) -> Any:
        return {n: jax.ShapeDtypeStruct((number, *f.shape), f.dtype) for n, f in features.items()}

    few, many = (
        _total(jax.tree.leaves(jax.eval_shape(backward, params, batch(n), key)), sizes)
        for n in (rows, 2 * rows)
    )
    kept = Bytes(split=(many.split - few.split) / rows, whole=(many.whole - few.whole) / rows)
    shapes = list(_intermediates(jax.make_jaxpr(loss)(params, batch(rows), key).jaxpr))
    big = [a for a in shapes if rows in a.shape[:2]]
    split = max((_nbytes(a) for a in big if sizes & set(a.shape)), default=0) / rows
    whole = max((_nbytes(a) for a in big if not sizes & set(a.shape)), default=0) / rows
    return kept, Bytes(split=split, whole=whole)


def _total(leaves: list[Any], sizes: set[int]) -> Bytes:
    arrays = [leaf for leaf in leaves if hasattr(leaf, "shape")]
    return Bytes(
        split=sum(_nbytes(a) for a in arrays if sizes & set(a.shape)),
        whole=sum(_nbytes(a) for a in arrays if not sizes & set(a.shape)),
    )


def _nbytes(array: Any) -> int:
    itemsize = array.dtype.itemsize if hasattr(array.dtype, "itemsize") else 8
    return math.prod(array.shape) * itemsize


def _intermediates(jaxpr: Any) -> Any:
    """Shapes of all results inside, those of a loop's body as the body has them."""
    for equation in jaxpr.eqns:
        inner = [
            getattr(value, "jaxpr", value)
            for value in equation.params.values()
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        for body in inner:
            yield from _intermediates(body)
        if not inner:
            yield from (v.aval for v in equation.outvars if hasattr(v.aval, "shape") and v.aval.shape)


def _split_sizes(model: Any) -> set[int]:
    """Lengths of dimensions that the tensor axis splits: of the parameters' `heads`, `mlp` and `vocab`, and the
    number of heads."""
    sizes: set[int] = set()
    axes = jax.tree.leaves(model.logical_axes(), is_leaf=lambda x: isinstance(x, tuple))
    for leaf, names in zip(jax.tree.leaves(model.abstract_params()), axes, strict=True):
        sizes |= {size for size, name in zip(leaf.shape, names, strict=True) if name in _SPLIT}
    for part in (model, getattr(model, "encoder", None)):
        if heads := getattr(part, "num_heads", None):
            sizes.add(heads)
    embed = {
        size
        for leaf, names in zip(jax.tree.leaves(model.abstract_params()), axes, strict=True)
        for size, name in zip(leaf.shape, names, strict=True)
        if name == "embed"
    }
    return sizes - embed


def _remat(model: Any) -> str:
    return getattr(model, "remat", None) or getattr(getattr(model, "encoder", None), "remat", "none")


def _without_remat(model: Any) -> Any:
    if hasattr(model, "remat"):
        return dataclasses.replace(model, remat="none")
    if encoder := getattr(model, "encoder", None):
        return dataclasses.replace(model, encoder=_without_remat(encoder))
    return model


def _layers(model: Any) -> int:
    inner = getattr(model, "encoder", model)
    return getattr(inner, "encoder_layers", getattr(inner, "num_layers", 0)) + getattr(
        inner, "decoder_layers", 0
    )


def _size(mesh: AnyMesh, axis: str) -> int:
    return mesh.shape.get(axis, 1)


def _batch_shards(mesh: AnyMesh) -> int:
    return partitioning.batch_shards(mesh)  # type: ignore[arg-type]


def _group(mesh: AnyMesh, axes: tuple[str, ...]) -> tuple[int, ...]:
    """Places in the mesh of the devices that differ from the first in these axes only."""
    names = list(mesh.shape)
    group = [0]
    for index, name in enumerate(names):
        if name in axes:
            stride = math.prod(mesh.shape[n] for n in names[index + 1 :])
            group = [g + i * stride for g in group for i in range(mesh.shape[name])]
    return tuple(group)
