"""What an objective is: a frozen dataclass with a host half (NumPy) and a device half (JAX)."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows

Losses = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Name -> (sum, weight), never a mean: gradient accumulation, packing and any mesh then give the same number.
`losses["loss"]` is what is minimised (sum / weight over the whole global batch); the rest are metrics."""


@runtime_checkable
class Objective(Protocol):
    """One pretraining objective, both halves. Implementations are frozen keyword-only dataclasses."""

    @property
    def documents(self) -> Literal["joined", "isolated"]:
        """Whether windows run on across document borders (T5 span corruption) or stop at them."""
        ...

    @property
    def summary(self) -> str:
        """One line for people, such as `span corruption 15% x 3: 568 raw -> 512 + 114`."""
        ...

    def window_length(self) -> int:
        """The raw tokens that one example consumes."""
        ...

    def parts(self) -> tuple[tuple[Objective, float], ...]:
        """The objectives that this one mixes, with their rates; `((self, 1.0),)` for a plain objective."""
        ...

    def features(self, vocabulary: Vocabulary) -> dict[str, Feature]:
        """Names, shapes and dtypes of an unpacked batch."""
        ...

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """For windows of these raw lengths: the most tokens that each packable side (`encoder`, `decoder`)
        can come to, EOS included. Packing plans rows by it without drawing anything."""
        ...

    def examples(self, windows: Windows, keys: Keys) -> Batch:
        """Host half: a batch from windows [B, W], one uint64 key a row. Pure and vectorised over rows."""
        ...

    def check(self, model: Any, vocabulary: Vocabulary | None) -> None:
        """Raises `UserError` where the objective cannot run with this model or this vocabulary
        (`vocabulary` is None while the tokenizer is not known yet)."""
        ...

    def loss(
        self, model: Any, params: Any, batch: dict[str, jax.Array], rngs: dict[str, jax.Array] | None
    ) -> Losses:
        """Device half: loss and metric sums; `rngs=None` switches dropout off."""
        ...
