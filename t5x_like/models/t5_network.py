"""The modules of T5, in the order of the paper's figure: layers, encoder, decoder, both around one embedding.

`models/t5.py` holds their configuration and calls them; sources are named there.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.models import stack
from t5x_like.models.attention import Visible
from t5x_like.models.dropout import Seed, dropout, fold
from t5x_like.models.layers import MLP, Attention, Dense, Embedding, RelativeBias, RMSNorm, fan_in_truncated
from t5x_like.models.sharding import constrain

if TYPE_CHECKING:
    from t5x_like.models.t5 import T5

Cache = dict[str, Any]


def _norm(c: T5) -> RMSNorm:
    return RMSNorm(jnp.dtype(c.dtype), c.eps)


def _attention(c: T5) -> Attention:
    return Attention(
        num_heads=c.num_heads,
        head_dim=c.d_kv,
        features=c.d_model,
        dtype=jnp.dtype(c.dtype),
        query_scale=1.0 / c.d_kv,
        dropout_rate=c.dropout,
        dropout_broadcast=c.dropout_broadcast,
        implementation=c.attention,
        remat=c.remat == "attention",
    )


def _mlp(c: T5) -> MLP:
    return MLP(
        hidden=c.d_ff,
        features=c.d_model,
        activation=c.activation,
        gated=c.gated,
        dtype=jnp.dtype(c.dtype),
        dropout_rate=c.dropout,
        dropout_broadcast=c.dropout_broadcast,
    )


def _relative_bias(c: T5, *, bidirectional: bool) -> RelativeBias:
    return RelativeBias(
        num_heads=c.num_heads,
        bidirectional=bidirectional,
        buckets=c.relative_buckets,
        max_distance=c.relative_max_distance,
    )


def _layers(c: T5, layer: type[nn.Module], number: int) -> Any:
    return stack.make_layers(
        layer, {"config": c}, number=number, scan=c.scan_layers, full_remat=c.remat == "full"
    )


def _drop(
    c: T5, x: Float[Array, "B T D"], seed: Seed | None, *, whole: bool = False
) -> Float[Array, "B T D"]:
    """Dropout of a hidden state, one mask along the length unless the configuration or `whole` says otherwise."""
    return dropout(x, seed, c.dropout, broadcast=1 if c.dropout_broadcast and not whole else None)


class _EncoderLayer(nn.Module):
    config: T5

    def setup(self) -> None:
        c = self.config
        self.pre_attention_layer_norm, self.attention = _norm(c), _attention(c)
        self.pre_mlp_layer_norm, self.mlp = _norm(c), _mlp(c)

    def __call__(
        self, x: Float[Array, "B S D"], seed: Seed | None, shared: tuple[Array, Visible]
    ) -> tuple[Float[Array, "B S D"], None]:
        c, (bias, visible) = self.config, shared
        y = self.attention(self.pre_attention_layer_norm(x), bias=bias, visible=visible, seed=fold(seed, 0))
        x = x + _drop(c, y, fold(seed, 1))
        y = self.mlp(self.pre_mlp_layer_norm(x), fold(seed, 2))
        x = x + _drop(c, y, fold(seed, 3))
        return constrain(x, "batch", "length", "embed"), None


class _DecoderLayer(nn.Module):
    config: T5

    def setup(self) -> None:
        c = self.config
        self.pre_self_attention_layer_norm, self.self_attention = _norm(c), _attention(c)
        self.pre_cross_attention_layer_norm, self.encoder_decoder_attention = _norm(c), _attention(c)
        self.pre_mlp_layer_norm, self.mlp = _norm(c), _mlp(c)

    def __call__(
        self, x: Float[Array, "B T D"], seed: Seed | None, shared: tuple[Array, Array, Visible, Visible]
    ) -> tuple[Float[Array, "B T D"], None]:
        c, (encoded, bias, visible, visible_source) = self.config, shared
        y = self.pre_self_attention_layer_norm(x)
        y = self.self_attention(y, bias=bias, visible=visible, seed=fold(seed, 0))
        x = x + _drop(c, y, fold(seed, 1))
        y = self.pre_cross_attention_layer_norm(x)
        y = self.encoder_decoder_attention(y, encoded, visible=visible_source, seed=fold(seed, 2))
        x = x + _drop(c, y, fold(seed, 3))
        y = self.mlp(self.pre_mlp_layer_norm(x), fold(seed, 4))
        x = x + _drop(c, y, fold(seed, 5))
        return constrain(x, "batch", "length", "embed"), None

    def cross_keys(self, encoded: Float[Array, "B S D"]) -> dict[str, Array]:
        key, value = self.encoder_decoder_attention.keys(encoded)
        return {"key": key, "value": value}

    def step(
        self,
        x: Float[Array, "B 1 D"],
        own: dict[str, Array],
        cross: dict[str, Array],
        index: Int[Array, " B"],
        shared: tuple[Array, Visible, Visible],
    ) -> tuple[Float[Array, "B 1 D"], dict[str, Array]]:
        """One position: `own` is the layer's cache of past keys and values, returned with this one's at `index`."""
        bias, visible, visible_source = shared
        y = self.pre_self_attention_layer_norm(x)
        key, value = self.self_attention.keys(y)
        own = {"key": _put(own["key"], key, index), "value": _put(own["value"], value, index)}
        x = x + self.self_attention.over(y, own["key"], own["value"], bias=bias, visible=visible)
        y = self.pre_cross_attention_layer_norm(x)
        x = x + self.encoder_decoder_attention.over(y, cross["key"], cross["value"], visible=visible_source)
        return x + self.mlp(self.pre_mlp_layer_norm(x)), own


def _put(
    cache: Float[Array, "B N M H"], new: Float[Array, "B N 1 H"], index: Int[Array, " B"]
) -> Float[Array, "B N M H"]:
    """`cache` with each row's `new` at that row's index of the length axis."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1))(cache, new, index)


class _Encoder(nn.Module):
    config: T5

    def setup(self) -> None:
        c = self.config
        self.relpos_bias = _relative_bias(c, bidirectional=True)
        self.layers = _layers(c, _EncoderLayer, c.encoder_layers)
        self.encoder_norm = _norm(c)

    def __call__(
        self, x: Float[Array, "B S D"], visible: Visible, seed: Seed | None
    ) -> Float[Array, "B S D"]:
        c, length = self.config, x.shape[1]
        x = constrain(_drop(c, x, fold(seed, 0)), "batch", "length", "embed")
        shared = (self.relpos_bias(length, length), visible)
        x = stack.run_layers(self.layers, x, fold(seed, 1), shared, number=c.encoder_layers)
        # The one dropout whose mask T5X draws for every position (t5x/examples/t5/network.py, Encoder).
        return _drop(c, self.encoder_norm(x), fold(seed, 2), whole=True)


class _Decoder(nn.Module):
    config: T5

    def setup(self) -> None:
        c = self.config
        self.relpos_bias = _relative_bias(c, bidirectional=False)
        self.layers = _layers(c, _DecoderLayer, c.decoder_layers)
        self.decoder_norm = _norm(c)
        if not c.tie_embeddings:
            self.logits_dense = Dense(
                c.vocab_size, ("embed", "vocab"), fan_in_truncated(), jnp.dtype(c.dtype), jnp.dtype("float32")
            )

    def __call__(
        self,
        x: Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        visible: Visible,
        visible_source: Visible,
        seed: Seed | None,
    ) -> Float[Array, "B T D"]:
        c, length = self.config, x.shape[1]
        x = constrain(_drop(c, x, fold(seed, 0)), "batch", "length", "embed")
        shared = (encoded, self.relpos_bias(length, length), visible, visible_source)
        x = stack.run_layers(self.layers, x, fold(seed, 1), shared, number=c.decoder_layers)
        return _drop(c, self.decoder_norm(x), fold(seed, 2))

    def cross_keys(self, encoded: Float[Array, "B S D"]) -> dict[str, dict[str, Array]]:
        return {f"layers_{i}": layer.cross_keys(encoded) for i, layer in enumerate(self.layers)}

    def step(self, x: Float[Array, "B 1 D"], cache: Cache) -> tuple[Float[Array, "B 1 D"], Cache]:
        index, length = cache["index"], cache["self"]["layers_0"]["key"].shape[2]
        seen = jnp.arange(length) <= index[:, None]
        shared = (
            self.relpos_bias.row(index, length),
            Visible(mask=seen[:, None, None, :]),
            Visible(mask=cache["encoder_mask"][:, None, None, :]),
        )
        own = {}
        for i, layer in enumerate(self.layers):
            name = f"layers_{i}"
            x, own[name] = layer.step(x, cache["self"][name], cache["cross"][name], index, shared)
        return self.decoder_norm(x), {**cache, "self": own, "index": index + 1}

    def output(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.logits_dense(x)


class Transformer(nn.Module):
    """Both stacks around the shared embedding; `T5` calls its methods."""

    config: T5

    def setup(self) -> None:
        c = self.config
        self.token_embedder = Embedding(c.vocab_size, c.d_model, jnp.dtype(c.dtype))
        self.encoder = _Encoder(c)
        self.decoder = _Decoder(c)

    def __call__(self, batch: dict[str, Array]) -> Float[Array, "B T V"]:
        return self.decode(self.encode(batch["encoder_input_tokens"], None, None), batch, None)

    def encode(self, tokens: Array, segment_ids: Array | None, seed: Seed | None) -> Float[Array, "B S D"]:
        if segment_ids is None:
            visible = Visible(mask=(tokens > 0)[:, None, None, :])
        else:
            visible = Visible(segments=(segment_ids, segment_ids))
        return self.encoder(self.token_embedder(tokens), visible, seed)

    def decode(
        self, encoded: Float[Array, "B S D"], batch: dict[str, Array], seed: Seed | None
    ) -> Float[Array, "B T V"]:
        tokens, targets = batch["decoder_input_tokens"], batch["decoder_target_tokens"]
        length = tokens.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if "decoder_segment_ids" in batch:
            own, source = batch["decoder_segment_ids"], batch["encoder_segment_ids"]
            visible = Visible(mask=causal, segments=(own, own))
            visible_source = Visible(segments=(own, source))
        else:
            # Padding is told by targets: the start id of the inputs equals the padding id.
            visible = Visible(mask=causal & (targets > 0)[:, None, None, :])
            visible_source = Visible(mask=(batch["encoder_input_tokens"] > 0)[:, None, None, :])
        hidden = self.decoder(self.token_embedder(tokens), encoded, visible, visible_source, seed)
        return self.logits(hidden)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        c = self.config
        if c.tie_embeddings:
            logits = self.token_embedder.attend(hidden * c.d_model**-0.5)
        else:
            logits = self.decoder.output(hidden)
        return constrain(logits, "batch", "length", "vocab")

    def init_cache(self, encoded: Float[Array, "B S D"], encoder_mask: Array, max_length: int) -> Cache:
        c, rows = self.config, encoded.shape[0]
        cross = self.decoder.cross_keys(encoded)
        empty = jnp.zeros((rows, c.num_heads, max_length, c.d_kv), jnp.dtype(c.dtype))
        return {
            "index": jnp.zeros((rows,), jnp.int32),
            "encoder_mask": encoder_mask.astype(bool),
            "self": {layer: {"key": empty, "value": empty} for layer in cross},
            "cross": cross,
        }

    def decode_step(self, cache: Cache, token: Int[Array, " B"]) -> tuple[Float[Array, "B V"], Cache]:
        hidden, cache = self.decoder.step(self.token_embedder(token[:, None]), cache)
        return self.logits(hidden)[:, 0], cache
