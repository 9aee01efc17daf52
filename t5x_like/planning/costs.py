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
import json
import math
import re
from collections.abc import Callable

from t5x_like.planning.hlo import Computation, Instruction, Module, Shape

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

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
        elif found := _collective(instruction, inside, times):
            self.collectives.append(found)
        moved = _bytes(self.module, instruction, inside)
        flops = _flops(self.module, instruction, inside)
        self.unknown_kernels += instruction.opcode == "custom-call" and _kernel(instruction, inside) is None
        if moved or flops:
            self.work.append(Work(flops, moved, times, instruction.op_name))

    def _fused_collectives(self, instruction: Instruction, times: int) -> None:
        """A TPU spreads one collective over the fusions that run meanwhile, also over those of an inner loop: all
        speak of one channel, which counts once, where it is met most rarely."""
        computation = self.module.computations[instruction.called[0]]
        for part in computation.instructions.values():
            if found := _collective(part, computation, times):
                channel = part.attribute(r"channel_id=(\d+)") or f"{computation.name}/{part.name}"
                shared = "async" in computation.name
                before = self.fused.get(channel)
                if before is not None:
                    found = min(before, found, key=lambda c: c.times)
                    shared |= before.overlaps
                self.fused[channel] = dataclasses.replace(found, overlaps=shared or found.overlaps)


# ---- operations -----------------------------------------------------------------------------------


def _flops(module: Module, instruction: Instruction, inside: Computation) -> float:
    match instruction.opcode:
        case "dot":
            return _dot(instruction, inside)
        case "convolution":
            return _convolution(instruction, inside)
        case "fusion":
            computation = module.computations[instruction.called[0]]
            return math.fsum(_flops(module, i, computation) for i in computation.instructions.values())
        case "custom-call":
            return _kernel(instruction, inside) or 0.0
    return 0.0


_FLASH = {"flash_mha_bwd_dkv": 4, "flash_mha_bwd_dq": 3}
"""Products of [T, S, H] in the backward kernels of jax.experimental.pallas.ops.tpu.flash_attention, which, unlike the
forward kernel, bring no estimate: scores, their gradient and the two or one gradients of the inputs."""


def _kernel(instruction: Instruction, inside: Computation) -> float | None:
    """Of a Pallas kernel: its own estimate, or what is known of it; None of an unknown one, 0 of other calls."""
    if "tpu_custom_call" not in instruction.attributes:
        return 0.0
    estimate = instruction.attribute(r'"cost_estimate":(\{[^}]*\})')
    if estimate:
        return float(json.loads(estimate).get("flops", 0))
    for name, products in _FLASH.items():
        if instruction.name.startswith(name):
            query, key = (inside.instructions[o].shapes[0].dimensions for o in instruction.operands[:2])
            return 2.0 * products * math.prod(query) * key[2]
    return None


def _dot(instruction: Instruction, inside: Computation) -> float:
    left = inside.instructions[instruction.operands[0]].shapes[0]
    dimensions = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    contracted = math.prod(left.dimensions[int(d)] for d in dimensions.split(",") if d)
    return 2.0 * instruction.shapes[0].elements * contracted


def _convolution(instruction: Instruction, inside: Computation) -> float:
    """A TPU's compiler writes matrix products as convolutions, batch dimensions as spatial ones with a dilation that
    leaves one true product a place: only the places where window and input meet are counted (the rule of
    xla/service/hlo_cost_analysis.cc, HandleConvolution)."""
    left, right = (inside.instructions[name].shapes[0] for name in instruction.operands[:2])
    labels = instruction.attribute(r"dim_labels=(\S+?),?(?:\s|$)") or ""
    lhs, rest = labels.split("_")
    rhs, out = rest.split("->")
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    fields = dict(part.split("=") for part in window.split())
    output = instruction.shapes[0]
    spatial = sorted(c for c in rhs if c.isdigit())
    size = [int(s) for s in fields.get("size", "").split("x") if s]

    def each(name: str, default: int) -> list[int]:
        return [int(v) for v in fields[name].split("x")] if name in fields else [default] * len(size)

    pads = [
        tuple(int(v) for v in p.split("_"))
        for p in fields.get("pad", "x".join(["0_0"] * len(size))).split("x")
        if p
    ]
    places = 1
    for d, label in enumerate(spatial):
        places *= _meetings(
            left.dimensions[lhs.index(label)],
            output.dimensions[out.index(label)],
            size[d],
            each("stride", 1)[d],
            pads[d][0],
            each("lhs_dilate", 1)[d],
            each("rhs_dilate", 1)[d],
        )
    groups = int(instruction.attribute(r"feature_group_count=(\d+)") or 1)
    batch_groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    del right
    features_in = left.dimensions[lhs.index("f")] // groups
    features_out = output.dimensions[out.index("f")]
    batch = left.dimensions[lhs.index("b")] // batch_groups
    return 2.0 * batch * features_in * features_out * places


def _meetings(base: int, out: int, size: int, stride: int, pad: int, dilate: int, window_dilate: int) -> int:
    """(output place, window place) pairs that fall on an element of the input, not on padding or dilation."""
    dilated = (base - 1) * dilate + 1 if base else 0
    found = 0
    for k in range(size):
        offset = k * window_dilate - pad
        for o in range(out):
            position = o * stride + offset
            found += 0 <= position < dilated and position % dilate == 0
    return found


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
        return _collective_bytes(instruction, inside) * 2
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


# ---- collectives ----------------------------------------------------------------------------------


def _collective(instruction: Instruction, inside: Computation, times: int) -> Collective | None:
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
    return Collective(
        kind, _collective_bytes(instruction, inside), times, group, instruction.opcode != opcode
    )


def _only_sliced(instruction: Instruction, inside: Computation) -> bool:
    """An all-reduce of which a device keeps its own slice: the TPU's way to write a reduce-scatter."""
    users = inside.users[instruction.name]
    return bool(users) and all(u.opcode == "dynamic-slice" for u in users)


def _collective_bytes(instruction: Instruction, inside: Computation) -> int:
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
