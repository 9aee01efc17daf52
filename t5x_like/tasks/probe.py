"""Linear probes: what a pretrained encoder knows of a task before anything in it is trained.

Hidden states of the last layer, frozen, become one vector a text; a linear model on standardised vectors is all that
is fitted: softmax regression (L-BFGS) or, for a number, ridge regression. The strength of its L2 penalty is chosen
on a part of the training examples, and the model is fitted again to all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int64
from scipy import optimize, special

from t5x_like.data import counter
from t5x_like.data.permutation import permute
from t5x_like.errors import UserError
from t5x_like.models.encoder import Encoder
from t5x_like.models.t5 import T5
from t5x_like.tasks import definitions, metrics
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example
from t5x_like.tasks.features import Featurizer
from t5x_like.tasks.pretrained import Pretrained
from t5x_like.tasks.reading import read_splits
from t5x_like.tasks.text_fitting import TextFitting

Pooling = Literal["mean", "first", "both"]
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""From strong to weak: each fit begins where the one before ended."""
CHOOSING = 0.2
"""Share of the training examples that the penalty is chosen on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """One seed: the task's metrics on the test split (validation where there is none), and the chosen penalty."""

    seed: int
    metrics: dict[str, float]
    penalty: float
    seconds: float


def linear_probe(
    model: Pretrained,
    task: Task,
    data: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_examples: int = 8000,
    length: int = 128,
    batch_size: int = 64,
    pooling: Pooling = "mean",
    say: Callable[[str], None] = print,
) -> list[ProbeResult]:
    """Probes an encoder (of ELECTRA the discriminator, of T5 the encoder's stack), one result a seed.

    Args:
      model: without parameters, random ones of seed 0.
      task: of kind classification or regression.
      data: folder of the task's files.
      seeds: each draws its own training examples, and its own part to choose the penalty on.
      max_examples: most that are fitted, and most that are judged (the same ones for all seeds).
      length, batch_size: of the forward passes.
      pooling: the mean over all places that are not padding, the first place, or both side by side.

    Raises:
      UserError: a task of another kind, or data that cannot be read.
    """
    if task.kind not in ("classification", "regression"):
        raise UserError(
            f"a linear probe is for classification and regression; {task.name} is {task.kind}", where="task"
        )
    definitions.check(task)
    task, splits = read_splits(task, data, say=say)
    judged = list(splits.test or splits.validation)
    pool = [*splits.train, *(splits.validation if splits.test is not None and splits.held_out else ())]
    judged = _drawn(judged, max_examples, counter.seed_key(0, "probe", "judged"))
    begun = time.perf_counter()
    params = model.model.init(jax.random.key(0)) if model.params is None else model.params
    drawn = {
        seed: permute(np.arange(min(max_examples, len(pool))), len(pool), counter.seed_key(seed, "probe"))
        for seed in seeds
    }
    used = np.unique(np.concatenate(list(drawn.values())))
    encode = functools.partial(
        vectors, model, params, task, length=length, batch_size=batch_size, pooling=pooling
    )
    of_pool, of_judged = encode([pool[i] for i in used]), encode(judged)
    shared = (time.perf_counter() - begun) / len(seeds)
    labels = np.array([pool[i].label for i in used])
    found = []
    for seed in seeds:
        begun = time.perf_counter()
        chosen = np.searchsorted(used, drawn[seed])
        predictions, penalty = _probed(task, of_pool[chosen], labels[chosen], of_judged)
        values = metrics.compute(task, judged, predictions)
        seconds = shared + time.perf_counter() - begun
        found.append(ProbeResult(seed=seed, metrics=values, penalty=penalty, seconds=seconds))
    return found


def _drawn(examples: list[Example], count: int, key: Any) -> list[Example]:
    if len(examples) <= count:
        return examples
    return [examples[i] for i in permute(np.arange(count), len(examples), key)]


# ---- vectors -------------------------------------------------------------------------------------


def vectors(
    model: Pretrained,
    params: Any,
    task: Task,
    examples: Sequence[Example],
    *,
    length: int = 128,
    batch_size: int = 64,
    pooling: Pooling = "mean",
) -> Float64[np.ndarray, "N D"]:
    """One vector an example: the last layer's states, pooled. `both` gives 2 D numbers."""
    if isinstance(model.model, Encoder):
        featurizer = Featurizer(
            task=task,
            tokenizer=model.tokenizer,
            length=min(length, model.model.max_length),
            double_separator=model.model.double_separator,
        )
        featurizer.check()
        arrays = featurizer(examples).arrays
        tokens, types = arrays["encoder_input_tokens"], arrays["encoder_token_types"]
    else:
        fitting = TextFitting(
            task=task, model=model.model, tokenizer=model.tokenizer, length=length, target_length=2
        )
        tokens = fitting.rows(examples).arrays["encoder_input_tokens"]
        types = None
    out = []
    for start in range(0, len(tokens), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(tokens) - 1)
        out.append(
            _pooled(model.model, params, tokens[rows], None if types is None else types[rows], pooling)
        )
    return np.concatenate([np.asarray(x, np.float64) for x in out])[: len(tokens)]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _pooled(
    model: Encoder | T5, params: Any, tokens: Array, types: Array | None, pooling: Pooling
) -> Float[Array, "B D"]:
    if isinstance(model, Encoder):
        hidden = model.encode(params, tokens, types)
        real = tokens != model.pad_id
    else:
        hidden, real = model.encode(params, tokens), tokens != 0
    hidden = hidden.astype(jnp.float32)
    mean = jnp.einsum("btd,bt->bd", hidden, real.astype(jnp.float32)) / jnp.sum(real, 1, keepdims=True)
    first = hidden[:, 0]
    return {"mean": mean, "first": first}.get(pooling, jnp.concatenate([mean, first], axis=1))


# ---- linear models -------------------------------------------------------------------------------


def _probed(
    task: Task, x: Float64[np.ndarray, "N D"], y: np.ndarray, judged: Float64[np.ndarray, "M D"]
) -> tuple[np.ndarray, float]:
    """Predictions for `judged`, and the penalty that was chosen."""
    center, scale = x.mean(0), x.std(0) + 1e-6
    x, judged = (x - center) / scale, (judged - center) / scale
    fit = _ridge if task.kind == "regression" else functools.partial(_softmax, len(task.labels))
    count = max(1, round(len(x) * CHOOSING))
    chosen_on = [Example("", (), label) for label in y[:count].tolist()]
    scores = {}
    for penalty, predict in fit(x[count:], y[count:], PENALTIES):
        scores[penalty] = metrics.compute(task, chosen_on, predict(x[:count]))[task.metric]
    best = max(scores, key=lambda p: -scores[p] if task.metric in metrics.LOWER_IS_BETTER else scores[p])
    (_, predict) = fit(x, y, [best])[0]
    return predict(judged), best


Fitted = list[tuple[float, Callable[[np.ndarray], np.ndarray]]]


def _softmax(
    count: int, x: Float64[np.ndarray, "N D"], y: Int64[np.ndarray, "N"], penalties: Sequence[float]
) -> Fitted:
    """Multinomial logistic regression: mean negative log-likelihood + penalty / 2 * |W|^2, intercepts free."""
    size = x.shape[1]
    wanted = np.eye(count)[y]
    weights, found = np.zeros((size + 1, count)), []

    def loss(flat: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        w = flat.reshape(size + 1, count)
        logits = x @ w[:-1] + w[-1]
        error = special.softmax(logits, axis=1) - wanted
        value = (special.logsumexp(logits, axis=1) - (logits * wanted).sum(1)).mean()
        gradient = np.concatenate([x.T @ error / len(x) + penalty * w[:-1], error.mean(0, keepdims=True)])
        return float(value + penalty / 2 * np.sum(w[:-1] ** 2)), gradient.ravel()

    for penalty in penalties:
        best = optimize.minimize(
            loss, weights.ravel(), (penalty,), method="L-BFGS-B", jac=True, options={"maxiter": 300}
        )
        weights = best.x.reshape(size + 1, count)
        found.append((penalty, functools.partial(_most_likely, weights)))
    return found


def _most_likely(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.argmax(x @ weights[:-1] + weights[-1], axis=1)


def _ridge(x: Float64[np.ndarray, "N D"], y: np.ndarray, penalties: Sequence[float]) -> Fitted:
    """Least squares: mean squared error + penalty * |w|^2, the intercept free."""
    middle, center = y.mean(), x.mean(0)
    z = x - center
    gram, right = z.T @ z / len(x), z.T @ (y - middle) / len(x)
    found = []
    for penalty in penalties:
        w = np.linalg.solve(gram + penalty * np.eye(len(gram)), right)
        found.append((penalty, functools.partial(_line, w, middle - center @ w)))
    return found


def _line(w: np.ndarray, intercept: float, x: np.ndarray) -> np.ndarray:
    return x @ w + intercept
