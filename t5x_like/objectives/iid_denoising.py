"""Denoising of single tokens, as compared in the T5 study (Raffel et al. 2020, arXiv:1910.10683, section 3.3).

    style         inputs                                              targets                 gin file of T5
    replace_spans each hidden run -> a sentinel of its own            runs behind sentinels   iid_*_u_u
    drop_tokens   hidden tokens left out                              hidden tokens           iid_15_d_d
    bert          hidden token -> <M> (90 %) or a random id (10 %)    the whole text          iid_15_r10s90_f
    mass          hidden token -> <M>                                 the whole text          iid_15_m_f

<M> is `<extra_id_0>`. "bert" never leaves a hidden token as it is, and "mass" is not MASS, which hides one run and
decodes that alone: both as published in t5/models/gin/objectives.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.errors import UserError
from t5x_like.objectives import noise
from t5x_like.objectives.encoder_decoder import Denoiser, Rows, check_share
from t5x_like.objectives.encodings import content, limit_runs, restore_spans
from t5x_like.objectives.span_corruption import encode_spans

RANDOM_SHARE = 0.1
"""Share of the hidden tokens that the "bert" style replaces by random ids."""
_REPLACEMENT = 100  # salt


@dataclasses.dataclass(frozen=True, kw_only=True)
class IidDenoising(Denoiser):
    """Each token is hidden on its own with probability `noise_density`.

    Windows have `inputs_length - 1` tokens, so that the inputs always fit. Targets of replace_spans and drop_tokens
    vary in length: `targets_length=None` takes their mean and four standard deviations (15 %: 200 and 110), and
    what is longer still is cut before EOS is set. The published lengths are 103, 192, 256 and 512 for
    replace_spans at 10, 15, 25 and 50 %, and 104 for drop_tokens at 15 %; those at 10 and 25 % cut many targets.

    The number of runs varies too. A tokenizer is refused where the mean and five standard deviations are more than
    its sentinels; of the windows beyond (fewer than one in a million), the runs past the last sentinel stay
    unhidden. (The original walks on into ordinary ids: in a quarter of the windows at 25 %, in all at 50 %.)
    """

    style: Literal["replace_spans", "drop_tokens", "bert", "mass"] = "replace_spans"
    noise_density: float = 0.15

    @property
    def summary(self) -> str:
        """Such as `iid denoising 15%, mass: 511 raw -> 512 + 512`."""
        return (
            f"iid denoising {100 * self.noise_density:g}%, {self.style}: "
            f"{self.window_length()} raw -> {self.inputs_length} + {self.decoder_length}"
        )

    def window_length(self) -> int:
        """All that fits beside EOS, whatever is hidden."""
        return self.room - 1

    def computed_targets_length(self) -> int:
        """See the class."""
        n, p, q = self.window_length(), self.noise_density, 1 - self.noise_density
        if self.style == "replace_spans":
            # Place i > 0 takes a target slot if it or the one before it is hidden, and place 0 always does.
            mean = 1 + (n - 1) * (1 - q**2)
            variance = (n - 1) * q**2 * (1 - q**2) + 2 * max(n - 2, 0) * q**3 * p
        elif self.style == "drop_tokens":
            mean, variance = n * p, n * p * q
        else:
            return n + 1
        return min(math.ceil(mean + 4 * math.sqrt(variance)), n) + 1

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Bounds: any token can be hidden or kept."""
        lengths = np.asarray(lengths, np.int64)
        encoder = lengths + (self.mode is not None) + 1
        decoder = np.minimum(lengths + 1, self.decoder_length)
        return {"encoder": np.where(lengths > 0, encoder, 0), "decoder": np.where(lengths > 0, decoder, 0)}

    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Hides single tokens."""
        tokens, width, vocabulary = windows.tokens, windows.tokens.shape[1], windows.vocabulary
        hidden = noise.iid(keys, lengths, width, density=self.noise_density)
        real = noise.valid(lengths, width)
        if self.style == "replace_spans":
            sentinels = self.sentinels(vocabulary)
            hidden = limit_runs(hidden, len(sentinels) - 1)  # kept runs can be one more
            return encode_spans(tokens, hidden, lengths, sentinels)
        if self.style == "drop_tokens":
            return (tokens, real & ~hidden), (tokens, hidden)
        replaced = np.where(hidden, np.int32(vocabulary.sentinels[0]), tokens)
        if self.style == "bert":
            replaced = _some_random(keys, replaced, hidden, vocabulary)
        return (replaced, real), (tokens, real)

    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"] | None:
        """The window that one row was made from; None for drop_tokens, which loses where the tokens stood."""
        hidden = content(targets, vocabulary)
        if self.style == "drop_tokens":
            return None
        if self.style == "replace_spans":
            return restore_spans(self.inputs_content(inputs, vocabulary), hidden, self.sentinels(vocabulary))
        return hidden

    def check_fields(self) -> None:
        """Raises `UserError` where the density or a length cannot be."""
        check_share("noise_density", self.noise_density)
        super().check_fields()
        if self.style in ("bert", "mass"):
            self.check_targets_fit()

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raises `UserError` where windows can be expected to need more sentinels than there are."""
        super().check_vocabulary(vocabulary)
        have = len(self.sentinels(vocabulary))
        if self.style == "drop_tokens":
            return
        need = (
            _sentinels_needed(self.window_length(), self.noise_density)
            if self.style == "replace_spans"
            else 1
        )
        if need <= have:
            return
        raise UserError(
            f"{self.summary} can need {need} sentinels; the tokenizer has {have}",
            where="objective",
            help=f"a lower noise_density, a shorter inputs_length, or a tokenizer with {need} sentinels",
        )


def _sentinels_needed(length: int, density: float) -> int:
    """Mean and five standard deviations of the number of hidden runs, and one for a kept run more."""
    starts = density * (1 - density)  # a run starts where a token is hidden and the one before it is not
    mean = density + (length - 1) * starts
    variance = (length - 1) * starts * (1 - starts) - 2 * max(length - 2, 0) * starts**2
    return min(math.ceil(mean + 5 * math.sqrt(max(variance, 0.0))), (length + 1) // 2) + 1


def _some_random(
    keys: Keys, ids: Int32[np.ndarray, "B W"], hidden: Bool[np.ndarray, "B W"], vocabulary: Vocabulary
) -> Int32[np.ndarray, "B W"]:
    """A tenth of the hidden places get an id uniform over the vocabulary without its special ids (sentinels are in
    it; for T5 that is [3, size)). Source: `noise_token_to_random_token_or_sentinel`."""
    special = (
        vocabulary.pad,
        vocabulary.eos,
        vocabulary.unk,
        vocabulary.bos,
        vocabulary.mask,
        vocabulary.cls,
        vocabulary.sep,
    )
    ordinary = np.delete(np.arange(vocabulary.size, dtype=np.int32), [i for i in special if i is not None])
    row, column = np.nonzero(hidden)
    draws = counter.bits_at(keys[row], column, _REPLACEMENT)
    chosen = draws >> np.uint64(32) < np.uint64(
        RANDOM_SHARE * 2.0**32
    )  # the high half: whether; the low: which
    low = draws[chosen] & np.uint64(0xFFFFFFFF)
    ids = ids.copy()
    ids[row[chosen], column[chosen]] = ordinary[low * np.uint64(len(ordinary)) >> np.uint64(32)]
    return ids
