"""Span corruption, the objective of T5 (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4 and 3.3.4).

    text     Thank you for inviting me to your party last week
    inputs   Thank you <extra_id_0> me to your party <extra_id_1> EOS
    targets  <extra_id_0> for inviting <extra_id_1> last week EOS

Source: t5/data/preprocessors.py (`span_corruption`, `random_spans_helper`, `random_spans_noise_mask`).
"""

from __future__ import annotations

import bisect
import dataclasses
import functools

import numpy as np
from jaxtyping import Int32

from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.errors import UserError
from t5x_like.objectives import noise
from t5x_like.objectives.encoder_decoder import Denoiser, Rows, check_share
from t5x_like.objectives.encodings import content, replace_runs, restore_spans


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanCorruption(Denoiser):
    """Spans of a window are replaced by sentinels; the targets are the spans, each behind its sentinel.

    Attributes:
      noise_density: share of the tokens that are hidden, rounded half to even (`noise.span_counts`).
      mean_span_length: tokens of a hidden span on average; at least 1.
      final_sentinel: one more sentinel behind the last hidden span, as in figure 2 of the paper; the released code
        has none.
      random_roll: turns the mask by a random offset, so that any token can be hidden. One slot of each side is
        kept free for the span that may be split so; the original cuts the last token off instead.
    """

    noise_density: float = 0.15
    mean_span_length: float = 3.0
    final_sentinel: bool = False
    random_roll: bool = False

    @property
    def summary(self) -> str:
        """Such as `span corruption 15% x 3: 568 raw -> 512 + 114`."""
        return (
            f"span corruption {100 * self.noise_density:g}% x {self.mean_span_length:g}: "
            f"{self.window_length()} raw -> {self.inputs_length} + {self.decoder_length}"
        )

    def window_length(self) -> int:
        """The longest window whose inputs fit `inputs_length`."""
        return span_lengths(self.room - self.random_roll, self.noise_density, self.mean_span_length)[0]

    def computed_targets_length(self) -> int:
        """What the targets of such a window come to."""
        published = span_lengths(self.room - self.random_roll, self.noise_density, self.mean_span_length)[1]
        return published + self.random_roll + self.final_sentinel

    def spans(self) -> int:
        """Sentinels that a full window can need on one side."""
        spans = int(noise.span_counts(self.window_length(), self.noise_density, self.mean_span_length)[1])
        return spans + (self.random_roll or self.final_sentinel)

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Exact, but for `random_roll` and `final_sentinel`, which may need one slot less."""
        lengths = np.asarray(lengths, np.int64)
        hidden, spans = noise.span_counts(lengths, self.noise_density, self.mean_span_length)
        roll = self.random_roll & (lengths > 1)
        encoder = lengths - hidden + spans + roll + (self.mode is not None) + 1
        decoder = hidden + np.maximum(spans, 1) + roll + self.final_sentinel + 1
        return {"encoder": np.where(lengths > 0, encoder, 0), "decoder": np.where(lengths > 0, decoder, 0)}

    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Hides random spans."""
        tokens, width = windows.tokens, windows.tokens.shape[1]
        hidden = noise.random_spans(
            keys,
            lengths,
            width,
            density=self.noise_density,
            mean_span_length=self.mean_span_length,
            random_roll=self.random_roll,
        )
        return encode_spans(
            tokens, hidden, lengths, self.sentinels(windows.vocabulary), final_sentinel=self.final_sentinel
        )

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"]:
        """The window that one row was made from."""
        spans = self.sentinels(vocabulary)
        return restore_spans(self.inputs_content(inputs, vocabulary), content(targets, vocabulary), spans)

    def check_fields(self) -> None:
        """Raises `UserError` where the density, the span length or a length cannot be."""
        check_share("noise_density", self.noise_density)
        if not self.mean_span_length >= 1:  # NaN too
            raise UserError(
                f"mean_span_length is {self.mean_span_length:g}; a span has at least 1 token",
                where="objective.mean_span_length",
            )
        super().check_fields()
        if self.window_length() < 2:
            raise UserError(
                f"inputs_length={self.inputs_length} has no room for a token, a span and EOS",
                where="objective.inputs_length",
                help=f"objective.inputs_length={3 + (self.mode is not None) + self.random_roll} or more",
            )
        self.check_targets_fit()

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raises `UserError` where a full window needs more sentinels than there are."""
        super().check_vocabulary(vocabulary)
        have, need = len(self.sentinels(vocabulary)), self.spans()
        if need <= have:
            return
        fits = bisect.bisect_right(
            range(self.inputs_length), have, key=lambda n: dataclasses.replace(self, inputs_length=n).spans()
        )
        shorter = f"objective.inputs_length={fits - 1}, longer spans, or " if have else ""
        raise UserError(
            f"{self.summary} needs {need} sentinels; the tokenizer has {have}"
            + (" besides the mode tokens" if self.mode is not None else ""),
            where="objective",
            help=f"{shorter}a tokenizer with {len(vocabulary.sentinels) - have + need} sentinels",
        )


@functools.lru_cache(maxsize=1024)
def span_lengths(inputs_length: int, density: float, mean_span_length: float) -> tuple[int, int]:
    """(raw tokens, targets length) that fill `inputs_length`: 512, .15, 3 -> 568, 114. EOS is counted on both
    sides. Source: `random_spans_helper`.

    The published values wherever the published helper counts a span at all (raw * density at least half a span): of
    shorter windows the mask has one all the same. At density one half and where the targets would be longer
    than the inputs, one raw token fewer is taken and the targets get `inputs_length` slots, as published.
    """

    def encoded(raw: int) -> tuple[int, int]:
        hidden, spans = noise.span_counts(raw, density, mean_span_length)
        return raw - int(hidden) + int(spans) + 1, int(hidden) + max(int(spans), 1) + 1

    # The inputs never shrink as the window grows, and hold at least one token in (1 - density) of the raw ones.
    most = int((inputs_length + 2) / (1 - density)) + 3
    raw = bisect.bisect_right(range(most), inputs_length, key=lambda n: encoded(n)[0]) - 1
    inputs, targets = encoded(raw)
    if density == 0.5 and targets > inputs:
        return raw - 1, inputs_length
    return raw, targets


def encode_spans(
    tokens: Int32[np.ndarray, "B W"],
    hidden: np.ndarray,
    lengths: np.ndarray,
    sentinels: tuple[int, ...],
    *,
    final_sentinel: bool = False,
) -> tuple[Rows, Rows]:
    """Inputs: hidden runs become sentinels. Targets: kept runs do, by the same count.

    Where a mask begins with noise, as masks of single tokens and rolled masks can, the targets begin with bare
    tokens and each sentinel *follows* the span that it marks: published behaviour, kept.

    Args:
      hidden: bool [B, W], false behind `lengths`.
      final_sentinel: closes targets that end in a hidden run by one more sentinel.
    """
    kept = noise.valid(lengths, tokens.shape[1]) & ~hidden
    inputs = replace_runs(tokens, hidden, kept, sentinels)
    if final_sentinel:  # as if one more kept token stood behind the window
        tokens, hidden = (np.pad(array, ((0, 0), (0, 1))) for array in (tokens, hidden))
        kept = noise.valid(np.where(lengths > 0, lengths + 1, 0), tokens.shape[1]) & ~hidden
    return inputs, replace_runs(tokens, kept, hidden, sentinels)
