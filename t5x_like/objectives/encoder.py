"""What the objectives of an encoder share: rows of special ids and text, features, checks, and the way back."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Int32

from t5x_like.data import framing
from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.framing import Framed
from t5x_like.data.inputs import InputFormat, SegmentPairs
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import WindowIndex
from t5x_like.errors import Exit, UserError
from t5x_like.objectives.base import Losses, Objective
from t5x_like.objectives.encoder_decoder import MOST_TOKENS
from t5x_like.objectives.losses import softmax_losses

UNTOUCHED, MASKED, RANDOM, KEPT = range(4)
"""What became of a token of the text (`Shown.fates`)."""


class Shown(NamedTuple):
    """One row as people look at it, without its padding.

    Attributes:
      originals: what the row was made from, special ids included.
      inputs: what the encoder reads.
      fates: `UNTOUCHED`, or one of `MASKED`, `RANDOM` and `KEPT` at the places that are predicted (`KEPT` too where a
        random id happened to be the original one).
      pair_label: 0 where B follows A, 1 where it is a random text; None without next sentence prediction.
    """

    originals: Int32[np.ndarray, "n"]
    inputs: Int32[np.ndarray, "n"]
    fates: Int8[np.ndarray, "n"]
    pair_label: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderObjective(abc.ABC):
    """Base of the objectives that hide tokens of a row and ask for them.

    Attributes:
      length: T, places of a row, [CLS] and [SEP] counted.
      inputs: what a row is made from: pairs of segments, runs of sentences, plain blocks.
      mask_rate: share of the tokens that are predicted.
      max_predictions: K, the most predictions of a row; None takes what the objective comes to. The loss over the
        vocabulary is computed in these K places alone, used or not.
      fixed_masks: None draws new masks in every epoch (RoBERTa's dynamic masking). n: masks come round again every n
        epochs, as if n masked copies of the data were kept on disk (BERT's `dupe_factor`, for input formats that make
        no copies themselves).
    """

    length: int = 128
    inputs: InputFormat = dataclasses.field(default_factory=SegmentPairs)
    mask_rate: float = 0.15
    max_predictions: int | None = None
    fixed_masks: int | None = None

    @property
    @abc.abstractmethod
    def terms(self) -> dict[str, float]:
        """Names of the losses that are minimised, with their factors."""

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """One line for people."""

    @property
    @abc.abstractmethod
    def num_predictions(self) -> int:
        """K."""

    @property
    def needs(self) -> frozenset[str]:
        """What windows have to know beside their tokens."""
        return frozenset()

    @abc.abstractmethod
    def hide(self, framed: Framed, windows: Windows, keys: Keys) -> Batch:
        """`encoder_input_tokens`, `masked_positions`, `masked_targets` and `masked_weights` of rows that are framed."""

    @abc.abstractmethod
    def loss(
        self, model: Any, params: Any, batch: dict[str, jax.Array], rngs: dict[str, jax.Array] | None
    ) -> Losses:
        """Device half: loss and metric sums; `rngs=None` switches dropout off."""

    @property
    def distinct_epochs(self) -> int | None:
        """Epochs after which everything but the order of the rows comes round again; None: never."""
        return self.fixed_masks

    def parts(self) -> tuple[tuple[Objective, float], ...]:
        """Itself alone."""
        return ((self, 1.0),)

    def window_length(self) -> int:
        """What the special ids of the input format leave."""
        return self.inputs.capacity(self.length)

    def index(self, split: TokenSplit, vocabulary: Vocabulary, key: Keys, cover: bool) -> WindowIndex:
        """As the input format builds it."""
        return self.inputs.build(split, self.length, vocabulary, key, cover)

    def features(self, vocabulary: Vocabulary) -> dict[str, Feature]:
        """`encoder_input_tokens`, `encoder_token_types` [T]; `masked_positions`, `masked_targets`,
        `masked_weights` [K]; `pair_labels` [] with next sentence prediction."""
        del vocabulary
        features = {
            "encoder_input_tokens": Feature((self.length,)),
            "encoder_token_types": Feature((self.length,)),
            "masked_positions": Feature((self.num_predictions,)),
            "masked_targets": Feature((self.num_predictions,)),
            "masked_weights": Feature((self.num_predictions,), np.float32),
        }
        return features | ({"pair_labels": Feature(())} if self.inputs.next_sentence else {})

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """The most places of the encoder: those of a pair."""
        lengths = np.asarray(lengths, np.int64)
        pair = lengths + framing.num_special(pair=True, double_separator=self.inputs.double_separator)
        return {"encoder": np.where(lengths > 0, np.minimum(pair, self.length), 0)}

    # ---- host half ----

    def examples(self, windows: Windows, keys: Keys) -> Batch:
        """A batch (`features`) from windows [B, W] and keys [B]. An empty window gives a row of padding without
        predictions."""
        framed = framing.frame(
            windows.tokens, windows.lengths, windows.first_lengths, self.length, windows.vocabulary,
            double_separator=self.inputs.double_separator,
        )  # fmt: skip
        batch = self.hide(framed, windows, keys) | {"encoder_token_types": framed.token_types}
        if self.inputs.next_sentence:
            assert windows.pair_labels is not None, "the input format promises them"
            batch["pair_labels"] = windows.pair_labels.astype(np.int32)
        return batch

    def targets(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The hidden tokens [B, K] and their weights."""
        return batch["masked_targets"], batch["masked_weights"]

    def shown(self, row: Batch, vocabulary: Vocabulary) -> Shown:
        """One row of a batch beside what it was made from."""
        inputs = row["encoder_input_tokens"]
        used = row["masked_weights"] > 0
        places = row["masked_positions"][used]
        originals = inputs.copy()
        originals[places] = row["masked_targets"][used]
        end = int(np.max(np.flatnonzero(originals != vocabulary.pad), initial=-1)) + 1
        fates = np.full(len(inputs), UNTOUCHED, np.int8)
        now = inputs[places]
        fates[places] = np.where(
            now == vocabulary.mask, MASKED, np.where(now == originals[places], KEPT, RANDOM)
        )
        label = int(row["pair_labels"]) if "pair_labels" in row else None
        return Shown(originals[:end], inputs[:end], fates[:end], label)

    def restore(self, row: Batch, vocabulary: Vocabulary) -> Int32[np.ndarray, "n"]:
        """The window that one row of a batch was made from: segment A, and B behind it."""
        originals = self.shown(row, vocabulary).originals
        types = row["encoder_token_types"][: len(originals)]
        first, second = originals[types == 0], originals[types == 1]
        separators = 1 + (len(second) > 0 and self.inputs.double_separator)
        return np.concatenate([first[1 : len(first) - separators], second[:-1]])

    # ---- what is refused ----

    def check(self, model: Any, vocabulary: Vocabulary | None) -> None:
        """Raises `UserError` where a field cannot be, or the objective does not fit the model or the vocabulary."""
        self.check_fields()
        self.check_model(model)
        if self.length > model.max_length:
            raise UserError(
                f"length is {self.length}, and the model has {model.max_length} positions",
                where="objective.length",
                help=f"objective.length={model.max_length} at most, or a model with more positions",
            )
        if vocabulary is None:
            return
        framing.check(vocabulary)
        if vocabulary.mask is None:
            raise UserError(
                "the tokenizer has no [MASK], which stands for hidden tokens",
                where="data.sources",
                help="prepare the text again with --model_type=wordpiece or --model_type=bytebpe",
                code=Exit.BAD_DATA,
            )
        inside = (
            "model.encoder" if hasattr(model, "encoder") else "model"
        )  # where the fields of an encoder are
        if vocabulary.size > model.vocab_size:
            raise UserError(
                f"the tokenizer has {vocabulary.size} ids and the model's table {model.vocab_size} rows",
                where=f"{inside}.vocab_size",
                help=f"{inside}.vocab_size={vocabulary.size}",
            )
        if vocabulary.pad != model.pad_id:
            raise UserError(
                f"the tokenizer pads with id {vocabulary.pad}; the model takes {model.pad_id} for padding",
                where=f"{inside}.pad_id",
                help=f"{inside}.pad_id={vocabulary.pad}",
            )

    @abc.abstractmethod
    def check_model(self, model: Any) -> None:
        """Raises `UserError` where the model is of another kind or lacks a head."""

    def check_fields(self) -> None:
        """Raises `UserError` where a field of this objective cannot be."""
        self.inputs.check()
        least = 1 + self.length - self.window_length()
        if not least <= self.length <= MOST_TOKENS:
            raise UserError(
                f"length is {self.length:,}; rows have {least} to {MOST_TOKENS:,} places, special ids counted",
                where="objective.length",
            )
        if not 0 < self.mask_rate <= 1:  # NaN too
            raise UserError(
                f"mask_rate is {self.mask_rate:g}; it must be above 0 and at most 1",
                where="objective.mask_rate",
            )
        if self.max_predictions is not None and not 1 <= self.max_predictions <= self.length:
            raise UserError(
                f"max_predictions is {self.max_predictions}, in rows of {self.length} places",
                where="objective.max_predictions",
                help="objective.max_predictions=none takes what mask_rate comes to",
            )
        if self.fixed_masks is not None and self.fixed_masks < 1:
            raise UserError(
                f"fixed_masks is {self.fixed_masks}; there is at least 1",
                where="objective.fixed_masks",
                help="objective.fixed_masks=none draws new masks in every epoch",
            )


def check_kind(objective: EncoderObjective, model: Any, kind: str, wanted: str) -> None:
    """Raises `UserError` unless `model.kind` is `kind`, of which `wanted` is an example."""
    found = getattr(model, "kind", None)
    if found != kind:
        raise UserError(
            f"{type(objective).__name__} needs a model of the kind {kind}; {type(model).__name__} is {found or 'none'}",
            where="objective",
            help=f"{wanted}, or an objective of that model's family",
        )


# ---- host half ----------------------------------------------------------------------------------


def maskable(framed: Framed, vocabulary: Vocabulary) -> Bool[np.ndarray, "B T"]:
    """Places of text; [CLS], [SEP] and [MASK] among it (separators between sentences) are none."""
    text = framed.source >= 0
    for index in (vocabulary.cls, vocabulary.sep, vocabulary.mask):
        if index is not None:
            text &= framed.tokens != index
    return text


def framed_word_starts(framed: Framed, starts: Bool[np.ndarray, "B W"]) -> Bool[np.ndarray, "B T"]:
    """`starts` of windows at the places of their rows; special ids are words of their own."""
    return np.take_along_axis(starts, np.maximum(framed.source, 0), axis=1) | (framed.source < 0)


# ---- device half --------------------------------------------------------------------------------


def masked_losses(logits: Float[Array, "B K V"], batch: dict[str, jax.Array]) -> Losses:
    """`cross_entropy` and `accuracy` over the hidden tokens."""
    losses = softmax_losses(logits, batch["masked_targets"], batch["masked_weights"])
    return {name: losses[name] for name in ("cross_entropy", "accuracy")}


def pair_losses(logits: Float[Array, "B 2"], labels: Int[Array, "B"], real: Bool[Array, "B"]) -> Losses:
    """`pair_loss` and `pair_accuracy` over the rows that are `real`."""
    losses = softmax_losses(logits, labels, real.astype(jnp.float32))
    return {"pair_loss": losses["cross_entropy"], "pair_accuracy": losses["accuracy"]}
