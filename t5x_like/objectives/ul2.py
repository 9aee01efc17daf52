"""UL2's mixture of denoisers (Tay et al. 2022, arXiv:2205.05131, section 3.1 and table 1).

    R  regular     spans of mean 3 or 8 at 15 %
    S  sequential  prefix LM with a quarter of the text as targets
    X  extreme     spans of mean 3, 8 or 64 at 50 %, and of mean 64 at 15 %

The paper puts a mode token in front of the inputs; its code was never released, nor the shares of the seven.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Int32

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Vocabulary, Windows
from t5x_like.errors import UserError
from t5x_like.objectives.base import Objective
from t5x_like.objectives.encoder_decoder import MODES, Denoiser, EncoderDecoderObjective, Mode, mode_token
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption

R_SPANS = ((3.0, 0.15), (8.0, 0.15))
S_DENSITY = 0.25
X_SPANS = ((3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5))
"""(mean span length, noise density) of each denoiser."""
_PART = 200  # salt


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOfDenoisers(EncoderDecoderObjective):
    """Seven denoisers that share one shape of batch: `parts`, by which the data path draws whole windows of each.

    Attributes:
      r_rate, s_rate, x_rate: shares of the three kinds in the examples, divided by their sum, and evenly within a
        kind. The default is 20 % S and the rest even over the other six (the paper does not say).
      mode_tokens: whether inputs begin with the token of their kind (`Denoiser.mode`).
    """

    r_rate: float = 2.0
    s_rate: float = 1.5
    x_rate: float = 4.0
    mode_tokens: bool = True

    @property
    def summary(self) -> str:
        """Such as `UL2 mixture of 7 denoisers: up to 1137 raw -> 512 + 511`."""
        return (
            f"UL2 mixture of {len(self.denoisers)} denoisers: up to {self.window_length()} raw -> "
            f"{self.inputs_length} + {self.decoder_length}"
        )

    @functools.cached_property
    def denoisers(self) -> tuple[tuple[Denoiser, float], ...]:
        """The denoisers of rate above 0, of one shape, with rates that sum to 1."""
        groups = (
            (self.r_rate, [self._spans("R", *spans) for spans in R_SPANS]),
            (self.s_rate, [self._prefix()]),
            (self.x_rate, [self._spans("X", *spans) for spans in X_SPANS]),
        )
        total = sum(rate for rate, _ in groups)
        parts = [(part, rate / total / len(group)) for rate, group in groups for part in group if rate > 0]
        length = self.targets_length or max((part.computed_targets_length() for part, _ in parts), default=0)
        return tuple((dataclasses.replace(part, targets_length=length), rate) for part, rate in parts)

    def _spans(self, mode: Mode, mean_span_length: float, noise_density: float) -> Denoiser:
        return SpanCorruption(
            inputs_length=self.inputs_length,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
            mode=mode if self.mode_tokens else None,
            noise_density=noise_density,
            mean_span_length=mean_span_length,
        )

    def _prefix(self) -> Denoiser:
        return PrefixLM(
            inputs_length=self.inputs_length,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
            mode="S" if self.mode_tokens else None,
            target_density=S_DENSITY,
        )

    def parts(self) -> tuple[tuple[Objective, float], ...]:
        """The denoisers with their rates."""
        return self.denoisers

    def window_length(self) -> int:
        """That of the denoiser that takes most. `parts` take their own: mix those, and no token is wasted."""
        return max(part.window_length() for part, _ in self.denoisers)

    def computed_targets_length(self) -> int:
        """That of the denoiser that needs most."""
        return max(part.computed_targets_length() for part, _ in self.denoisers)

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """The most over the denoisers."""
        taken = [
            part.example_lengths(np.minimum(lengths, part.window_length())) for part, _ in self.denoisers
        ]
        return {side: np.max([t[side] for t in taken], axis=0) for side in ("encoder", "decoder")}

    def examples(self, windows: Windows, keys: Keys) -> Batch:
        """Each row goes to the denoiser that its key draws, which takes as many of its tokens as it can."""
        rates = np.cumsum([rate for _, rate in self.denoisers])
        drawn = np.searchsorted(rates[:-1], counter.uniform(keys, (), _PART), side="right")
        batch = {
            name: np.full((len(keys), *f.shape), windows.vocabulary.pad, f.dtype)
            for name, f in self.features(windows.vocabulary).items()
        }
        for number, (part, _) in enumerate(self.denoisers):
            rows, width = np.flatnonzero(drawn == number), part.window_length()
            lengths = np.minimum(windows.lengths[rows], width)
            tokens = windows.tokens[rows, :width]
            some = Windows(tokens, lengths, windows.vocabulary)
            for name, value in part.examples(some, keys[rows]).items():
                batch[name][rows] = value
        return batch

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"] | None:
        """What the denoiser took of the window; None where no mode token tells which kind it was."""
        if not self.mode_tokens:
            return None
        modes = {mode_token(mode, vocabulary): mode for mode in MODES}
        mode = modes.get(int(inputs[0]))
        part = next((part for part, _ in self.denoisers if part.mode == mode), None)
        return None if part is None else part.restore(inputs, targets, vocabulary)

    def check_fields(self) -> None:
        """Raises `UserError` where a rate, or a field of any denoiser, cannot be."""
        rates = {"r_rate": self.r_rate, "s_rate": self.s_rate, "x_rate": self.x_rate}
        for name, rate in rates.items():
            if not 0 <= rate < np.inf:
                raise UserError(f"{name} is {rate:g}; it must be 0 or more", where=f"objective.{name}")
        if not any(rates.values()):
            raise UserError("the rates are all 0", where="objective", help="the defaults are 2, 1.5 and 4")
        for part, _ in self.denoisers:
            part.check_fields()

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raises `UserError` where any denoiser needs more sentinels than there are."""
        for part, _ in self.denoisers:
            part.check_vocabulary(vocabulary)
