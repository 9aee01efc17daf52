"""Chips by name and the slices they come in: what a topology such as `v5e:16x16` has and how fast it is.

    v5e:16x16       256 chips of a TPU v5e slice
    v5p:8x8x16*2    two slices, joined by the data center network
    h100:8*4        four nodes of eight GPUs
    cpu:8           eight simulated devices, to try a mesh out

Figures are peaks from the vendors' data sheets, dense bfloat16 arithmetic, one way on a link. Sources: Google Cloud
documentation, docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; NVIDIA data sheets of A100, H100 (SXM) and H200. What
the programs of a TPU may use of its memory is what its compiler says when one asks for more (libtpu 0.0.42: v4 30.75,
v5e 15.75, v5p 95.74, v6e 31.25 GiB); for a GPU it is 90 % of the memory, since XLA takes 75 % unless told
XLA_PYTHON_CLIENT_MEM_FRACTION and the driver needs the rest.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Literal

from t5x_like.errors import UserError, did_you_mean, nearest

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator.

    Attributes:
      flops: multiplications and additions a second of bfloat16 matrices.
      single_flops: of float32 matrices as JAX multiplies them by default: a TPU in one bfloat16 pass, a GPU in TF32.
      memory: bytes that a program can have.
      bandwidth: of this memory, bytes a second.
      link: bytes a second, one way: of one link of the torus (TPU), of all links to the switch (GPU).
      network: bytes a second a chip, one way, between slices or nodes.
      dimensions: of the torus; 0 where a switch joins all chips of a node.
      largest: chips of the largest slice, or GPUs of a node.
      cores: that the names of Cloud TPU count in a chip (`v5p-16` has eight chips).
      cloud_name: of the accelerator type, before the dash.
    """

    name: str
    title: str
    platform: Literal["tpu", "gpu", "cpu"]
    flops: float
    single_flops: float
    memory: int
    bandwidth: float
    link: float
    network: float
    dimensions: int = 0
    largest: int
    cores: int = 1
    cloud_name: str = ""


def _gib(number: float) -> int:
    return int(number * GIB)


# The network of a TPU: 50 Gbit/s a chip of v5p (its page); 6.4 Tbit/s a pod of 256 v5e (its page) is 25 a chip; v4 as
# v5e and v6e twice v5p, after the network cards of their hosts (jax-ml.github.io/scaling-book).
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4", title="TPU v4", platform="tpu", flops=275e12, single_flops=275e12, memory=_gib(30.75),
            bandwidth=1200e9, link=50e9, network=3.125e9, dimensions=3, largest=4096, cores=2, cloud_name="v4",
        ),
        Chip(
            name="v5e", title="TPU v5e", platform="tpu", flops=197e12, single_flops=197e12, memory=_gib(15.75),
            bandwidth=819e9, link=50e9, network=3.125e9, dimensions=2, largest=256, cloud_name="v5litepod",
        ),
        Chip(
            name="v5p", title="TPU v5p", platform="tpu", flops=459e12, single_flops=459e12, memory=_gib(95.74),
            bandwidth=2765e9, link=100e9, network=6.25e9, dimensions=3, largest=6144, cores=2, cloud_name="v5p",
        ),
        Chip(
            name="v6e", title="TPU v6e", platform="tpu", flops=918e12, single_flops=918e12, memory=_gib(31.25),
            bandwidth=1638e9, link=100e9, network=12.5e9, dimensions=2, largest=256, cloud_name="v6e",
        ),
        Chip(
            name="a100", title="NVIDIA A100 80GB", platform="gpu", flops=312e12, single_flops=156e12, memory=int(72e9),
            bandwidth=2039e9, link=300e9, network=25e9, largest=8,
        ),
        Chip(
            name="h100", title="NVIDIA H100 SXM", platform="gpu", flops=989e12, single_flops=494e12, memory=int(72e9),
            bandwidth=3350e9, link=450e9, network=50e9, largest=8,
        ),
        Chip(
            name="h200", title="NVIDIA H200", platform="gpu", flops=989e12, single_flops=494e12, memory=int(127e9),
            bandwidth=4800e9, link=450e9, network=50e9, largest=8,
        ),
        Chip(
            name="cpu", title="simulated CPU device", platform="cpu", flops=90e9, single_flops=90e9, memory=_gib(8),
            bandwidth=15e9, link=15e9, network=15e9, largest=4096,
        ),
    )
}  # fmt: skip
"""A simulated device has the rate of one core of an AMD EPYC (Milan) and the memory of a laptop: its times say how
long a test will take, not how fast anything is."""

_LAYOUTS_2D = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_3D = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Slices of one chip. `shape` of one slice: (16, 16), (8, 8, 16), or (8,) for the GPUs of a node."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    def flops(self, dtype: str) -> float:
        """Operations a second of one chip on matrices of this dtype."""
        return self.chip.flops if dtype == "bfloat16" else self.chip.single_flops

    @property
    def per_slice(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Chips of all slices, each one device of JAX (v4 and v5p join their two cores)."""
        return self.per_slice * self.slices

    @property
    def layout(self) -> str:
        """`16x16`."""
        return "x".join(map(str, self.shape))

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        return f"{self.chip.name}:{self.layout}" + (f"*{self.slices}" if self.slices > 1 else "")

    @property
    def accelerator_type(self) -> str:
        """Of one slice, as Cloud TPU names it: `v5litepod-256`, `v5p-2048`, `v4-128`, `v6e-256`."""
        return f"{self.chip.cloud_name}-{self.per_slice * self.chip.cores}"

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Of each axis of the torus, whether its two ends are joined (v5e and v6e: 16; v4 and v5p: whole cubes)."""
        if self.chip.dimensions == 2:
            return tuple(size == 16 for size in self.shape)
        cubes = all(size % 4 == 0 for size in self.shape)
        return tuple(cubes for _ in self.shape)


def parse(text: str) -> Topology:
    """`v5e:16x16`, `v5p:8x8x16*2`, `h100:8*4`, `cpu:8`.

    Raises:
      UserError: an unknown chip, or a slice that is not sold; names the nearest that is.
    """
    where = f"--topology={text}"
    plain = "".join(text.split()).lower()
    match = re.fullmatch(r"([a-z0-9]+):(\d{1,4}(?:x\d{1,4}){0,3})(?:\*(\d{1,4}))?", plain)
    if match is None:
        raise UserError(
            "a topology reads CHIP:SHAPE or CHIP:SHAPE*SLICES",
            where=where,
            help=f"did you mean {_guess(plain).name}?",
        )
    name, layout, slices = match[1], match[2], int(match[3] or 1)
    chip = CHIPS.get(name)
    if chip is None:
        same = [c for c in CHIPS if CHIPS[c].platform == name]  # tpu, gpu
        help = "choose one of: " + ", ".join(same) if same else did_you_mean(name, CHIPS)
        raise UserError(f"no chip {name!r} is known", where=where, help=help)
    shape = tuple(int(size) for size in layout.split("x"))
    topology = Topology(chip=chip, shape=shape, slices=slices)
    if slices < 1 or not _exists(chip, shape):
        close = dataclasses.replace(topology, shape=_closest(chip, shape), slices=max(slices, 1))
        if chip.platform == "gpu":  # more than a node has: several nodes
            close = dataclasses.replace(
                close, slices=close.slices * -(-math.prod(shape) // chip.largest) or 1
            )
        what = f"a slice of {chip.title}" if chip.platform == "tpu" else f"a node of {chip.title}"
        raise UserError(
            f"there is no {what.removeprefix('a ')} of {layout}"
            if slices
            else "there must be at least 1 slice",
            where=where,
            help=f"the nearest that there is: {close.name}",
        )
    return topology


def _guess(text: str) -> Topology:
    """Of a chip without a shape, or a name of Cloud TPU such as `v5litepod-16`."""
    name, _, number = text.replace(":", "-").partition("-")
    for chip in CHIPS.values():
        if name and name in (chip.cloud_name, chip.name) and re.fullmatch(r"\d{1,5}", number):
            return Topology(chip=chip, shape=_closest(chip, (int(number) // chip.cores,)))
    chip = CHIPS.get(name) or CHIPS[nearest(name, CHIPS) or "v5e"]
    return Topology(chip=chip, shape={0: (8,), 2: (16, 16), 3: (4, 4, 4)}[chip.dimensions])


def _exists(chip: Chip, shape: tuple[int, ...]) -> bool:
    if chip.dimensions == 0:
        return len(shape) == 1 and 1 <= shape[0] <= chip.largest
    if chip.dimensions == 2:
        return shape in _LAYOUTS_2D
    return shape in _SMALL_3D or (
        len(shape) == 3
        and all(size > 0 and size % 4 == 0 for size in shape)
        and list(shape) == sorted(shape)
        and math.prod(shape) <= chip.largest
    )


def _closest(chip: Chip, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The slice whose number of chips is nearest by ratio; of several the most like `shape`, then the most even."""
    wanted = max(math.prod(shape), 1)
    if chip.dimensions == 0:
        return (min(wanted, chip.largest),)
    if chip.dimensions == 2:
        choices: list[tuple[int, ...]] = list(_LAYOUTS_2D)
    else:
        sides = range(4, chip.largest // 16 + 1, 4)
        cubes = itertools.combinations_with_replacement([s for s in sides if s <= 64], 3)
        choices = [*_SMALL_3D, *(c for c in cubes if math.prod(c) <= chip.largest)]
    ordered = sorted(shape)
    return min(
        choices,
        key=lambda c: (
            abs(math.log(math.prod(c) / wanted)),
            sorted(c) != ordered,
            max(c) - min(c),
        ),
    )
