"""Where arrays live: the mesh, the rules from logical axis names to mesh axes, and batches on their devices.

Parameters and optimizer state carry logical names (`embed`, `heads`, ...); only this file and the configuration
speak of mesh axes:

- `data`: every device holds all parameters and works on its own rows of the batch;
- `fsdp`: rows of the batch too, but each device keeps a slice of the parameters (Rajbhandari et al. 2020, ZeRO-3);
- `tensor`: heads, feed-forward units and vocabulary are split inside each layer (Shoeybi et al. 2019, Megatron).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5x_like.data.example import Feature
from t5x_like.errors import UserError
from t5x_like.models.sharding import Rules, partition_spec

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

RULES: Rules = (
    ("batch", BATCH_AXES),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
)
"""Names without a rule (`layers`, `length`, `relpos_buckets`) stay whole. In an activation `batch` comes first and
takes `fsdp`, so that its `embed` stays whole too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """The shape of the device mesh; one axis may be -1, which takes the devices that the others leave.

    Attributes:
      data: copies of the model, each with its own rows of the batch.
      fsdp: devices over which parameters, optimizer state and rows of the batch are split.
      tensor: devices over which heads, feed-forward units and the vocabulary are split.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in AXES:
            size = getattr(self, name)
            if size < 1 and size != -1:
                raise UserError(
                    f"mesh.{name} is {size}; it must be at least 1, or -1 for the devices left over",
                    where=f"mesh.{name}",
                )
        if [self.data, self.fsdp, self.tensor].count(-1) > 1:
            raise UserError("only one axis of the mesh can take the devices left over (-1)", where="mesh")

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over `devices` (all of them by default), axes named `data`, `fsdp`, `tensor`.

        Raises:
          UserError: the shape does not fit the number of devices; names the nearest that does.
        """
        devices = list(jax.devices() if devices is None else devices)
        shape = self.shape(len(devices))
        return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)

    def shape(self, num_devices: int) -> tuple[int, int, int]:
        """(data, fsdp, tensor) for this many devices, or the `UserError` of `build`."""
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(s for s in sizes if s != -1)
        fits = num_devices % known == 0 if -1 in sizes else num_devices == known
        if not fits:
            wanted = ", ".join(f"{a}={s}" for a, s in zip(AXES, sizes))
            near = ", ".join(f"{a}={s}" for a, s in zip(AXES, self._nearest(num_devices)))
            raise UserError(
                f"a mesh of {wanted} does not fit {num_devices} device{'s' * (num_devices != 1)}",
                where="mesh",
                help=f"the nearest that does: {near}",
            )
        data, fsdp, tensor = (num_devices // known if s == -1 else s for s in sizes)
        return data, fsdp, tensor

    def _nearest(self, num_devices: int) -> tuple[int, int, int]:
        """The shape of exactly `num_devices` that changes the wanted sizes by the smallest factors."""
        divisors = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
        shapes = [
            (num_devices // (f * t), f, t) for f in divisors for t in divisors if num_devices % (f * t) == 0
        ]
        wanted = (self.data, self.fsdp, self.tensor)

        def distance(shape: tuple[int, int, int]) -> float:
            return sum(abs(math.log(s / w)) for s, w in zip(shape, wanted) if w != -1)

        return min(shapes, key=distance)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows (the first dimension of every feature) over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: jax.sharding.Mesh) -> int:
    """The number of pieces into which the rows of a batch fall."""
    return math.prod(mesh.shape[a] for a in BATCH_AXES)


def shardings(axes: Any, shapes: Any, mesh: jax.sharding.Mesh, rules: Rules = RULES) -> Any:
    """A `NamedSharding` for every leaf.

    Args:
      axes: tree of tuples of logical names, one name (or None) a dimension.
      shapes: tree of the same structure whose leaves have `.shape` (arrays or `ShapeDtypeStruct`).
      mesh: from `Mesh.build`.
      rules: logical name -> mesh axes.

    A dimension that its mesh axes do not divide stays whole: it is right, only larger, and `parameters.table`
    shows it. Tables of the vocabulary come padded to a multiple of 128, so this touches small arrays only.
    """
    return jax.tree.map(
        lambda leaf, names: NamedSharding(mesh, partition_spec(names, leaf.shape, mesh, rules)), shapes, axes
    )


def abstract_batch(
    features: Mapping[str, Feature], batch_size: int, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `shard_batch` gives for a batch of these features: for compiling ahead."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((batch_size, *feature.shape), feature.dtype, sharding=sharding)
        for name, feature in features.items()
    }


def check_batch(batch_size: int, microbatches: int, mesh: jax.sharding.Mesh) -> None:
    """Raises `UserError`, with the nearest sizes that work, where a batch of `batch_size` rows in `microbatches`
    parts does not divide over the batch axes of the mesh."""
    unit = batch_shards(mesh) * microbatches
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        parts = f" in {microbatches} microbatches" if microbatches > 1 else ""
        raise UserError(
            f"a batch of {batch_size}{parts} does not divide over {batch_shards(mesh)} devices "
            f"(mesh.data * mesh.fsdp)",
            where="batch_size",
            help="the nearest that does: batch_size=" + (f"{below} or {above}" if below else f"{above}"),
        )


def host_rows(batch_size: int, mesh: jax.sharding.Mesh) -> slice:
    """The rows of the global batch that this process must supply (several may share rows under `tensor`)."""
    pieces = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    spans = sorted({index[0].indices(batch_size)[:2] for index in pieces.values() if index is not None})
    if any(end != start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise UserError(
            "the devices of this process hold rows of the batch that are not consecutive",
            where="mesh",
            help="order the mesh so that data and fsdp run over hosts before tensor does",
        )
    return slice(spans[0][0], spans[-1][1])


def shard_batch(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """A batch on its devices, explicitly: `batch` holds the rows of `host_rows` (all rows on one process)."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
