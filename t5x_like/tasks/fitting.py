"""What fitting a model to a task needs, whatever the family: arrays, a loss, predictions.

`EncoderFitting` puts a head on an encoder; tasks/text_fitting.py has T5's way. Both have one compiled train step and
one compiled forward pass, whatever the seed: the seed of the dropout masks is a feature of the batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t5x_like.models.heads import EncoderWithHead
from t5x_like.objectives.base import Losses
from t5x_like.objectives.losses import softmax_losses
from t5x_like.tasks import spans
from t5x_like.tasks.definitions import Kind, Task
from t5x_like.tasks.examples import Example
from t5x_like.tasks.features import Featurizer, Rows

SEED = "dropout_seed"
WEIGHTS = "example_weights"


class Prediction(NamedTuple):
    """`value`: as tasks/metrics.py wants it. `shown`: for people and files."""

    value: Any
    shown: dict[str, Any]


class Fitting(Protocol):
    """A model and a task, joined."""

    @property
    def task(self) -> Task: ...

    @property
    def model(self) -> Any:
        """As training/step.py wants it."""
        ...

    @property
    def objective(self) -> Any:
        """Frozen, with `terms` and `loss`."""
        ...

    def rows(self, examples: Sequence[Example]) -> Rows:
        """Arrays of all examples."""
        ...

    def predict(
        self, params: Any, examples: Sequence[Example], rows: Rows, batch_size: int
    ) -> list[Prediction]:
        """One prediction an example."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskObjective:
    """The loss of a head: cross entropy; of a number, the squared error; of a span, the mean of both ends'.

    Every example has weight 1 (tagging: every word), and rows that only fill up a batch have weight 0
    (`example_weights`). Padding cannot be the end of a span.
    """

    kind: Kind

    @property
    def terms(self) -> dict[str, float]:
        """One loss."""
        return {"loss": 1.0}

    def loss(self, model: Any, params: Any, batch: dict[str, Array], rngs: Any) -> Losses:
        """Sums over the batch."""
        logits = model.apply(params, batch, seeded(batch, rngs))
        labels, weights = batch["labels"], batch[WEIGHTS]
        if self.kind == "regression":
            weight = jnp.sum(weights)
            return {"loss": (jnp.sum(weights * jnp.square(logits - labels)), weight)}
        if self.kind == "tagging":
            counted = weights[:, None] * (labels >= 0)
            return _parts(softmax_losses(logits, jnp.maximum(labels, 0), counted))
        if self.kind == "span":
            ends = masked_ends(logits, batch["encoder_input_tokens"] != model.pad_id)
            halves = jnp.broadcast_to(weights[:, None] / 2, labels.shape)
            return _parts(softmax_losses(ends, labels, halves))
        return _parts(softmax_losses(logits, labels, weights))


def _parts(losses: Losses) -> Losses:
    return {name: losses[name] for name in ("loss", "accuracy")}


def seeded(batch: dict[str, Array], rngs: Any) -> Any:
    """`rngs` with the batch's own seed folded in."""
    if rngs is None:
        return None
    return {"dropout": jax.random.fold_in(rngs["dropout"], batch[SEED][0])}


def masked_ends(logits: Float[Array, "B T 2"], real: Array) -> Float[Array, "B 2 T"]:
    """Logits of first and last place, with none at padding."""
    return jnp.where(real[:, None, :], logits.swapaxes(1, 2), -1e9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderFitting:
    """An encoder with a head.

    Attributes:
      null_threshold: of SQuAD 2.0, see `spans.search`; None where every question has an answer.
    """

    task: Task
    model: EncoderWithHead
    featurizer: Featurizer
    null_threshold: float | None = None

    @property
    def objective(self) -> TaskObjective:
        """By the kind of the task."""
        return TaskObjective(kind=self.task.kind)

    def rows(self, examples: Sequence[Example]) -> Rows:
        """See tasks/features.py."""
        return self.featurizer(examples)

    def predict(
        self, params: Any, examples: Sequence[Example], rows: Rows, batch_size: int
    ) -> list[Prediction]:
        """Labels with probabilities, numbers, tags, or the best answers."""
        logits = self.logits(params, rows, batch_size)
        task = self.task
        if task.kind == "regression":
            return [Prediction(float(x), {"prediction": round(float(x), 4)}) for x in logits]
        if task.kind == "span":
            assert rows.windows is not None
            found = spans.search(rows.windows, examples, logits, null_threshold=self.null_threshold)
            return [
                Prediction(best[0].text, {"prediction": best[0].text, "n_best": [list(a) for a in best[:5]]})
                for best in found
            ]
        if task.kind == "tagging":
            return [self._tags(e, row, at) for e, row, at in zip(examples, logits, rows.first_pieces)]
        names = task.labels or tuple(map(str, range(len(task.choices))))
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        shares = shifted / shifted.sum(1, keepdims=True)
        return [
            Prediction(
                int(row.argmax()),
                {
                    "prediction": names[int(row.argmax())],
                    "probabilities": {name: round(float(p), 4) for name, p in zip(names, row)},
                },
            )
            for row in shares
        ]

    def _tags(self, example: Example, logits: np.ndarray, places: np.ndarray) -> Prediction:
        """Words that were cut off are outside of everything."""
        outside = self.task.labels.index("O") if "O" in self.task.labels else 0
        tags = np.full(len(example.texts), outside)
        tags[: len(places)] = logits[places].argmax(-1)  # only whole words at the end are cut off
        return Prediction(tags.tolist(), {"prediction": [self.task.labels[i] for i in tags]})

    def logits(self, params: Any, rows: Rows, batch_size: int) -> np.ndarray:
        """Of all rows, float32; one compilation for a shape."""
        out = []
        for start in range(0, rows.count, batch_size):
            chosen = np.minimum(np.arange(start, start + batch_size), rows.count - 1)
            batch = {
                name: array[chosen] for name, array in rows.arrays.items() if name.startswith("encoder_")
            }
            out.append(_forward(self.model, params, batch))
        return np.concatenate([np.asarray(x) for x in out])[: rows.count]


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: EncoderWithHead, params: Any, batch: dict[str, Array]) -> Float[Array, "B ..."]:
    return model.apply(params, batch)


def same_length(rows: dict[str, Rows], fitting: Fitting) -> dict[str, Rows]:
    """All splits padded to the longest of them: one shape, one compilation."""
    pad = fitting.model.pad_id if isinstance(fitting, EncoderFitting) else 0
    padded: dict[str, dict[str, np.ndarray]] = {name: dict(part.arrays) for name, part in rows.items()}
    for name, first in rows["train"].arrays.items():
        if first.ndim == 1 or (name == "labels" and fitting.task.kind == "span"):
            continue
        longest = max(part.arrays[name].shape[-1] for part in rows.values())
        fill = {"labels": -1, "encoder_token_types": 0, "decoder_loss_weights": 0}.get(name, pad)
        for arrays in padded.values():
            missing = longest - arrays[name].shape[-1]
            arrays[name] = np.pad(
                arrays[name], [(0, 0)] * (first.ndim - 1) + [(0, missing)], constant_values=fill
            )
    found = {}
    for name, part in rows.items():
        windows = part.windows
        if windows is not None:
            missing = padded[name]["encoder_input_tokens"].shape[-1] - windows.columns.shape[1]
            columns = np.pad(windows.columns, [(0, 0), (0, missing)], constant_values=-1)
            windows = dataclasses.replace(windows, columns=columns)
        found[name] = dataclasses.replace(part, arrays=padded[name], windows=windows)
    return found
