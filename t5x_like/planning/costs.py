"""What one step of a compiled program does on one device: operations, bytes, traffic, and what it keeps.

    costs = costs.count(hlo.parse(compiled.as_text()))

- operations: multiplications and additions of matrix products (`dot`, `convolution`, kernels that say theirs), the ones
  that the matrix unit works on; elementwise ones are bound by bytes anyhow;
- bytes: what instructions read from and write to main memory, slices of larger arrays counted as slices, what stays on
  the chip not at all;
- collectives: how often and how many bytes of each kind, and which devices take part.

Everything in the body of a loop counts as often as the loop runs. Of a conditional (the update that is left out where
the gradient is not finite) the dearer branch counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from t5x_like.planning import operations
from t5x_like.planning.collectives import COLLECTIVES, Collective, collective, collective_bytes
from t5x_like.planning.hlo import Computation, Instruction, Module, Shape

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "iota", "add-dependency", "copy-done", "slice-done", "async-done", "async-update", "send-done",
    "recv-done", "domain", "get-dimension-size",
}  # fmt: skip
_FREE_CALLS = (
    "AllocateBuffer",
    "ConcatBitcast",
    "AssumeGatherIndicesInBound",
    "Sharding",
    "ProvenanceTracking",
)


@dataclasses.dataclass(frozen=True)
class Work:
    """One instruction, and how often it runs in a step."""

    flops: float
    bytes: float
    times: int
    scope: str


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of one step on one device.

    Attributes:
      work: what computes or moves memory.
      collectives: what talks.
      kept: bytes that the forward pass leaves in main memory for the backward pass, at once.
      unknown_loops: loops whose length the text does not tell; their bodies count once.
      unknown_kernels: kernels whose operations nobody tells; they count as none.
    """

    work: tuple[Work, ...]
    collectives: tuple[Collective, ...]
    kept: int
    unknown_loops: int = 0
    unknown_kernels: int = 0

    @property
    def flops(self) -> float:
        return math.fsum(w.flops * w.times for w in self.work)

    @property
    def bytes(self) -> float:
        return math.fsum(w.bytes * w.times for w in self.work)

    def seconds(self, flops: float, bandwidth: float) -> float:
        """Each instruction at the rate of what binds it: operations a second or bytes a second."""
        return math.fsum(w.times * max(w.flops / flops, w.bytes / bandwidth) for w in self.work)

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Kind -> (instructions a step, bytes a step and device)."""
        found: dict[str, tuple[int, int]] = {}
        for c in self.collectives:
            times, total = found.get(c.kind, (0, 0))
            found[c.kind] = (times + c.times, total + c.bytes * c.times)
        return dict(sorted(found.items()))


def count(module: Module) -> Costs:
    """Walks the program from its entry."""
    counter = _Counter(module)
    counter.visit(module.computations[module.entry], 1)
    return Costs(
        tuple(counter.work),
        (*counter.collectives, *counter.fused.values()),
        max((kept(module, c) for c in counter.visited), default=0),
        counter.unknown_loops,
        counter.unknown_kernels,
    )


class _Counter:
    def __init__(self, module: Module):
        self.module = module
        self.work: list[Work] = []
        self.collectives: list[Collective] = []
        self.fused: dict[str, Collective] = {}
        self.visited: list[Computation] = []
        self.unknown_loops = 0
        self.unknown_kernels = 0

    def visit(self, computation: Computation, times: int) -> None:
        self.visited.append(computation)
        for instruction in computation.instructions.values():
            if instruction.loop:
                trips = self.module.trips(instruction, computation)
                self.unknown_loops += trips is None
                self.visit(
                    self.module.computations[instruction.loop[1]], times * (1 if trips is None else trips)
                )
            elif instruction.opcode == "conditional":
                self._dearest(instruction, times)
            elif instruction.opcode in ("call", "async-start"):
                self.visit(self.module.computations[instruction.called[0]], times)
            else:
                self._add(instruction, computation, times)

    def _dearest(self, instruction: Instruction, times: int) -> None:
        branches = []
        for name in instruction.called:
            branch = _Counter(self.module)
            branch.visit(self.module.computations[name], times)
            branches.append(branch)
        best = max(branches, key=lambda b: math.fsum(w.bytes * w.times for w in b.work))
        self.work += best.work
        self.collectives += best.collectives
        self.fused |= best.fused
        self.visited += best.visited
        self.unknown_loops += best.unknown_loops
        self.unknown_kernels += best.unknown_kernels

    def _add(self, instruction: Instruction, inside: Computation, times: int) -> None:
        if instruction.opcode == "fusion":
            self._fused_collectives(instruction, times)
        elif found := collective(instruction, inside, times):
            self.collectives.append(found)
        moved = _bytes(self.module, instruction, inside)
        flops = operations.flops(self.module, instruction, inside)
        self.unknown_kernels += (
            instruction.opcode == "custom-call" and operations.kernel(instruction, inside) is None
        )
        if moved or flops:
            self.work.append(Work(flops, moved, times, instruction.op_name))

    def _fused_collectives(self, instruction: Instruction, times: int) -> None:
        """A TPU spreads one collective over the fusions that run meanwhile, also over those of an inner loop: all
        speak of one channel, which counts once, where it is met most rarely."""
        computation = self.module.computations[instruction.called[0]]
        for part in computation.instructions.values():
            if found := collective(part, computation, times):
                channel = part.attribute(r"channel_id=(\d+)") or f"{computation.name}/{part.name}"
                shared = "async" in computation.name
                before = self.fused.get(channel)
                if before is not None:
                    found = min(before, found, key=lambda c: c.times)
                    shared |= before.overlaps
                self.fused[channel] = dataclasses.replace(found, overlaps=shared or found.overlaps)


# ---- bytes ----------------------------------------------------------------------------------------


def _bytes(module: Module, instruction: Instruction, inside: Computation) -> float:
    """What an instruction that stands for itself reads and writes in main memory."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode == "custom-call" and any(f'"{name}"' in instruction.attributes for name in _FREE_CALLS):
        return 0
    written = sum(shape.memory_bytes for shape in instruction.shapes)
    operands = [inside.instructions[name].shapes for name in instruction.operands]
    if opcode == "fusion":
        return _fusion_bytes(module, instruction, inside)
    if opcode in ("copy-start", "slice-start"):
        source, target = operands[0][0], instruction.shapes[1]
        moved = target.bytes if opcode == "slice-start" else min(source.bytes, target.bytes)
        return moved * ((source.space == 0) + (target.space == 0))
    if opcode in ("dynamic-slice", "slice", "gather"):
        read = written if operands and operands[0][0].space == 0 else 0
        return read + written
    if opcode == "dynamic-update-slice":
        return 2 * operands[1][0].memory_bytes
    if opcode == "scatter":
        return 3 * sum(s.memory_bytes for s in operands[-1])
    if opcode.endswith("-start"):  # a collective: what comes in and what goes out, not the handles
        return collective_bytes(instruction, inside) * 2
    return written + sum(shape.memory_bytes for shapes in operands for shape in shapes)


def _fusion_bytes(module: Module, instruction: Instruction, inside: Computation) -> float:
    computation = module.computations[instruction.called[0]]
    total = 0.0
    travelling = _travelling(computation)
    for number, name in enumerate(instruction.operands):
        shape = inside.instructions[name].shapes
        whole = sum(s.memory_bytes for s in shape if s.dimensions not in travelling)
        if whole:
            total += min(whole, _read(module, computation, number, shape[0]))
    root = computation.root
    parts = [computation.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(parts) != len(instruction.shapes):  # tuples inside tuples: steps of a collective
        return total + sum(s.memory_bytes for s in instruction.shapes if s.dimensions not in travelling)
    for part, shape in zip(parts, instruction.shapes, strict=True):
        if shape.memory_bytes:
            total += min(shape.memory_bytes, _written(module, computation, part))
    return total


def _travelling(computation: Computation) -> set[tuple[int, ...]]:
    """Shapes of what a collective inside a fusion takes and gives: buffers that it fills bit by bit, from fusion to
    fusion, and that none of them reads or writes as a whole."""
    return {
        shape.dimensions
        for part in computation.instructions.values()
        if part.opcode.removesuffix("-start") in COLLECTIVES
        for source in (part, *(computation.instructions[name] for name in part.operands))
        for shape in source.shapes
    }


def _read(module: Module, computation: Computation, number: int, whole: Shape) -> float:
    """Bytes that a fused computation reads of its parameter: only slices, where it only takes slices."""
    parameter = computation.parameters.get(number)
    if parameter is None:
        return 0
    scale = whole.bytes / max(whole.elements, 1)
    pending, total = [parameter.name], 0.0
    while pending:
        name = pending.pop()
        for user in computation.users[name]:
            if user.opcode == "bitcast":
                pending.append(user.name)
            elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
                total += user.shapes[0].elements * scale
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                pass  # updated in place
            elif user.opcode == "fusion":
                inner = module.computations[user.called[0]]
                total += sum(
                    _read(module, inner, i, whole)
                    for i, operand in enumerate(user.operands)
                    if operand == name
                )
            else:
                return whole.elements * scale
    return total


def _written(module: Module, computation: Computation, root: Instruction) -> float:
    """Bytes that a fused computation writes: only the slice, where it updates one in place."""
    while root.opcode == "bitcast":
        root = computation.instructions[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
        return computation.instructions[root.operands[1]].shapes[0].bytes
    if root.opcode == "fusion":
        inner = module.computations[root.called[0]]
        return _written(module, inner, inner.root)
    return sum(shape.bytes for shape in root.shapes)


# ---- what is kept ---------------------------------------------------------------------------------


def kept(module: Module, computation: Computation) -> int:
    """Bytes in main memory that the forward pass in this computation makes and its backward pass reads.

    JAX names scopes: `jvp(...)` is the forward pass of a differentiated function, `transpose(jvp(...))` its backward
    pass. What a loop hands through unchanged is not its product.
    """
    total = 0
    seen: set[tuple[str, int]] = set()
    for instruction in computation.instructions.values():
        if not _backward(instruction) or instruction.opcode in _FREE - {"copy-done", "slice-done"}:
            continue
        for name in instruction.operands:
            for source, element in _sources(module, computation, computation.instructions[name], None):
                if (source.name, element) not in seen and _forward(source):
                    seen.add((source.name, element))
                    total += source.shapes[min(element, len(source.shapes) - 1)].memory_bytes
    return total


def _backward(instruction: Instruction) -> bool:
    return "transpose(" in instruction.op_name


def _forward(instruction: Instruction) -> bool:
    return "jvp(" in instruction.op_name and not _backward(instruction)


def _sources(
    module: Module, computation: Computation, instruction: Instruction, element: int | None
) -> list[tuple[Instruction, int]]:
    """The (instruction, element of its result) that made a value, through what only renames or hands on."""
    follow: Callable[[str, int | None], list[tuple[Instruction, int]]] = lambda name, e: _sources(  # noqa: E731
        module, computation, computation.instructions[name], e
    )
    match instruction.opcode:
        case "get-tuple-element":
            return follow(instruction.operands[0], instruction.number)
        case "tuple":
            chosen = instruction.operands if element is None else (instruction.operands[element],)
            return [found for name in chosen for found in follow(name, None)]
        case "bitcast":
            return follow(instruction.operands[0], element)
        case "while" if element is not None and instruction.loop:
            body = module.computations[instruction.loop[1]]
            result = body.root
            if result.opcode == "tuple":
                value = body.instructions[result.operands[element]]
                if value.opcode == "get-tuple-element" and value.number == element:
                    return follow(instruction.operands[0], element)
    return [(instruction, element or 0)]
