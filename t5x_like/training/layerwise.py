"""Layer-wise learning-rate decay: the nearer a layer is to the input, the less fine-tuning moves it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from t5x_like.errors import UserError
from t5x_like.training.adafactor import Adafactor
from t5x_like.training.adam import AdamW, Lamb
from t5x_like.training.parameters import STACKED, path_of
from t5x_like.training.schedules import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerWise:
    """Another optimizer whose steps shrink by a factor `decay` a layer, from the head down to the embeddings.

    For an encoder of n layers the exponents of `decay` are:

                        head   layer n-1   layer i   layer 0   embeddings
        "electra"       0      2           n+1-i     n+1       n+2
        "plain"         0      1           n-i       n         n+1

    "electra" is what google-research/electra model/optimization.py does: no parameter has its depth n+1, so that the
    last layer already gets decay**2 (its issues 51 and 64). A projection of the embeddings belongs to them, a
    pooler and what predicts masked tokens to the head. Weight decay shrinks too, as it is part of the step.

    Attributes:
      optimizer: what makes the steps.
      decay: ELECTRA's are 0.8 (small, base) and 0.9 (large); 1 changes nothing.
      rule: see above.
    """

    optimizer: AdamW | Lamb | Adafactor = AdamW()
    decay: float = 0.8
    rule: Literal["electra", "plain"] = "electra"

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise UserError(
                f"decay is {self.decay}; it must be above 0 and at most 1", where="optimizer.decay"
            )

    def build(self, schedule: Schedule, axes: Any) -> optax.GradientTransformation:
        """The transformation.

        Raises:
          UserError: the parameters hold no stack of layers, or several.
        """
        _check_one_stack(axes)
        inner = self.optimizer.build(schedule, axes)

        def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            updates, state = inner.update(grads, state, params)
            return jax.tree.map(jnp.multiply, updates, self.factors(updates, axes)), state

        return optax.GradientTransformation(inner.init, update)  # type: ignore[arg-type]

    def state_axes(self, axes: Any, shapes: Any) -> Any:
        """Those of the optimizer inside."""
        return self.optimizer.state_axes(axes, shapes)

    def factors(self, params: Any, axes: Any) -> Any:
        """What each parameter's step is multiplied by: [] float32, of a scanned stack [L, 1, ...]."""
        found = jax.tree_util.tree_map_with_path(_layers, params, axes)
        top = max(jax.tree.leaves(found)) + (2 if self.rule == "electra" else 1)

        def factor(keys: Any, p: Array, names: tuple[str | None, ...]) -> Array:
            path = path_of(keys)
            depth = top if not _EMBEDDINGS.search(path) else 0
            if layer := _LAYER.search(path):
                depth = int(layer[1]) + 1 if layer[1] else np.arange(1, _layers(keys, p, names) + 1)
            shape = [-1 if name == STACKED else 1 for name in names] if np.ndim(depth) else []
            return jnp.reshape(jnp.float32(self.decay) ** (top - depth), shape)

        return jax.tree_util.tree_map_with_path(factor, params, axes)


_LAYER = re.compile(r"(?:^|/)layers(?:_(\d+))?/")
_EMBEDDINGS = re.compile(r"(?:^|/)(?:embeddings|projection)/")


def _layers(keys: Any, p: Array, names: tuple[str | None, ...]) -> int:
    """The number of layers that this parameter proves; 0 outside the stack."""
    layer = _LAYER.search(path_of(keys))
    if layer is None:
        return 0
    return int(layer[1]) + 1 if layer[1] else p.shape[names.index(STACKED)]


def _check_one_stack(axes: Any) -> None:
    """Raises `UserError` unless all layers belong to one stack."""
    paths = [
        path_of(keys)
        for keys, _ in jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda x: isinstance(x, tuple))[0]
    ]
    stacks = sorted({path[: layer.start()] for path in paths if (layer := _LAYER.search(path))})
    if len(stacks) != 1:
        there = f"{len(stacks)}: " + ", ".join(stacks) if stacks else "none"
        raise UserError(
            f"LayerWise counts the layers of one stack; this model has {there}",
            where="optimizer",
            help="an optimizer without LayerWise, or an encoder with a head",
        )
