"""What the objectives of an encoder-decoder share: features, assembly of a batch, checks, and the device half."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Bool, Int32

from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import Isolated, Joined, WindowIndex
from t5x_like.errors import UserError
from t5x_like.objectives.base import Losses, Objective
from t5x_like.objectives.encodings import content, gather
from t5x_like.objectives.losses import softmax_losses

Mode = Literal["R", "S", "X"]
MODES: tuple[Mode, ...] = ("R", "S", "X")

MOST_TOKENS = 2**20
"""Longest side of an example: a slip of the keyboard ends in a sentence, not in an array of terabytes."""

Rows = tuple[Int32[np.ndarray, "B W"], Bool[np.ndarray, "B W"]]
"""Ids, and which of them a row consists of, in their order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderObjective(abc.ABC):
    """Base of the objectives that show a text to an encoder and have a decoder say another.

    Attributes:
      inputs_length: S, slots of the encoder, EOS included.
      targets_length: T, slots of the decoder, EOS included; None takes what the objective comes to.
      z_loss: factor of log^2 Z in the loss (T5: 1e-4).
      label_smoothing: by T5X's definition (`losses.softmax_losses`; T5: 0).
    """

    inputs_length: int = 512
    targets_length: int | None = None
    z_loss: float = 1e-4
    label_smoothing: float = 0.0

    @property
    def documents(self) -> Literal["joined", "isolated"]:
        """Whether windows run on across document borders or stop at them."""
        return "joined"

    @property
    def terms(self) -> dict[str, float]:
        """One loss."""
        return {"loss": 1.0}

    def index(self, split: TokenSplit, vocabulary: Vocabulary, key: Keys, cover: bool) -> WindowIndex:
        """Windows of `window_length()` tokens, by `documents`."""
        del vocabulary, key
        if self.documents == "joined":
            return Joined(split, self.window_length(), cover)
        return Isolated(split, self.window_length())

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """One line for people."""

    @abc.abstractmethod
    def window_length(self) -> int:
        """The raw tokens that one example consumes."""

    @abc.abstractmethod
    def computed_targets_length(self) -> int:
        """T where `targets_length` is None."""

    @abc.abstractmethod
    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """The most slots that windows of these lengths take of the `encoder` and of the `decoder`."""

    @abc.abstractmethod
    def examples(self, windows: Windows, keys: Keys) -> Batch:
        """A batch from windows [B, W] and keys [B]: encoder_input_tokens [B, S], decoder_input_tokens,
        decoder_target_tokens [B, T] int32, decoder_loss_weights [B, T] float32. Empty windows give rows of padding
        and of weight 0."""

    @abc.abstractmethod
    def restore(
        self, inputs: Int32[np.ndarray, "S"], targets: Int32[np.ndarray, "T"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"] | None:
        """The window that one row was made from; None where the objective loses it."""

    def parts(self) -> tuple[tuple[Objective, float], ...]:
        """Itself alone."""
        return ((self, 1.0),)

    @property
    def decoder_length(self) -> int:
        """T."""
        return self.computed_targets_length() if self.targets_length is None else self.targets_length

    def features(self, vocabulary: Vocabulary) -> dict[str, Feature]:
        """Names, shapes and dtypes of an unpacked batch."""
        decoder = (self.decoder_length,)
        return {
            "encoder_input_tokens": Feature((self.inputs_length,)),
            "decoder_input_tokens": Feature(decoder),
            "decoder_target_tokens": Feature(decoder),
            "decoder_loss_weights": Feature(decoder, np.float32),
        }

    def check(self, model: Any, vocabulary: Vocabulary | None) -> None:
        """Raises `UserError` where a field cannot be, or the objective does not fit the model or the vocabulary."""
        for field in ("z_loss", "label_smoothing"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise UserError(f"{field} is {value:g}; it must be in [0, 1)", where=f"objective.{field}")
        for name, length in (
            ("inputs_length", self.inputs_length),
            ("targets_length", self.targets_length or 0),
        ):
            if length > MOST_TOKENS:
                raise UserError(
                    f"{name} is {length:,}; at most {MOST_TOKENS:,} is possible", where=f"objective.{name}"
                )
        self.check_fields()
        kind = getattr(model, "kind", None)
        if kind != "encoder-decoder":
            raise UserError(
                f"{type(self).__name__} needs an encoder-decoder model; {type(model).__name__} is {kind or 'none'}",
                where="objective",
                help="a T5 model, or an objective of that model's family",
            )
        if vocabulary is None:
            return
        if vocabulary.size > model.vocab_size:
            raise UserError(
                f"the tokenizer has {vocabulary.size} ids and the model's table {model.vocab_size} rows",
                where="model.vocab_size",
                help=f"model.vocab_size={-(-vocabulary.size // 128) * 128} (the next multiple of 128)",
            )
        self.check_vocabulary(vocabulary)

    @abc.abstractmethod
    def check_fields(self) -> None:
        """Raises `UserError` where a field of this objective cannot be."""

    @abc.abstractmethod
    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raises `UserError` where the vocabulary lacks what this objective needs."""

    def targets(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The decoder's targets [B, T] and their weights."""
        return batch["decoder_target_tokens"], batch["decoder_loss_weights"]

    def loss(
        self, model: Any, params: Any, batch: dict[str, jax.Array], rngs: dict[str, jax.Array] | None
    ) -> Losses:
        """Sums over the targets, weighted by `decoder_loss_weights`; see `losses.softmax_losses`."""
        return softmax_losses(
            model.apply(params, batch, rngs),
            batch["decoder_target_tokens"],
            batch["decoder_loss_weights"],
            z_loss=self.z_loss,
            t5x_label_smoothing=self.label_smoothing,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoiser(EncoderDecoderObjective):
    """Base of the objectives that make one example of one window. A subclass says what goes to each side.

    Attributes:
      mode: UL2's mode token, in front of the inputs: R, S, X are the last, last but one and last but two
        sentinel; the others then mark spans. None: no such token.
    """

    mode: Mode | None = None

    @abc.abstractmethod
    def corrupt(self, windows: Windows, lengths: np.ndarray, keys: Keys) -> tuple[Rows, Rows]:
        """Inputs and targets of windows [B, W], without mode token and EOS."""

    @property
    def room(self) -> int:
        """Slots of the encoder that the mode token leaves, EOS included."""
        return self.inputs_length - (self.mode is not None)

    def examples(self, windows: Windows, keys: Keys) -> Batch:
        """See `EncoderDecoderObjective.examples`."""
        vocabulary, lengths = windows.vocabulary, windows.lengths.astype(np.int64)
        if lengths.max(initial=0) > self.window_length():
            raise ValueError(f"a window of {lengths.max()} tokens; {self.summary}")
        inputs, targets = self.corrupt(windows, lengths, keys)
        first = None if self.mode is None else mode_token(self.mode, vocabulary)
        encoder, _ = gather(*inputs, lengths, self.inputs_length, vocabulary, first)
        decoder, used = gather(*targets, lengths, self.decoder_length, vocabulary)
        return assemble(encoder, decoder, used, vocabulary)

    def sentinels(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        """The sentinels that can mark spans: all of them, less UL2's three where there is a mode token."""
        return vocabulary.sentinels if self.mode is None else vocabulary.sentinels[: -len(MODES)]

    def inputs_content(
        self, inputs: Int32[np.ndarray, "S"], vocabulary: Vocabulary
    ) -> Int32[np.ndarray, "n"]:
        """A row of the encoder without mode token, EOS and padding."""
        return content(inputs, vocabulary)[int(self.mode is not None) :]

    def check_fields(self) -> None:
        """Raises `UserError` where a length is too small to hold a token and EOS."""
        check_least("inputs_length", self.inputs_length, self.inputs_length - self.room + 2)
        if self.targets_length is not None:
            check_least("targets_length", self.targets_length, 2)

    def check_targets_fit(self) -> None:
        """Raises `UserError` where `targets_length` would cut targets."""
        if self.targets_length is not None and self.targets_length < self.computed_targets_length():
            raise UserError(
                f"targets_length is {self.targets_length}, and the targets of inputs_length={self.inputs_length} "
                f"come to {self.computed_targets_length()}",
                where="objective.targets_length",
                help="objective.targets_length=none takes what is needed",
            )

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raises `UserError` where there is no sentinel to serve as the mode token."""
        if self.mode is not None and len(vocabulary.sentinels) < len(MODES):
            raise UserError(
                f"mode tokens need {len(MODES)} sentinels; the tokenizer has {len(vocabulary.sentinels)}",
                where="objective",
                help="prepare a tokenizer with 100 of them",
            )


def check_share(name: str, value: float, most: float = 1.0) -> None:
    """Raises `UserError` unless 0 < value < most (value = most allowed below 1)."""
    if not (0 < value < 1 and value <= most):
        bound = f"above 0 and at most {most:g}" if most < 1 else "between 0 and 1"
        raise UserError(f"{name} is {value:g}; it must be {bound}", where=f"objective.{name}")


def check_least(name: str, value: int, least: int) -> None:
    """Raises `UserError` unless value >= least."""
    if value < least:
        raise UserError(
            f"{name} is {value}; the least that holds anything, EOS included, is {least}",
            where=f"objective.{name}",
        )


def mode_token(mode: Mode, vocabulary: Vocabulary) -> int:
    """The id that stands for a UL2 mode."""
    return vocabulary.sentinels[-1 - MODES.index(mode)]


def assemble(
    encoder: Int32[np.ndarray, "B S"],
    decoder: Int32[np.ndarray, "B T"],
    used: np.ndarray,
    vocabulary: Vocabulary,
) -> Batch:
    """The batch of inputs and targets: decoder inputs are the targets shifted right behind the start id (= pad, T5),
    and the first `used[b]` targets of a row have weight 1."""
    shifted = np.full_like(decoder, vocabulary.pad)
    shifted[:, 1:] = decoder[:, :-1]
    return {
        "encoder_input_tokens": encoder,
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": decoder,
        "decoder_loss_weights": (np.arange(decoder.shape[1]) < used[:, None]).astype(np.float32),
    }
