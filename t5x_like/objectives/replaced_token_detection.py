"""Replaced token detection, the objective of ELECTRA (Clark et al. 2020, arXiv:2003.10555, section 2).

    text            the chef cooked the meal
    generator       [MASK] chef [MASK] the meal        masked LM: predicts `the`, `cooked`
    sampled from it the    chef ate    the meal        a sample that is the original counts as original
    discriminator   0      0    1      0   0           was each token replaced?

Source: google-research/electra, pretrain/pretrain_helpers.py (`mask`, `scatter_update`, `sample_from_softmax`) and
run_pretraining.py. The generator is not trained to fool: no gradient passes through the samples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from t5x_like.data import counter
from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Windows
from t5x_like.data.framing import Framed
from t5x_like.data.inputs import ElectraPairs, InputFormat
from t5x_like.errors import UserError
from t5x_like.models import dropout
from t5x_like.models.products import pick_rows
from t5x_like.objectives import masking
from t5x_like.objectives.base import Losses
from t5x_like.objectives.encoder import EncoderObjective, check_kind, maskable, masked_losses

_SHOW = 0xE1EC  # salt of the host's draws
_SAMPLE = 0x5A3  # the sampler's place among the uses of a step's seed
_EVALUATION = (0x243F6A88, 0x85A308D3)
"""Seed of the samples where there is no randomness to draw on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplacedTokenDetection(EncoderObjective):
    """A small generator fills hidden places with samples; the discriminator says of every token whether it is one.

    Attributes:
      max_predictions: K; None takes the original's int((mask_rate + .005) * length): 19 of 128, 79 of 512.
      mask_share: of the drawn places, those that show [MASK] to the generator; the others show the token. All are
        predicted, and replaced by samples.
      with_replacement: places are drawn independently, as in the original: at 15 % some 7 % of the draws repeat an
        earlier one, and each counts in the generator's loss. False: distinct places.
      average_duplicates: where a place was drawn twice, the discriminator sees the rounded-down mean of the two sampled
        ids, as in the original: an arbitrary token. False: the first sample.
      task: what the discriminator learns.
        detection: replaced or not, at every token, [CLS] and [SEP] too.
        detection_masked: the same at the drawn places alone ("ELECTRA 15%" in the paper's section 3.4).
        replace_mlm: the original token at the drawn places.
        all_tokens_mlm: the original token at every place, with a probability to copy the input.
      generator_weight, detection_weight: factors of the generator's mean loss (over the predictions) and of the
        discriminator's (over the tokens that it is asked about), whatever its task. The paper names none for the
        tasks that predict tokens; 1 is natural there.
      temperature: of the samples.
      disallow_correct: the original token is never sampled.
    """

    inputs: InputFormat = dataclasses.field(default_factory=ElectraPairs)
    mask_share: float = 0.85
    with_replacement: bool = True
    average_duplicates: bool = False
    task: Literal["detection", "detection_masked", "replace_mlm", "all_tokens_mlm"] = "detection"
    generator_weight: float = 1.0
    detection_weight: float = 50.0
    temperature: float = 1.0
    disallow_correct: bool = False

    @property
    def terms(self) -> dict[str, float]:
        """`cross_entropy` of the generator, and `detection` or, where the task is to name the originals,
        `discriminator_cross_entropy`."""
        detects = self.task in ("detection", "detection_masked")
        discriminator = "detection" if detects else "discriminator_cross_entropy"
        return {"cross_entropy": self.generator_weight, discriminator: self.detection_weight}

    @property
    def summary(self) -> str:
        """Such as `replaced token detection 15%: 128 places, 19 predictions`."""
        name = {
            "detection": "replaced token detection",
            "detection_masked": "replaced token detection at masked places",
            "replace_mlm": "masked LM over sampled tokens",
            "all_tokens_mlm": "all-tokens LM over sampled tokens",
        }[self.task]
        return f"{name} {100 * self.mask_rate:g}%: {self.length} places, {self.num_predictions} predictions"

    @property
    def num_predictions(self) -> int:
        """K."""
        if self.max_predictions is not None:
            return self.max_predictions
        return min(max(1, int((self.mask_rate + 0.005) * self.length)), self.length)

    # ---- host half ----

    def hide(self, framed: Framed, windows: Windows, keys: Keys) -> Batch:
        """See `EncoderObjective.hide`; predictions stand in the order in which they were drawn."""
        mask, slots = windows.vocabulary.mask, self.num_predictions
        assert mask is not None, "refused by check"
        eligible = maskable(framed, windows.vocabulary)
        amounts = eligible.sum(axis=1)
        wanted = np.maximum(np.minimum(np.rint(framed.lengths * self.mask_rate), slots), 1).astype(np.int64)
        if self.with_replacement:
            positions = masking.with_replacement(keys, eligible, slots)
            used = np.arange(slots) < np.where(amounts > 0, wanted, 0)[:, None]
            positions = np.where(used, positions, 0).astype(np.int32)
            targets = np.where(used, np.take_along_axis(framed.tokens, positions, axis=1), 0).astype(np.int32)
            found = {
                "masked_positions": positions,
                "masked_targets": targets,
                "masked_weights": used.astype(np.float32),
            }
        else:
            chosen = masking.tokens(keys, eligible, np.minimum(wanted, amounts))
            found = masking.predictions(chosen, framed.tokens, slots)
        hides = (counter.uniform(keys, (slots,), _SHOW) < self.mask_share) & (found["masked_weights"] > 0)
        inputs = framed.tokens.copy()
        row, slot = np.nonzero(hides)
        inputs[row, found["masked_positions"][row, slot]] = mask
        return {"encoder_input_tokens": inputs} | found

    # ---- device half ----

    def loss(
        self, model: Any, params: Any, batch: dict[str, jax.Array], rngs: dict[str, jax.Array] | None
    ) -> Losses:
        """(sum, weight) of

        cross_entropy, accuracy: the generator, over all predictions.
        replaced: the share of the tokens that are not the original ones any more.
        detection, detection_accuracy: the discriminator, over the tokens that it is asked about.
        detection_precision, detection_recall: true alarms among its alarms, and among the replaced tokens.
        discriminator_cross_entropy: in place of the four of detection, where the task is to name the originals; for
          replace_mlm with discriminator_accuracy.

        Samples are a function of `rngs["dropout"]`, always the same without it.
        """
        logits = model.generator_logits(params, batch, rngs)
        losses = masked_losses(logits, batch)
        samples = self.sample(logits, batch["masked_targets"], rngs)
        used = batch["masked_weights"] > 0
        positions = batch["masked_positions"]
        originals = put(batch["encoder_input_tokens"], positions, used, batch["masked_targets"])
        shown = one_sample(samples, positions, used, mean=self.average_duplicates)
        shown = put(originals, positions, used, shown)
        real, replaced = originals != model.pad_id, shown != originals
        losses["replaced"] = _mean(replaced, real)
        hidden = model.discriminate(params, shown, batch["encoder_token_types"], rngs)
        if self.task == "replace_mlm":
            found = masked_losses(model.mlm_logits(params, pick_rows(hidden, positions)), batch)
            return losses | {f"discriminator_{name}": value for name, value in found.items()}
        if self.task == "all_tokens_mlm":
            log_probs = model.original_log_probs(params, hidden, shown, originals)
            return losses | {"discriminator_cross_entropy": _mean(-log_probs, real)}
        asked = real
        if self.task == "detection_masked":
            asked = put(jnp.zeros_like(originals), positions, used, jnp.ones_like(positions)) > 0
        return losses | detection_losses(model.detection_logits(params, hidden), replaced, asked)

    def sample(
        self, logits: Float[Array, "B K V"], targets: Int[Array, "B K"], rngs: dict[str, jax.Array] | None
    ) -> Int32[Array, "B K"]:
        """One id for each prediction, from softmax(logits / temperature); no gradient."""
        seed = dropout.fold(dropout.seed_of(rngs), _SAMPLE)
        if seed is None:
            seed = jnp.array(_EVALUATION, jnp.uint32)
        logits = jax.lax.stop_gradient(logits).astype(jnp.float32) / self.temperature
        if self.disallow_correct:
            logits = jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], -jnp.inf, logits)
        return jnp.argmax(logits + gumbel(seed, logits.shape), axis=-1).astype(jnp.int32)

    # ---- what is refused ----

    def check_model(self, model: Any) -> None:
        """Raises `UserError` unless the model is a generator and a discriminator with the head for the task."""
        check_kind(self, model, "generator-discriminator", "an ELECTRA model")
        head = "mlm" if self.task.endswith("mlm") else "detection"
        if model.head != head:
            raise UserError(
                f"the task {self.task} needs a discriminator with the head {head!r}; this one has {model.head!r}",
                where="model.head",
                help=f"model.head={head}",
            )
        copies = self.task == "all_tokens_mlm"
        if model.copy != copies:
            raise UserError(
                f"the task {self.task} has {'a' if copies else 'no'} copy mechanism, and model.copy is {model.copy}",
                where="model.copy",
                help=f"model.copy={str(copies).lower()}",
            )

    def check_fields(self) -> None:
        """Raises `UserError` where a field cannot be."""
        super().check_fields()
        if not 0 <= self.mask_share <= 1:
            raise UserError(
                f"mask_share is {self.mask_share:g}; it must be in [0, 1]", where="objective.mask_share"
            )
        for name in ("generator_weight", "detection_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise UserError(f"{name} is {value:g}; it must be 0 or more", where=f"objective.{name}")
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"temperature is {self.temperature:g}; it must be above 0", where="objective.temperature"
            )


# ---- device half, piece by piece ----------------------------------------------------------------


def gumbel(seed: dropout.Seed, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Gumbel noise from hashed bits: -log(-log u), u one of 2^23 numbers strictly between 0 and 1, all of them exact in
    float32, so neither logarithm is of 0. Between -2.8 and 16.6."""
    u = ((dropout.bits(seed, shape) >> 9).astype(jnp.float32) + 0.5) * np.float32(2.0**-23)
    return -jnp.log(-jnp.log(u))


def put(
    rows: Int[Array, "B T"], positions: Int[Array, "B K"], used: Bool[Array, "B K"], values: Int[Array, "B K"]
) -> Int[Array, "B T"]:
    """`rows` with `values` at `positions`, where `used`. Equal positions must have equal values."""
    at = jnp.where(used, positions, rows.shape[1])
    return jax.vmap(lambda row, places, new: row.at[places].set(new, mode="drop"))(rows, at, values)


def one_sample(
    samples: Int[Array, "B K"], positions: Int[Array, "B K"], used: Bool[Array, "B K"], *, mean: bool
) -> Int[Array, "B K"]:
    """For each slot, what is shown at its place, of all the samples drawn for that place: the first, or their mean,
    rounded down."""
    same = (positions[:, :, None] == positions[:, None, :]) & used[:, None, :]
    if mean:
        amount = jnp.maximum(jnp.sum(same, axis=-1), 1)
        return jnp.sum(jnp.where(same, samples[:, None, :], 0), axis=-1) // amount
    return jnp.take_along_axis(samples, jnp.argmax(same, axis=-1), axis=1)


def detection_losses(
    logits: Float[Array, "B T"], replaced: Bool[Array, "B T"], asked: Bool[Array, "B T"]
) -> Losses:
    """Binary cross entropy of "replaced", from a logit a token, and how good the guesses (logit > 0) are, over the
    tokens that are `asked`."""
    logits = logits.astype(jnp.float32)
    nll = jax.nn.softplus(jnp.where(replaced, -logits, logits))
    alarm = (logits > 0) & asked
    true_alarm = alarm & replaced
    return {
        "detection": _mean(nll, asked),
        "detection_accuracy": _mean((logits > 0) == replaced, asked),
        "detection_precision": _mean(true_alarm, alarm),
        "detection_recall": _mean(true_alarm, replaced & asked),
    }


def _mean(values: Array, weights: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
    weights = weights.astype(jnp.float32)
    return jnp.sum(values.astype(jnp.float32) * weights), jnp.sum(weights)
