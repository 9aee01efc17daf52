"""What the devices of a compiled program do together: kinds, bytes and groups of its collectives."""

from __future__ import annotations

import dataclasses
import math
import re

from t5x_like.planning.hlo import Computation, Instruction

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction that devices do together.

    Attributes:
      kind: one of `COLLECTIVES`, or `send`: to another slice.
      bytes: a device, each time: of the whole array that is gathered, scattered, summed or sent.
      times: a step.
      group: the devices of one group, by their place in the mesh; () for all.
      overlaps: started, and waited for later, so that work can go on meanwhile.
    """

    kind: str
    bytes: int
    times: int
    group: tuple[int, ...]
    overlaps: bool


def collective(instruction: Instruction, inside: Computation, times: int) -> Collective | None:
    """What an instruction that runs so many times a step does together with other devices; None for any other."""
    opcode = instruction.opcode.removesuffix("-start")
    if (
        opcode == "send"
    ):  # what a TPU's compiler makes of collectives between slices: its part goes over the network
        return Collective(
            "send", inside.instructions[instruction.operands[0]].shapes[0].bytes, times, (), True
        )
    if opcode not in COLLECTIVES:
        return None
    group = devices(instruction.attribute(r"(?:replica_groups|source_target_pairs)=(.*)") or "")
    kind = "reduce-scatter" if opcode == "all-reduce" and _only_sliced(instruction, inside) else opcode
    return Collective(kind, collective_bytes(instruction, inside), times, group, instruction.opcode != opcode)


def _only_sliced(instruction: Instruction, inside: Computation) -> bool:
    """An all-reduce of which a device keeps its own slice: the TPU's way to write a reduce-scatter."""
    users = inside.users[instruction.name]
    return bool(users) and all(u.opcode == "dynamic-slice" for u in users)


def collective_bytes(instruction: Instruction, inside: Computation) -> int:
    """Of the whole array: what goes in, or what comes out where that is more."""
    incoming = sum(s.bytes for name in instruction.operands for s in inside.instructions[name].shapes)
    if instruction.opcode == "all-gather-start":  # ((inputs), (outputs), ...)
        outgoing = sum(s.bytes for s in instruction.shapes) - incoming
    elif instruction.opcode.endswith("-start"):
        outgoing = 0
    else:
        outgoing = sum(s.bytes for s in instruction.shapes)
    return max(incoming, outgoing)


def devices(text: str) -> tuple[int, ...]:
    """The first group of `{{0,1},{2,3}}`, of `[2,4]<=[4,2]T(1,0)` or of `mesh['a'=4,'b'=2] {'b'}`, as places in the
    mesh; () for all devices."""
    if match := re.match(r"\{\{([\d,]*)\}", text):
        return tuple(int(d) for d in match[1].split(",") if d)
    if match := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        size = [int(s) for s in match[1].split(",")][-1]
        shape = [int(s) for s in match[2].split(",")]
        order = [int(s) for s in match[3].split(",")] if match[3] else list(range(len(shape)))
        return tuple(_number(i, shape, order) for i in range(size))
    if match := re.match(r"mesh\[([^\]]*)\](?:<=\[[^\]]*\](?:T\([\d,]+\))?)?\s*\{([^}]*)\}", text):
        axes = [(n, int(s)) for n, s in re.findall(r"'([^']+)'=(\d+)", match[1])]
        named = set(re.findall(r"'([^']+)'", match[2]))
        group = [0]
        for axis, (name, size) in enumerate(axes):
            stride = math.prod(s for _, s in axes[axis + 1 :])
            if name in named:
                group = [g + i * stride for g in group for i in range(size)]
        return tuple(group)
    return ()


def _number(index: int, shape: list[int], order: list[int]) -> int:
    """Entry `index` of `iota(shape)` transposed by `order` and flattened."""
    transposed = [shape[axis] for axis in order]
    place = [0] * len(shape)
    for axis in reversed(range(len(order))):
        index, place[order[axis]] = divmod(index, transposed[axis])
    return sum(p * math.prod(shape[a + 1 :]) for a, p in enumerate(place))
