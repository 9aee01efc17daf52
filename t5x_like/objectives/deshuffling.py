"""Deshuffling: the inputs are all tokens of a window in random order, the targets the window itself.

Paper: Raffel et al. 2020, arXiv:1910.10683, section 3.3.1 (after Liu et al. 2019). Source:
t5/models/gin/objectives/all_permute.gin and `permute_noise_tokens`; documents are not concatenated there.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int32

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.objectives import noise
from t5x_like.objectives.encoder_decoder import Denoiser, Rows
from t5x_like.objectives.encodings import content

_ORDER = 0  # salt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deshuffling(Denoiser):
    """A window in random order, to be put back. Windows have `inputs_length - 1` tokens of one document."""

    @property
    def documents(self) -> Literal["joined", "isolated"]:
        """Windows stop at document borders."""
        return "isolated"

    @property
    def summary(self) -> str:
        """Such as `deshuffling: 511 raw -> 512 + 512`."""
        return f"deshuffling: {self.window_length()} raw -> {self.inputs_length} + {self.decoder_length}"

    def window_length(self) -> int:
        """All that fits beside EOS."""
        return self.room - 1

    def computed_targets_length(self) -> int:
        """The window and EOS."""
        return self.window_length() + 1

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Exact."""
        lengths = np.asarray(lengths, np.int64)
        decoder = np.where(lengths > 0, lengths + 1, 0)
        return {"encoder": np.where(lengths > 0, decoder + (self.mode is not None), 0), "decoder": decoder}

    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Draws a permutation for each row, uniform over all of them."""
        tokens = windows.tokens
        real = noise.valid(lengths, tokens.shape[1])
        draws = counter.bits(keys, (tokens.shape[1],), _ORDER)
        order = np.argsort(np.where(real, draws, np.iinfo(np.uint64).max), axis=1, kind="stable")
        return (np.take_along_axis(tokens, order, axis=1), real), (tokens, real)

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"]:
        """The window: the targets are it."""
        return content(targets, vocabulary)

    def check_fields(self) -> None:
        """Raises `UserError` where a length cannot be."""
        super().check_fields()
        self.check_targets_fit()
