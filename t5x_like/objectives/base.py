"""What an objective is: a frozen dataclass with a host half (NumPy) and a device half (JAX)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import WindowIndex

Losses = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Name -> (sum, weight), never a mean: gradient accumulation, packing and any mesh then give the same number.
`Objective.terms` says which of them are minimised; the rest are metrics. A weight depends on the batch alone."""


@runtime_checkable
class Objective(Protocol):
    """One pretraining objective, both halves. Implementations are frozen keyword-only dataclasses."""

    @property
    def terms(self) -> dict[str, float]:
        """Names in `Losses` of what is minimised, with their factors: the loss of a step is the sum of
        factor * (sum / weight over the whole global batch). T5: {"loss": 1}; ELECTRA: 1 and 50."""
        ...

    @property
    def summary(self) -> str:
        """One line for people, such as `span corruption 15% x 3: 568 raw -> 512 + 114`."""
        ...

    def window_length(self) -> int:
        """The most raw tokens that one example consumes."""
        ...

    def index(self, split: TokenSplit, vocabulary: Vocabulary, key: Keys, cover: bool) -> WindowIndex:
        """The windows of a split, by number.

        Args:
          key: names the draws that lay windows out (pairs of segments); those of an epoch come later.
          cover: for validation: everything once, in a fixed order.
        """
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

    def targets(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The ids that the vocabulary loss asks for and their weights, two arrays of one shape: what counting
        words alone is measured on."""
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
