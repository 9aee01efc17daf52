"""The modules of the post-LN encoder: embeddings, layers, and the two pretraining heads.

`models/encoder.py` holds their configuration and calls them. Sources: google-research/bert `modeling.py`,
google-research/electra `model/modeling.py`, facebookresearch/fairseq `fairseq/models/roberta/model.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.models import stack
from t5x_like.models.attention import Visible
from t5x_like.models.dropout import Seed, dropout, fold
from t5x_like.models.layers import (
    ACTIVATIONS,
    MLP,
    Attention,
    Dense,
    Embedding,
    Initializer,
    LayerNorm,
    parameter,
)
from t5x_like.models.products import add_to_rows
from t5x_like.models.sharding import constrain

if TYPE_CHECKING:
    from t5x_like.models.encoder import Encoder

F32 = jnp.dtype("float32")

GELUS: dict[str, Literal["relu", "gelu", "gelu_exact"]] = {
    "relu": "relu",
    "gelu": "gelu_exact",
    "gelu_tanh": "gelu",
}
"""`Encoder.activation` (Hugging Face's names) -> the name in `layers.ACTIVATIONS`."""


def normal(c: Encoder) -> Initializer:
    """N(0, stddev), or cut at two stddev and not rescaled, as TensorFlow's `truncated_normal_initializer`."""
    if c.truncated_init:
        return nn.initializers.truncated_normal(c.stddev)
    return nn.initializers.normal(c.stddev)


def _with_zero_row(init: Initializer, row: int | None) -> Initializer:
    if row is None:
        return init
    return lambda *arguments: init(*arguments).at[row].set(0.0)


def sinusoids(stddev: float) -> Initializer:
    """Sines in the first half of the columns, cosines in the second, wavelengths from 2 pi to 20,000 pi (Vaswani et al.
    2017, section 3.5), times sqrt(2) * stddev."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = F32) -> Array:
        del key
        rows, width = shape
        half = -(-width // 2)
        angles = jnp.arange(rows)[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)[:, :width]
        return (2**0.5 * stddev * waves).astype(dtype)

    return init


def _norm(c: Encoder) -> LayerNorm:
    return LayerNorm(jnp.dtype(c.dtype), c.eps)


class Embeddings(nn.Module):
    """Word, position and token-type tables of width E, summed and normalised: what ELECTRA's networks share."""

    config: Encoder

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        pad_row, pad_position = (c.pad_id, c.position_offset - 1) if c.zero_pad_rows else (None, None)
        init = normal(c)
        width = c.embedding_width
        self.word = Embedding(c.vocab_size, width, dtype, _with_zero_row(init, pad_row))
        places = init if c.position_init == "normal" else sinusoids(c.stddev)
        self.position = Embedding(
            c.max_positions, width, dtype, _with_zero_row(places, pad_position), ("positions", "embed")
        )
        if c.token_types:
            self.token_type = Embedding(c.token_types, width, dtype, init, ("token_types", "embed"))
        self.norm = _norm(c)

    def __call__(self, tokens: Int[Array, "B T"], token_types: Int[Array, "B T"] | None) -> Array:
        c, length = self.config, tokens.shape[1]
        x = self.word(tokens)
        if c.position_offset == 0:
            rows = self.position.embedding[:length].astype(x.dtype)
            x = add_to_rows(x, rows[None])
        else:
            # Real tokens count from the offset; padding, wherever it stands, has the row before it (fairseq
            # `make_positions`).
            real = (tokens != c.pad_id).astype(jnp.int32)
            x = x + self.position(jnp.cumsum(real, axis=1) * real + (c.position_offset - 1))
        if c.token_types == 1 or (c.token_types and token_types is None):
            x = x + self.token_type.embedding[0].astype(x.dtype)
        elif c.token_types:
            # So few rows are a product (bert `embedding_postprocessor`): its gradient is one too, not a scatter of
            # every token into two rows.
            table = self.token_type.embedding.astype(x.dtype)
            x = x + jnp.matmul(
                jax.nn.one_hot(token_types, c.token_types, dtype=x.dtype),
                table,
                precision=jax.lax.Precision.HIGHEST,
            )
        return self.norm(x)


class EncoderLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + MLP(x)); dropout before each sum and on the probabilities."""

    config: Encoder

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.attention = Attention(
            num_heads=c.num_heads,
            head_dim=c.head_dim,
            features=c.hidden_size,
            dtype=dtype,
            logits_scale=c.head_dim**-0.5,
            use_bias=True,
            kernel_init=normal(c),
            dropout_rate=c.attention_dropout,
            dropout_broadcast=False,
            implementation=c.attention,
            remat=c.remat == "attention",
        )
        self.attention_norm = _norm(c)
        self.mlp = MLP(
            hidden=c.d_ff,
            features=c.hidden_size,
            activation=GELUS[c.activation],
            gated=False,
            dtype=dtype,
            use_bias=True,
            kernel_init=normal(c),
        )
        self.mlp_norm = _norm(c)

    def __call__(
        self, x: Float[Array, "B T D"], seed: Seed | None, visible: Visible
    ) -> tuple[Float[Array, "B T D"], None]:
        rate = self.config.dropout
        y = self.attention(x, visible=visible, seed=fold(seed, 0))
        x = self.attention_norm(x + dropout(y, fold(seed, 1), rate))
        x = self.mlp_norm(x + dropout(self.mlp(x), fold(seed, 2), rate))
        return constrain(x, "batch", "length", "embed"), None


class MaskedLMHead(nn.Module):
    """dense to E, activation, LN: what is multiplied with the word table; and the bias of the logits."""

    config: Encoder

    @nn.compact
    def __call__(self, x: Float[Array, "B K D"]) -> tuple[Float[Array, "B K E"], Float[Array, " V"]]:
        c = self.config
        dense = Dense(
            c.embedding_width,
            ("embed", "embedding"),
            normal(c),
            jnp.dtype(c.dtype),
            use_bias=True,
            name="dense",
        )
        x = LayerNorm(jnp.dtype(c.dtype), c.eps, name="norm")(ACTIVATIONS[GELUS[c.activation]](dense(x)))
        return x, parameter(self, "bias", nn.initializers.zeros, (c.vocab_size,), ("vocab",))


class TokenScore(nn.Module):
    """One number a token: activation(x dense) out, ELECTRA's detector; only the output kernel is Glorot-uniform
    (electra/run_pretraining.py `_get_discriminator_output`)."""

    config: Encoder

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = Dense(c.hidden_size, ("embed", "mlp"), normal(c), dtype, use_bias=True, name="dense")(x)
        x = ACTIVATIONS[GELUS[c.activation]](x)
        glorot = nn.initializers.glorot_uniform()
        return Dense(1, ("mlp", "classes"), glorot, dtype, F32, use_bias=True, name="out")(x)[..., 0]


class EncoderNetwork(nn.Module):
    """Embeddings, stack and heads; `Encoder` calls its methods."""

    config: Encoder

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.embeddings = Embeddings(c)
        if c.embedding_width != c.hidden_size:
            init = nn.initializers.glorot_uniform() if c.glorot_projection else normal(c)
            self.projection = Dense(c.hidden_size, ("embedding", "embed"), init, dtype, use_bias=True)
        self.layers: Any = stack.make_layers(
            EncoderLayer,
            {"config": c},
            number=c.num_layers,
            scan=c.scan_layers,
            full_remat=c.remat == "full",
        )
        if c.pooler == "tanh":
            self.pooler = Dense(c.hidden_size, ("embed", "pooled"), normal(c), dtype, use_bias=True)
        if c.mlm_head:
            self.mlm = MaskedLMHead(c)
        if c.pair_head:
            self.pair = Dense(2, ("pooled", "classes"), normal(c), dtype, F32, use_bias=True)

    def __call__(self, tokens: Int[Array, "B T"]) -> tuple[Array, ...]:
        """Touches every parameter, for `init`."""
        c = self.config
        hidden = self.encode(tokens, None, None)
        out = [hidden]
        if c.mlm_head:
            out.append(self.mlm_logits(hidden))
        if c.pooler == "tanh":
            out.append(self.pooled(hidden))
        if c.pair_head:
            out.append(self.pair_logits(self.pooled(hidden)))
        return tuple(out)

    def encode(
        self, tokens: Int[Array, "B T"], token_types: Int[Array, "B T"] | None, seed: Seed | None
    ) -> Float[Array, "B T D"]:
        c = self.config
        x = dropout(self.embeddings(tokens, token_types), fold(seed, 0), c.dropout)
        x = constrain(x, "batch", "length", "embed")
        if c.embedding_width != c.hidden_size:
            x = constrain(self.projection(x), "batch", "length", "embed")
        visible = Visible(mask=(tokens != c.pad_id)[:, None, None, :])
        return stack.run_layers(self.layers, x, fold(seed, 1), visible, number=c.num_layers)

    def mlm_logits(self, hidden: Float[Array, "B K D"]) -> Float[Array, "B K V"]:
        hidden, bias = self.mlm(hidden)
        return constrain(self.embeddings.word.attend(hidden) + bias, "batch", "length", "vocab")

    def pooled(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        first = hidden[:, 0]
        return jnp.tanh(self.pooler(first)) if self.config.pooler == "tanh" else first

    def pair_logits(self, pooled: Float[Array, "B D"]) -> Float[Array, "B 2"]:
        return self.pair(pooled)
