"""From operations, bytes and traffic to a time: nothing is faster than the peak of what binds it.

Each instruction takes the longer of operations / peak and bytes / bandwidth (Williams et al. 2009). A collective takes
what a ring takes (Chan et al. 2007): a device sends (n - 1) / n of the array, twice for an all-reduce, over the links
of the torus axes that its group spans, both ways round where the axis closes to a ring; between slices first the part
that is left after a reduction inside, over the network. Collectives that are started ahead run beside the work and
count only where they outlast it. Latencies, caches and imperfect kernels are left out: a bound, and a hint what binds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from t5x_like.planning.collectives import Collective
from t5x_like.planning.topologies import Topology

Place = tuple[int, tuple[int, ...]]
"""Of a device: (slice, coordinates in its torus)."""

_SENT = {
    "all-reduce": 2.0,
    "all-gather": 1.0,
    "reduce-scatter": 1.0,
    "all-to-all": 0.25,
    "collective-permute": 1.0,
}
"""Times the array that a ring carries past a device. All-to-all: a quarter (each part goes n/4 hops on average)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one step.

    Attributes:
      compute: operations at the peak rate.
      memory: bytes at the peak bandwidth.
      device: every instruction at the rate of what binds it.
      links, network: collectives inside slices, between slices.
      exposed: of these two what no work hides.
    """

    compute: float
    memory: float
    device: float
    links: float
    network: float
    exposed: float

    @property
    def step(self) -> float:
        return self.device + self.exposed


def places(topology: Topology, devices: Sequence[object] | None) -> list[Place]:
    """Of the devices in the order of the mesh; without devices, slices and coordinates in row-major order."""
    if devices is not None and hasattr(devices[0], "coords"):
        return [(int(getattr(d, "slice_index", 0) or 0), tuple(d.coords)) for d in devices]  # type: ignore[attr-defined]
    found = []
    for number in range(topology.devices):
        slice_, rest = divmod(number, topology.per_slice)
        coordinates = []
        for size in reversed(topology.shape):
            rest, c = divmod(rest, size)
            coordinates.append(c)
        found.append((slice_, tuple(reversed(coordinates))))
    return found


def collective_seconds(
    collective: Collective, where: Sequence[Place], topology: Topology
) -> tuple[float, float]:
    """(on links, on the network) of one execution."""
    if collective.kind == "send":
        return 0.0, collective.bytes / topology.chip.network
    members = [where[i] for i in collective.group] if collective.group else list(where)
    slices = len({s for s, _ in members})
    inside = len(members) // slices
    sent = _SENT[collective.kind] * collective.bytes
    links = network = 0.0
    if collective.kind == "collective-permute":  # pairs: the first tells whether it leaves the slice
        return (sent / topology.chip.link, 0.0) if slices == 1 else (0.0, sent / topology.chip.network)
    if inside > 1:
        links = sent * (inside - 1) / inside / _width([p for p in members if p[0] == members[0][0]], topology)
    if slices > 1:
        network = sent / inside * (slices - 1) / slices / topology.chip.network
    return links, network


def _width(members: Sequence[Place], topology: Topology) -> float:
    """Bytes a second that a device of the group can send inside its slice."""
    chip = topology.chip
    if chip.dimensions == 0:
        return chip.link
    total = 0.0
    for axis, size in enumerate(topology.shape):
        spanned = {coordinates[axis] for _, coordinates in members}
        if len(spanned) > 1:
            total += chip.link * (2 if topology.wraps[axis] and len(spanned) == size else 1)
    return total or chip.link


def times(
    *,
    flops: float,
    bytes: float,
    device: float | None,
    collectives: Sequence[Collective],
    where: Sequence[Place],
    topology: Topology,
    rate: float,
) -> Times:
    """Seconds of a step from what one device does in it; `device` where instructions were timed one by one;
    `rate`: operations a second."""
    compute, memory = flops / rate, bytes / topology.chip.bandwidth
    device = max(compute, memory) if device is None else device
    links = network = hidden = alone = 0.0
    for collective in collectives:
        one, other = collective_seconds(collective, where, topology)
        links += one * collective.times
        network += other * collective.times
        spent = (one + other) * collective.times
        hidden, alone = (hidden + spent, alone) if collective.overlaps else (hidden, alone + spent)
    exposed = alone + max(0.0, hidden - device)
    assert math.isfinite(exposed)
    return Times(compute=compute, memory=memory, device=device, links=links, network=network, exposed=exposed)
