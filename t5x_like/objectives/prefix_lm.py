"""Prefix and plain language modelling with an encoder-decoder (Raffel et al. 2020, arXiv:1910.10683, section 3.2).

Source: t5/data/preprocessors.py (`prefix_lm`, `random_prefix_noise_mask`) and t5/models/gin/objectives/{prefix_lm,
lm}.gin.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int32

from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.errors import UserError
from t5x_like.objectives import noise
from t5x_like.objectives.encoder_decoder import Denoiser, Rows, check_least, check_share
from t5x_like.objectives.encodings import content


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixLM(Denoiser):
    """A window of one document is split: the encoder sees what comes before, the decoder says the rest.

    Attributes:
      target_density: mean share of the rest, at most one half. At one half the prefix has 1 to n - 1 tokens, all
        equally likely (T5); below, the shortest is round((1 - 2 d)(n - 1)). UL2's S-denoiser: .25.
    """

    target_density: float = 0.5

    @property
    def documents(self) -> Literal["joined", "isolated"]:
        """Windows stop at document borders."""
        return "isolated"

    @property
    def summary(self) -> str:
        """Such as `prefix LM 50%: 511 raw -> 512 + 511`."""
        return (
            f"prefix LM {100 * self.target_density:g}%: "
            f"{self.window_length()} raw -> {self.inputs_length} + {self.decoder_length}"
        )

    def window_length(self) -> int:
        """All that would fit the encoder beside EOS."""
        return self.room - 1

    def computed_targets_length(self) -> int:
        """The rest behind the shortest prefix, and EOS."""
        return int(self.example_lengths(np.array([self.window_length()]))["decoder"][0])

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Bounds: of each side for the split that is longest there."""
        lengths = np.asarray(lengths, np.int64)
        encoder = np.maximum(lengths - 1, 0) + (self.mode is not None) + 1
        decoder = lengths - noise.shortest_prefix(lengths, self.target_density) + 1
        return {"encoder": np.where(lengths > 0, encoder, 0), "decoder": np.where(lengths > 0, decoder, 0)}

    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Draws where to split. A window of one token is all target."""
        tokens, width = windows.tokens, windows.tokens.shape[1]
        before = noise.prefix(keys, lengths, width, target_density=self.target_density)
        return (tokens, before), (tokens, noise.valid(lengths, width) & ~before)

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"]:
        """The window: inputs and targets, one behind the other."""
        return np.concatenate([self.inputs_content(inputs, vocabulary), content(targets, vocabulary)])

    def check_fields(self) -> None:
        """Raises `UserError` where the density or a length cannot be."""
        check_share("target_density", self.target_density, most=0.5)
        super().check_fields()
        if self.window_length() < 2:
            raise UserError(
                f"inputs_length={self.inputs_length} has no room for a window of two tokens, to be split",
                where="objective.inputs_length",
                help=f"objective.inputs_length={3 + (self.mode is not None)} or more",
            )
        self.check_targets_fit()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel(Denoiser):
    """Language modelling by the decoder alone: the encoder sees nothing but EOS (its attention needs one place), the
    targets are windows of `targets_length - 1` tokens, across document borders."""

    inputs_length: int = 1
    targets_length: int | None = 512

    @property
    def summary(self) -> str:
        """Such as `language model: 511 raw -> 1 + 512`."""
        return f"language model: {self.window_length()} raw -> {self.inputs_length} + {self.decoder_length}"

    def window_length(self) -> int:
        """All that fits beside EOS."""
        return self.decoder_length - 1

    def computed_targets_length(self) -> int:
        """512, as published."""
        return 512

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Exact."""
        lengths = np.asarray(lengths, np.int64)
        some = lengths > 0
        return {"encoder": some * (1 + (self.mode is not None)), "decoder": np.where(some, lengths + 1, 0)}

    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Nothing to draw."""
        real = noise.valid(lengths, windows.tokens.shape[1])
        return (windows.tokens, np.zeros_like(real)), (windows.tokens, real)

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"]:
        """The window: the targets are it."""
        return content(targets, vocabulary)

    def check_fields(self) -> None:
        """Raises `UserError` where a length cannot be."""
        check_least("inputs_length", self.inputs_length, 1 + (self.mode is not None))
        check_least("targets_length", self.decoder_length, 2)
