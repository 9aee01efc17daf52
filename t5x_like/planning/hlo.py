"""Reads the text of a compiled program: computations, instructions, shapes with their place in memory, trips of loops.

    module = hlo.parse(compiled.as_text())
    for instruction in module.computations[module.entry].instructions.values(): ...

XLA's own `cost_analysis` counts the body of a loop once, and nearly all of a model is in loops (layers, microbatches);
so the text is read here and every instruction weighted by how often it runs. The grammar is the one that XLA prints
(xla/hlo/ir/hlo_instruction.cc, xla/shape_util.cc); a TPU's shapes carry tiles and the memory space, `S(1)` on the chip.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

_ITEMSIZE = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16, "token": 0, "opaque": 0,
}  # fmt: skip
_SHAPE = re.compile(r"(\w+)\[([^\]]*)\](?:\{([^}]*)\})?")
_LAYOUT = re.compile(r"^([\d,]*)(?::(.*))?$")
_REFERENCE = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array: `f32[8,512]{1,0:T(8,128)S(1)}`.

    Attributes:
      minor_to_major: dimensions from the fastest on.
      tile: of the fastest dimensions, the last of them the fastest; () where memory is plain.
      space: 0 the device's main memory, others on the chip (TPU: 1 vector memory).
    """

    dtype: str
    dimensions: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @functools.cached_property
    def elements(self) -> int:
        return math.prod(self.dimensions)

    @functools.cached_property
    def bytes(self) -> int:
        """With what tiles pad."""
        sizes = list(self.dimensions)
        if self.tile and self.minor_to_major:
            for tile, dimension in zip(reversed(self.tile), self.minor_to_major):
                sizes[dimension] = -(-sizes[dimension] // tile) * tile
        return math.ceil(math.prod(sizes) * _ITEMSIZE.get(self.dtype, 1))

    @property
    def memory_bytes(self) -> int:
        """The bytes in main memory: none of what lies on the chip."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`%name = shape opcode(operands), attributes`.

    Attributes:
      shapes: one, or those of a tuple, flattened.
      operands: names; of a parameter none.
      number: of a parameter.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    text: str = ""
    is_root: bool = False

    @property
    def number(self) -> int:
        """Of a parameter; index of a `get-tuple-element`."""
        if self.opcode == "parameter":
            return int(self.text)
        return int(self.attribute(r"index=(\d+)") or 0)

    @functools.cached_property
    def op_name(self) -> str:
        """The scope that it was traced in, `jit(train_step)/jvp(...)/...`; "" where XLA made it."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    def attribute(self, pattern: str) -> str | None:
        """Group 1 of `pattern` in the attributes."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Computations that run as part of it: of a fusion, call, asynchronous start or conditional. The two of a
        while loop are `loop`'s."""
        one = self.attribute(r"\bcalls=%([\w.\-]+)") or (
            self.attribute(r"\bto_apply=%([\w.\-]+)") if self.opcode == "call" else None
        )
        if one:
            return (one,)
        if self.opcode == "conditional":
            several = self.attribute(r"branch_computations=\{([^}]*)\}")
            if several:
                return tuple(_REFERENCE.findall(several))
            return tuple(re.findall(r"(?:true|false)_computation=%([\w.\-]+)", self.attributes))
        return ()

    @property
    def loop(self) -> tuple[str, str] | None:
        """(condition, body) of a while loop."""
        if self.opcode != "while":
            return None
        condition, body = (self.attribute(rf"\b{part}=%([\w.\-]+)") for part in ("condition", "body"))
        assert condition and body
        return condition, body


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they run where the module is scheduled."""

    name: str
    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.is_root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {i.number: i for i in self.instructions.values() if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that read it."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found[operand].append(instruction)
        return found


@dataclasses.dataclass(frozen=True)
class Module:
    entry: str
    computations: dict[str, Computation]

    def trips(self, loop: Instruction, inside: Computation) -> int | None:
        """How often the body of a while loop of `inside` runs; None where the text does not say.

        XLA's CPU compiler writes it down; else it follows from a counter that starts at a constant, grows by a
        constant and is compared with a constant, as those of `jax.lax.scan` do.
        """
        known = loop.attribute(r'known_trip_count["=:\s{]+n["\s:]+(\d+)')
        if known:
            return int(known)
        assert loop.loop is not None
        condition, body = (self.computations[name] for name in loop.loop)
        limit = self._limit(condition)
        if limit is None:
            return None
        index, bound = limit
        start = self._initial(loop, index, inside)
        step = self._increment(body, index)
        if start is None or step is None or step <= 0:
            return None
        return max(0, -(-(bound - start) // step))

    def _limit(self, condition: Computation) -> tuple[int, int] | None:
        """(which element of the loop's tuple counts, the bound that it stays below)."""
        root, where = condition.root, condition
        binding: dict[str, Instruction] = {}
        if root.opcode == "fusion":
            where = self.computations[root.called[0]]
            binding = {
                where.parameters[i].name: condition.instructions[operand]
                for i, operand in enumerate(root.operands)
            }
            root = where.root
        if root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        left, right = (binding.get(name, where.instructions[name]) for name in root.operands)
        right = _through(right, where if right.name in where.instructions else condition)
        if left.opcode != "get-tuple-element" or right.opcode != "constant":
            return None
        bound = _whole(right)
        return None if bound is None else (left.number, bound)

    def _initial(self, loop: Instruction, index: int, inside: Computation) -> int | None:
        state = _through(inside.instructions[loop.operands[0]], inside)
        if state.opcode != "tuple":
            return None
        return _whole(_through(inside.instructions[state.operands[index]], inside))

    def _increment(self, body: Computation, index: int) -> int | None:
        root = body.root
        if root.opcode != "tuple":
            return None
        value = _through(body.instructions[root.operands[index]], body)
        scope = body
        if value.opcode == "fusion":
            scope = self.computations[value.called[0]]
            value = scope.root
        if value.opcode != "add":
            return None
        steps = [_whole(_through(scope.instructions[name], scope)) for name in value.operands]
        found = [step for step in steps if step is not None]
        return found[0] if len(found) == 1 else None


def _through(instruction: Instruction, inside: Computation) -> Instruction:
    """What it is a copy of."""
    while instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start") and instruction.operands:
        instruction = inside.instructions[instruction.operands[0]]
    return instruction


def _whole(instruction: Instruction) -> int | None:
    if instruction.opcode != "constant" or not re.fullmatch(r"-?\d+", instruction.text.strip()):
        return None
    return int(instruction.text)


# ---- parsing --------------------------------------------------------------------------------------


def parse(text: str) -> Module:
    """The module that `jax.stages.Compiled.as_text` prints."""
    computations: dict[str, Computation] = {}
    entry = name = ""
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if current is None:
            if line.endswith("{") and line.startswith(("%", "ENTRY ")):
                name = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0].split("(", 1)[0]
                entry = name if line.startswith("ENTRY ") else entry
                current = {}
        elif line.startswith("}"):
            computations[name] = Computation(name, current)
            current = None
        elif " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("this is not the text of a compiled program: it has no entry")
    return Module(entry, computations)


def _instruction(line: str) -> Instruction:
    head, _, rest = line.strip().partition(" = ")
    is_root = head.startswith("ROOT ")
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        end = rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    opcode, inside = rest[:opening], rest[opening + 1 : closing]
    literal = opcode in ("parameter", "constant")
    return Instruction(
        name=head.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode,
        shapes=_shapes(shape),
        operands=() if literal else tuple(_REFERENCE.findall(inside)),
        attributes=rest[closing + 1 :],
        text=inside if literal and len(inside) < 100 else "",
        is_root=is_root,
    )


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a bracket is never closed in {text[:80]!r}")


@functools.lru_cache(maxsize=65536)
def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(_shape(*match.groups()) for match in _SHAPE.finditer(re.sub(r"/\*.*?\*/", "", text)))


def _shape(dtype: str, sizes: str, layout: str | None) -> Shape:
    dimensions = tuple(int(size.strip().lstrip("<=")) for size in sizes.split(",") if size.strip())
    match = _LAYOUT.match(layout or "")
    order = tuple(int(d) for d in match[1].split(",") if d) if match else ()
    details = (match[2] or "") if match else ""
    tile = re.search(r"T\(([\d,]+)\)", details)
    space = re.search(r"S\((\d+)\)", details)
    return Shape(
        dtype,
        dimensions,
        order,
        tuple(int(t) for t in tile[1].split(",")) if tile else (),
        int(space[1]) if space else 0,
    )
