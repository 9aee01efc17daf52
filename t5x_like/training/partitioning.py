"""Where arrays live: the mesh, the rules from logical axis names to mesh axes, and batches on their devices.

Parameters and optimizer state carry logical names (`embed`, `heads`, ...); only this file and the configuration
speak of mesh axes:

- `data`: every device holds all parameters and works on its own rows of the batch;
- `fsdp`: rows of the batch too, but each device keeps a slice of the parameters (Rajbhandari et al. 2020, ZeRO-3);
- `sequence`: between the layers' products each device holds a stretch of every row (Korthikanti et al. 2022, over an
  axis of its own), and attention gathers keys and values;
- `tensor`: heads, feed-forward units and vocabulary are split inside each layer (Shoeybi et al. 2019, Megatron).

An axis that some later model needs (stage, expert) is one more field of `Mesh` and a rule.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5x_like.data.example import Feature
from t5x_like.errors import UserError
from t5x_like.training import layout as layouts
from t5x_like.training.layout import AXES, BATCH_AXES, DEFAULT, Layout

Shape = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """The shape of the device mesh, and how a run lies on it; one axis may be -1: the devices that the others leave.

    One line sets it: --set=mesh=data=-1,fsdp=2,tensor=2 (what is not named takes its default), or one field alone:
    --set=mesh.fsdp=2.

    Attributes:
      data: copies of the model, each with its own rows of the batch.
      fsdp: devices over which parameters, optimizer state and rows of the batch are split.
      sequence: devices over which the length of activations is split.
      tensor: devices over which heads, feed-forward units and the vocabulary are split.
      slices: groups of devices with fast links inside and slow ones between; `data` alone runs across them. None: as
        many as the TPU has.
      partitioner: "jit" names the shardings and leaves it to the compiler to split the step; "pmap" runs the step of
        one device on each and sums gradients by hand: data parallelism only.
      rules: logical name -> mesh axes, joined by +, or - for none: {"embed": "fsdp+tensor"}. Before `RULES`.
      overrides: pattern of parameter paths (* fits anything) -> mesh axes of each dimension, as the table of
        parameters shows them: {"*/mlp/wo/kernel": "fsdp, tensor"}.
    """

    data: int = -1
    fsdp: int = 1
    sequence: int = 1
    tensor: int = 1
    slices: int | None = None
    partitioner: Literal["jit", "pmap"] = "jit"
    rules: dict[str, str] = dataclasses.field(default_factory=dict)
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, size in zip(AXES, self._sizes):
            if size < 1 and size != -1:
                raise UserError(
                    f"mesh.{name} is {size}; it must be at least 1, or -1 for the devices left over",
                    where=f"mesh.{name}",
                )
        if self._sizes.count(-1) > 1:
            raise UserError("only one axis of the mesh can take the devices left over (-1)", where="mesh")
        if self.slices is not None and self.slices < 1:
            raise UserError(
                f"mesh.slices is {self.slices}; it must be at least 1, or none", where="mesh.slices"
            )
        if self.partitioner == "pmap" and self._sizes[1:] != (1, 1, 1):
            raise UserError(
                f"pmap has data parallelism only, and no {self._text(self._sizes)}",
                where="mesh.partitioner",
                help="mesh.partitioner=jit, or fsdp=1, sequence=1 and tensor=1",
            )
        self.layout()

    @property
    def _sizes(self) -> Shape:
        return self.data, self.fsdp, self.sequence, self.tensor

    def layout(self) -> Layout:
        """The rules and overrides, read.

        Raises:
          UserError: a name or a mesh axis that does not exist, with the nearest.
        """
        return layouts.read(self.rules, self.overrides)

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over `devices` (all of them by default), with axes named by `AXES`.

        Raises:
          UserError: the shape does not fit the number of devices or slices; names the nearest that does.
        """
        devices = list(jax.devices() if devices is None else devices)
        groups = _slices(devices, self.slices)
        data, *inner = self.shape(len(devices), len(groups))
        shape = (data // len(groups), *inner)
        try:
            blocks = [
                mesh_utils.create_device_mesh(shape, group, allow_split_physical_axes=True)
                for group in groups
            ]
        except (NotImplementedError, ValueError, AssertionError) as e:
            raise UserError(
                f"the chips of this topology cannot be laid out as {self._text((data, *inner))}: {e}",
                where="mesh",
                help="axes whose sizes are products of the topology's sides can",
            ) from None
        return jax.sharding.Mesh(
            np.concatenate(blocks, axis=0), AXES, axis_types=(AxisType.Auto,) * len(AXES)
        )

    def shape(self, num_devices: int, slices: int = 1) -> Shape:
        """The size of each axis for so many devices in so many slices, or the `UserError` of `build`."""
        known = math.prod(s for s in self._sizes if s != -1)
        fits = num_devices % known == 0 if -1 in self._sizes else num_devices == known
        found = tuple(num_devices // known if s == -1 else s for s in self._sizes)
        if fits and found[0] % slices == 0:
            return found  # type: ignore[return-value]
        near = self._text(self._nearest(num_devices, slices))
        groups = f" in {slices} slices, which data alone runs across" if slices > 1 else ""
        raise UserError(
            f"a mesh of {self._text(self._sizes)} does not fit {num_devices} "
            f"device{'s' * (num_devices != 1)}{groups}",
            where="mesh",
            help=f"the nearest that does: {near}",
        )

    def _text(self, shape: Sequence[int]) -> str:
        """Without the axes of size 1 that nobody has asked for."""
        shown = [
            f"{name}={size}"
            for name, size, wanted in zip(AXES, shape, self._sizes)
            if size != 1 or wanted != 1 or name != "sequence"
        ]
        return ", ".join(shown)

    def _nearest(self, num_devices: int, slices: int) -> Shape:
        """The shape of exactly `num_devices` that changes the wanted sizes by the smallest factors."""
        divisors = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
        shapes = [
            (num_devices // (f * s * t), f, s, t)
            for f, s, t in itertools.product(divisors, repeat=3)
            if num_devices % (f * s * t) == 0 and (num_devices // (f * s * t)) % slices == 0
        ]

        def distance(shape: Shape) -> float:
            return sum(abs(math.log(s / w)) for s, w in zip(shape, self._sizes) if w != -1)

        return min(shapes, key=distance)


def _slices(devices: list[Any], wanted: int | None) -> list[list[Any]]:
    """The devices of each slice. Where the hardware does not tell (CPU, GPU), `wanted` equal groups of them, those of
    one process together."""
    told: dict[int, list[Any]] = {}
    for device in devices:
        # A slice that is alone, as one that is only compiled for, has no number.
        number = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        told.setdefault(number, []).append(device)
    count = count_slices(len(devices), len(told) if devices[0].platform == "tpu" else None, wanted)
    if len(told) > 1:
        return [told[number] for number in sorted(told)]
    ordered = sorted(devices, key=lambda d: (d.process_index, d.id)) if count > 1 else devices
    size = len(devices) // count
    return [ordered[i * size : (i + 1) * size] for i in range(count)]


def count_slices(devices: int, told: int | None, wanted: int | None) -> int:
    """How many slices so many devices make up.

    Args:
      told: what the hardware says; None where it says nothing (CPU, GPU).
      wanted: `Mesh.slices`.

    Raises:
      UserError: they are not as many as wanted, or do not divide into these.
    """
    if told is not None and wanted not in (None, told):
        raise UserError(
            f"mesh.slices is {wanted}, and the devices lie in {told}",
            where="mesh.slices",
            help=f"mesh.slices={told}, or none",
        )
    count = told or wanted or 1
    if devices % count:
        fitting = max(n for n in range(1, count) if devices % n == 0)
        raise UserError(
            f"{devices} devices do not divide into {count} slices",
            where="mesh.slices",
            help=f"mesh.slices={fitting}",
        )
    return count


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows (the first dimension of every feature) over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: jax.sharding.Mesh) -> int:
    """The number of pieces into which the rows of a batch fall."""
    return math.prod(mesh.shape[a] for a in BATCH_AXES)


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


def check_vocabulary(rows: int, mesh: jax.sharding.Mesh, layout: Layout = DEFAULT) -> None:
    """Raises `UserError`, with the nearest sizes that work, where a table of so many rows does not divide over the
    mesh. Padding it is not ours to do: rows of no token take part in the softmax, and change the loss."""
    axes = next(axes for name, axes in layout.rules if name == "vocab")
    parts = layouts.parts(axes, mesh)
    if rows % parts:
        below, above = rows // parts * parts, (rows // parts + 1) * parts
        raise UserError(
            f"a vocabulary of {rows} rows does not divide over {parts} devices "
            f"({' * '.join('mesh.' + axis for axis in layouts.flat(axes))})",
            where="model.vocab_size",
            help=f"the nearest that does: model.vocab_size={above} (rows that no id uses are trained down)"
            + (f"; or a tokenizer of {below}" if below else ""),
        )


def check_lengths(features: Mapping[str, Feature], mesh: jax.sharding.Mesh) -> list[str]:
    """The features whose length the sequence axis does not divide: they are right, and stay whole.

    Raises:
      UserError: that is so for all of them.
    """
    parts = mesh.shape["sequence"]
    lengths = {n: f.shape[0] for n, f in features.items() if n.endswith("_tokens") and f.shape}
    uneven = {name: length for name, length in lengths.items() if length % parts}
    if lengths and len(uneven) == len(lengths):
        longest = max(lengths.values())
        raise UserError(
            f"no length of the inputs divides over mesh.sequence={parts}: "
            + ", ".join(f"{name} {length}" for name, length in lengths.items()),
            where="mesh.sequence",
            help=f"lengths that do: {longest // parts * parts} or {(longest // parts + 1) * parts}"
            if longest >= parts
            else f"mesh.sequence={longest} at most",
        )
    return [f"{name} {length}" for name, length in uneven.items()]


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
