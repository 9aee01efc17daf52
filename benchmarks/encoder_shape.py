"""The work that both sides of the encoder benchmarks do. NumPy only, so that a peer's own environment can import it.

bert-mini      4 layers, 256 wide, 4 heads, F 1024; 32 rows of 128; MLM
bert-base      12 layers, 768 wide, 12 heads, F 3072; 8 rows of 128; MLM
electra-small  discriminator 12 layers, 256 wide, 4 heads, F 1024, E 128; generator a quarter as wide; 32 rows of 128;
               joint loss, weights 1 and 50
V 30522, 19 predictions a row (15 % of 128), no padding, AdamW, dropout 0.1 everywhere the papers have it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

VOCABULARY, MASK, LENGTH, PREDICTIONS = 30522, 103, 128, 19
DROPOUT, LEARNING_RATE, DETECTION_WEIGHT = 0.1, 1e-4, 50.0


@dataclasses.dataclass(frozen=True)
class Shape:
    """One model and its batch. `generator` is the generator's share of the width; 0 for plain MLM."""

    layers: int
    hidden: int
    heads: int
    embedding: int
    rows: int
    generator: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * LENGTH


SHAPES = {
    "bert-mini": Shape(layers=4, hidden=256, heads=4, embedding=256, rows=32),
    "bert-base": Shape(layers=12, hidden=768, heads=12, embedding=768, rows=8),
    "electra-small": Shape(layers=12, hidden=256, heads=4, embedding=128, rows=32, generator=0.25),
}


def batch(shape: Shape, seed: int) -> dict[str, np.ndarray]:
    """tokens [B, T] with 80/10/10 masks, positions [B, K] ascending, targets [B, K]; int32."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, VOCABULARY, (shape.rows, LENGTH), dtype=np.int32)
    order = np.argsort(rng.random(ids.shape), axis=1)[:, :PREDICTIONS]
    positions = np.sort(order, axis=1).astype(np.int32)
    targets = np.take_along_axis(ids, positions, axis=1)
    draw = rng.random(positions.shape)
    noise = rng.integers(1000, VOCABULARY, positions.shape, dtype=np.int32)
    shown = np.where(draw < 0.8, MASK, np.where(draw < 0.9, noise, targets)).astype(np.int32)
    np.put_along_axis(ids, positions, shown, axis=1)
    return {"tokens": ids, "positions": positions, "targets": targets}
