"""Multiplications and additions of matrix products in a compiled program, an instruction at a time."""

from __future__ import annotations

import json
import math

from t5x_like.planning.hlo import Computation, Instruction, Module


def flops(module: Module, instruction: Instruction, inside: Computation) -> float:
    """Multiplications and additions of an instruction, of a fusion those of all its parts."""
    match instruction.opcode:
        case "dot":
            return _dot(instruction, inside)
        case "convolution":
            return _convolution(instruction, inside)
        case "fusion":
            computation = module.computations[instruction.called[0]]
            return math.fsum(flops(module, i, computation) for i in computation.instructions.values())
        case "custom-call":
            return kernel(instruction, inside) or 0.0
    return 0.0


_FLASH = {"flash_mha_bwd_dkv": 4, "flash_mha_bwd_dq": 3}
"""Products of [T, S, H] in the backward kernels of jax.experimental.pallas.ops.tpu.flash_attention, which, unlike the
forward kernel, bring no estimate: scores, their gradient and the two or one gradients of the inputs."""


def kernel(instruction: Instruction, inside: Computation) -> float | None:
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
