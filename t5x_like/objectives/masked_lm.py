"""Masked language modelling, with or without next sentence prediction: the objective of BERT and RoBERTa.

    text     [CLS] the man went to the store [SEP] he bought milk [SEP]
    inputs   [CLS] the [MASK] went to the store [SEP] he bought penguin [SEP]      pair label 0: B follows A
    predict  man at place 2, milk at place 10

Papers: Devlin et al. 2019, arXiv:1810.04805, section 3.1 and appendix A.1; Liu et al. 2019 (RoBERTa),
arXiv:1907.11692. Sources: google-research/bert create_pretraining_data.py and run_pretraining.py;
facebookresearch/fairseq data/mask_tokens_dataset.py and criterions/masked_lm.py. The defaults are BERT's.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Windows
from t5x_like.data.framing import Framed
from t5x_like.errors import UserError
from t5x_like.objectives import masking
from t5x_like.objectives.base import Losses
from t5x_like.objectives.encoder import (
    EncoderObjective,
    check_kind,
    framed_word_starts,
    maskable,
    masked_losses,
    pair_losses,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(EncoderObjective):
    """Some tokens of a row are hidden, and predicted from both sides.

    Attributes:
      max_predictions: None takes the ceiling of `mask_rate` of `length`: 20 of 128, 77 of 512.
      unit: what is hidden at once (see `masking`).
      keep_share, random_share: of the chosen tokens, those that stay as they are and those that become a random id;
        the others become [MASK]. With `unit="span"` a span has one fate.
      rounding: how a share of a row becomes a number: "half_even" (BERT), "random" (RoBERTa), "up" (SpanBERT); see
        `masking.budgets`. The number is one of tokens, whatever the unit.
      mask_specials: [CLS] and [SEP] can be chosen too (RoBERTa), or not (BERT).
      random_ids: what a random id is drawn from: "all" ids (BERT), or the "ordinary" ones and [MASK] (RoBERTa).
    """

    unit: masking.Unit = "token"
    keep_share: float = 0.1
    random_share: float = 0.1
    rounding: masking.Rounding = "half_even"
    mask_specials: bool = False
    random_ids: Literal["all", "ordinary"] = "all"

    @property
    def terms(self) -> dict[str, float]:
        """The loss of the hidden tokens; with next sentence prediction that of the pairs too, as much."""
        return {"cross_entropy": 1.0} | ({"pair_loss": 1.0} if self.inputs.next_sentence else {})

    @property
    def summary(self) -> str:
        """Such as `masked LM 15% by token + next sentence: 128 places, 20 predictions`."""
        pairs = " + next sentence" if self.inputs.next_sentence else ""
        return (
            f"masked LM {100 * self.mask_rate:g}% by {self.unit}{pairs}: "
            f"{self.length} places, {self.num_predictions} predictions"
        )

    @property
    def num_predictions(self) -> int:
        """K."""
        if self.max_predictions is not None:
            return self.max_predictions
        return masking.most_predictions(self.mask_rate, self.length)

    @property
    def needs(self) -> frozenset[str]:
        """Where words start, for units made of words."""
        return frozenset() if self.unit == "token" else frozenset({"word_starts"})

    def hide(self, framed: Framed, windows: Windows, keys: Keys) -> Batch:
        """See `EncoderObjective.hide`."""
        vocabulary = windows.vocabulary
        assert vocabulary.mask is not None, "refused by check"
        eligible = maskable(framed, vocabulary)
        if self.mask_specials:
            eligible = framed.is_special | (framed.source >= 0)
        starts = None if windows.word_starts is None else framed_word_starts(framed, windows.word_starts)
        counts = masking.budgets(
            keys, framed.lengths, eligible.sum(axis=1), self.mask_rate, self.rounding, self.num_predictions
        )
        chosen = masking.choose(self.unit, keys, eligible, starts, counts)
        inputs = masking.replace(
            keys,
            framed.tokens,
            chosen,
            vocabulary.mask,
            masking.random_ids(vocabulary, self.random_ids),
            keep_share=self.keep_share,
            random_share=self.random_share,
            by_span=self.unit == "span",
        )
        return {"encoder_input_tokens": inputs} | masking.predictions(
            chosen, framed.tokens, self.num_predictions
        )

    def loss(
        self, model: Any, params: Any, batch: dict[str, jax.Array], rngs: dict[str, jax.Array] | None
    ) -> Losses:
        """(sum, weight) of `cross_entropy` and `accuracy` over the hidden tokens; with next sentence prediction
        `pair_loss` and `pair_accuracy` over the rows."""
        outputs = model.apply(params, batch, rngs)
        losses = masked_losses(outputs["mlm_logits"], batch)
        if self.inputs.next_sentence:
            real = jnp.any(batch["encoder_input_tokens"] != model.pad_id, axis=-1)
            losses |= pair_losses(outputs["pair_logits"], batch["pair_labels"], real)
        return losses

    def check_model(self, model: Any) -> None:
        """Raises `UserError` unless the model is an encoder with the heads that are needed."""
        check_kind(self, model, "encoder", "a BERT or RoBERTa model")
        heads = [("mlm_head", "the vocabulary")] + [("pair_head", "pairs")] * self.inputs.next_sentence
        for head, of in heads:
            if not getattr(model, head):
                raise UserError(
                    f"{self.summary} needs the head over {of}; the model has none",
                    where=f"model.{head}",
                    help=f"model.{head}=true",
                )

    def check_fields(self) -> None:
        """Raises `UserError` where a field cannot be."""
        super().check_fields()
        for name in ("keep_share", "random_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value:g}; it must be in [0, 1]", where=f"objective.{name}")
        if self.keep_share + self.random_share > 1:
            raise UserError(
                f"keep_share is {self.keep_share:g} and random_share {self.random_share:g}: together more than 1",
                where="objective.random_share",
                help=f"objective.random_share={1 - self.keep_share:g} at most",
            )
