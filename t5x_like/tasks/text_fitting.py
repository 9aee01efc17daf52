"""T5 on labelled tasks: inputs and answers as text, by teacher forcing; predictions by greedy decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from t5x_like.data.tokenizer_base import Tokenizer
from t5x_like.decoding.base import SpecialIds
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import greedy
from t5x_like.models.t5 import T5
from t5x_like.objectives.base import Losses
from t5x_like.objectives.losses import softmax_losses
from t5x_like.tasks import text_to_text
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example
from t5x_like.tasks.features import ROUNDING, Rows
from t5x_like.tasks.fitting import WEIGHTS, Prediction, seeded

LONGEST_TARGET = 128


def longest_target(task: Task, tokenizer: Tokenizer, examples: Sequence[Example]) -> int:
    """Slots for the longest answer of these examples, EOS included; at most `LONGEST_TARGET`."""
    texts = {text_to_text.target(task, example) for example in examples}
    most = max(map(len, tokenizer.encode_batch(sorted(texts))), default=0) + 1
    return min(LONGEST_TARGET, -(-most // ROUNDING) * ROUNDING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextObjective:
    """Cross entropy of the answer's tokens, with T5's z-loss."""

    z_loss: float = 1e-4

    @property
    def terms(self) -> dict[str, float]:
        """One loss."""
        return {"loss": 1.0}

    def loss(self, model: Any, params: Any, batch: dict[str, Array], rngs: Any) -> Losses:
        """Sums over the targets."""
        weights = batch["decoder_loss_weights"] * batch[WEIGHTS][:, None]
        logits = model.apply(params, batch, seeded(batch, rngs))
        losses = softmax_losses(logits, batch["decoder_target_tokens"], weights, z_loss=self.z_loss)
        return {name: losses[name] for name in ("loss", "accuracy")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFitting:
    """T5 and a task.

    Attributes:
      length: most tokens of an input, EOS included; what is over is cut off.
      target_length: T, slots of an answer, EOS included.
    """

    task: Task
    model: T5
    tokenizer: Tokenizer
    length: int
    target_length: int

    @property
    def objective(self) -> TextObjective:
        """T5's loss."""
        return TextObjective()

    def rows(self, examples: Sequence[Example]) -> Rows:
        """`encoder_input_tokens` [N, S] and the decoder's three features [N, T]."""
        sources = self.tokenizer.encode_batch([text_to_text.inputs(self.task, e) for e in examples])
        targets = self.tokenizer.encode_batch([text_to_text.target(self.task, e) for e in examples])
        pad = self.tokenizer.vocabulary.pad
        longest = max((len(row) + 1 for row in sources), default=1)
        encoder = self._ended(sources, min(self.length, -(-longest // ROUNDING) * ROUNDING))
        decoder = self._ended(targets, self.target_length)
        used = np.array([min(len(row) + 1, self.target_length) for row in targets])
        weights = np.arange(decoder.shape[1]) < used[:, None]
        arrays = {
            "encoder_input_tokens": encoder,
            "decoder_input_tokens": np.pad(decoder[:, :-1], ((0, 0), (1, 0)), constant_values=pad),
            "decoder_target_tokens": decoder,
            "decoder_loss_weights": weights.astype(np.float32),
        }
        cut = sum(len(row) + 1 > self.length for row in sources)
        return Rows(arrays=arrays, example=np.arange(len(examples)), truncated=cut)

    def _ended(self, rows: Sequence[np.ndarray], length: int) -> np.ndarray:
        """Rows of `length` with EOS behind them, padded; what is over is cut off."""
        vocabulary = self.tokenizer.vocabulary
        out = np.full((len(rows), length), vocabulary.pad, np.int32)
        for i, row in enumerate(rows):
            kept = row[: length - 1]
            out[i, : len(kept)] = kept
            out[i, len(kept)] = vocabulary.eos
        return out

    def predict(
        self, params: Any, examples: Sequence[Example], rows: Rows, batch_size: int
    ) -> list[Prediction]:
        """What greedy decoding says, read as labels, numbers or answers."""
        vocabulary = self.tokenizer.vocabulary
        ids = SpecialIds(vocabulary.eos, vocabulary.pad, vocabulary.size)
        strategy = greedy(self.target_length)
        inputs, found = rows.arrays["encoder_input_tokens"], []
        for start in range(0, rows.count, batch_size):
            chosen = np.minimum(np.arange(start, start + batch_size), rows.count - 1)
            out = generate(self.model, params, inputs[chosen], strategy=strategy, ids=ids)
            found.append((np.asarray(out.tokens)[:, 0], np.asarray(out.lengths)[:, 0]))
        texts = [
            self.tokenizer.decode(row[:stop])
            for tokens, lengths in found
            for row, stop in zip(tokens, lengths)
        ]
        return [
            Prediction(text_to_text.prediction(self.task, text), {"prediction": text})
            for text in texts[: len(examples)]
        ]
