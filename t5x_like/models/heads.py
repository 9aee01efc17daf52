"""An encoder with a head for a labelled task, as BERT, RoBERTa and ELECTRA fine-tune.

    head            what it reads         logits           labels
    classification  the pooled state      [B, num_labels]  one of num_labels
    regression      the pooled state      [B]              a number
    tagging         every state           [B, T, labels]   one of num_labels a token
    span            every state           [B, T, 2]        first and last token of an answer
    choice          the pooled state      [B, C]           one of C rows of tokens

What stands between the states and the output is the `style`, a family's published code or what Hugging Face has in
its place. h0 is the first hidden state, p BERT's pooled state tanh(dense(h0)), / a dropout:

    style       classification, regression  tagging  span     choice               source
    bert        p / out                     h / out  h out    p / out              bert `run_classifier.py`, `BertFor*`
    roberta     h0 / dense tanh / out       h / out  h out    p / out              fairseq `RobertaClassificationHead`,
                                                                                   `RobertaFor*`
    electra     h0 / out                    h out    h out    h0 / out             electra `finetune/`
    electra-hf  h0 / dense gelu / out       h / out  h out    h0 dense gelu / out  `ElectraFor*`

Kernels start as the encoder's, but in style "electra" Glorot-uniform (`tf.layers.dense` there); biases at zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t5x_like.errors import UserError
from t5x_like.models import family
from t5x_like.models.dropout import Seed, dropout, fold, seed_of
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_network import F32, normal
from t5x_like.models.family import Boxed, Params, Rngs, require, require_range
from t5x_like.models.layers import ACTIVATIONS, Dense

Head = Literal["classification", "regression", "tagging", "span", "choice"]
Style = Literal["bert", "roberta", "electra", "electra-hf"]

MOST_LABELS = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderWithHead(family.Initialised):
    """An encoder and a task's head: configuration and pure functions of parameters in one.

    Parameters: {"encoder": as models/encoder.py has them for `backbone`, "head": {"dense"?, "out"}}, each a kernel and
    a bias.

    Attributes:
      encoder: as pretrained; its pretraining heads are left off.
      head, style: see the module's tables.
      num_labels: of classification (2 or more) and tagging; 1 for regression; span and choice do not look at it.
      dropout: of the head.
    """

    kind: ClassVar[str] = "encoder-with-head"

    encoder: Encoder
    head: Head
    num_labels: int = 1
    style: Style = "bert"
    dropout: float = 0.1

    @property
    def backbone(self) -> Encoder:
        """The encoder as the head uses it: no pretraining heads; BERT's pooler where the style reads it, else none."""
        return dataclasses.replace(
            self.encoder, mlm_head=False, pair_head=False, pooler="tanh" if self._pools else "none"
        )

    @property
    def outputs(self) -> int:
        """Numbers that the last layer gives for each state that it reads."""
        return {"regression": 1, "choice": 1, "span": 2}.get(self.head, self.num_labels)

    @property
    def vocab_size(self) -> int:
        return self.encoder.vocab_size

    @property
    def pad_id(self) -> int:
        return self.encoder.pad_id

    @property
    def max_length(self) -> int:
        """The longest row of tokens, special tokens and padding included."""
        return self.encoder.max_length

    @property
    def _pools(self) -> bool:
        """Whether the head reads BERT's pooled state."""
        if self.head in ("tagging", "span"):
            return False
        return self.style == "bert" or (self.style == "roberta" and self.head == "choice")

    @property
    def _inner(self) -> Literal["tanh", "gelu"] | None:
        """The activation of the dense layer before the output; None: no such layer."""
        if self.head in ("tagging", "span"):
            return None
        if self.style == "roberta":
            return None if self.head == "choice" else "tanh"
        return "gelu" if self.style == "electra-hf" else None

    def check(self) -> None:
        """Raises `UserError` for sizes and combinations that cannot run on this machine."""
        try:
            self.backbone.check()
        except UserError as e:
            raise family.inside(e, "encoder") from None
        require(0.0 <= self.dropout < 1.0, "dropout", f"must lie in [0, 1), not {self.dropout}")
        if self.head == "classification":
            require_range("num_labels", self.num_labels, 2, MOST_LABELS)
        elif self.head == "tagging":
            require_range("num_labels", self.num_labels, 1, MOST_LABELS)
        elif self.head == "regression":
            require_range("num_labels", self.num_labels, 1, 1)

    # Parameters

    def boxed(self, key: jax.Array) -> Boxed:
        """See `Initialised.boxed`."""
        of_encoder, of_head = jax.random.split(key)
        state = jnp.zeros((1, self.encoder.hidden_size))
        return {
            "encoder": self.backbone.boxed(of_encoder),
            "head": dict(HeadLayers(self).init(of_head, state)["params"]),
        }

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        d = self.encoder.hidden_size
        inner = 0 if self._inner is None else d * d + d
        return self.backbone.num_params() + inner + (d + 1) * self.outputs

    def with_encoder(self, params: Params, encoder_params: Params) -> Params:
        """`params` with the encoder's taken from a pretrained tree of `encoder`, whose heads are left behind. A pooler
        that it lacks keeps its random values. Raises `UserError` where anything else is missing or of another shape."""
        taken = {}
        for name, expected in self.backbone.abstract_params().items():
            if name == "pooler" and name not in encoder_params:
                taken[name] = params["encoder"][name]
                continue
            if name not in encoder_params:
                raise UserError(
                    f"the pretrained parameters have no {name!r}; they hold {', '.join(sorted(encoder_params))}",
                    where="model.encoder",
                    help="the encoder must be the one that was pretrained, scan_layers included",
                )
            taken[name] = encoder_params[name]
            _same_shapes(name, expected, taken[name])
        return {**params, "encoder": taken}

    def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
        """Floating point operations of the matrix products of one example's forward pass.

        Args:
          shapes: of one row of each feature: `encoder_input_tokens` (T,), or (C, T) for choice.
        """
        *choices, length = shapes["encoder_input_tokens"]
        rows, d = (choices[0] if choices else 1), self.encoder.hidden_size
        places = length if self.head in ("tagging", "span") else 1
        one = self.backbone.flops({"encoder_input_tokens": (length,)}) + places * 2 * d * self.outputs
        one += 2 * d * d if self._pools else 0
        one += 2 * d * d if self._inner is not None else 0
        return float(rows * one)

    # Forward

    def apply(self, params: Params, batch: dict[str, Array], rngs: Rngs | None = None) -> Float[Array, "..."]:
        """Logits, float32, of the shape in the module's table. Nothing is masked: padding has logits too.

        Args:
          params: as from `init`.
          batch: `encoder_input_tokens` and perhaps `encoder_token_types`, [B, T], or [B, C, T] for choice.
          rngs: {"dropout": key}, or None for no dropout.
        """
        tokens, types = batch["encoder_input_tokens"], batch.get("encoder_token_types")
        leading = tokens.shape[:-1]
        if len(leading) != (2 if self.head == "choice" else 1):
            shape = "[B, C, T]" if self.head == "choice" else "[B, T]"
            raise ValueError(
                f"encoder_input_tokens of the head {self.head!r} are {shape}, not {tokens.shape}"
            )
        tokens = tokens.reshape(-1, tokens.shape[-1])
        types = None if types is None else types.reshape(tokens.shape)
        seed, model = seed_of(rngs), self.backbone
        x = model.encode_seeded(params["encoder"], tokens, types, fold(seed, 0))
        if self._pools:
            x = model.pooled(params["encoder"], x)
        elif self.head not in ("tagging", "span"):
            x = x[:, 0]
        logits: Any = HeadLayers(self).apply({"params": params["head"]}, x, fold(seed, 1))
        if self.head == "regression":
            return logits[:, 0]
        return logits.reshape(leading) if self.head == "choice" else logits


class HeadLayers(nn.Module):
    """The layers after the encoder and its pooler."""

    config: EncoderWithHead

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"], seed: Seed | None = None) -> Float[Array, "*B O"]:
        c, encoder = self.config, self.config.encoder
        dtype = jnp.dtype(encoder.dtype)
        official = c.style == "electra"
        init = nn.initializers.glorot_uniform() if official else normal(encoder)
        # Hugging Face's ELECTRA summarises a choice without a dropout before the dense layer.
        if c._inner is not None and not (c.style == "electra-hf" and c.head == "choice"):
            x = dropout(x, fold(seed, 0), c.dropout)
        if c._inner is not None:
            x = Dense(encoder.hidden_size, ("embed", "mlp"), init, dtype, use_bias=True, name="dense")(x)
            x = jnp.tanh(x) if c._inner == "tanh" else ACTIVATIONS["gelu_exact"](x)
        if c.head != "span" and not (official and c.head == "tagging"):
            x = dropout(x, fold(seed, 1), c.dropout)
        return Dense(c.outputs, ("mlp", "classes"), init, dtype, F32, use_bias=True, name="out")(x)


def _same_shapes(name: str, expected: Any, found: Any) -> None:
    shapes = [jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (expected, found)]
    wanted, given = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
        for leaves in shapes
    )
    for path in sorted(wanted.keys() | given.keys()):
        if wanted.get(path) != given.get(path):
            raise UserError(
                f"the pretrained {name}/{path} has the shape {given.get(path, 'none')}, and the encoder "
                f"{wanted.get(path, 'none')}",
                where="model.encoder",
                help="the encoder must be the one that was pretrained",
            )
