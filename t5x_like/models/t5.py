"""T5 1.0 and 1.1: the encoder-decoder Transformer of the text-to-text study.

Papers: Raffel et al. 2020, arXiv:1910.10683 (1.0); Shazeer 2020, arXiv:2002.05202 (the gated layers of 1.1).
Code: t5x/examples/t5/{network,layers}.py of google-research/t5x; parameter names are its names.

What differs from Vaswani et al. 2017: norms before the sub-layers, RMS only, no biases anywhere; one table of
relative position biases a stack in place of positions; no 1/sqrt(H) in attention (the query initialiser carries
it); one embedding for both stacks, not scaled by sqrt(D).
1.0: ReLU, output tied to the embedding and scaled by D**-0.5, dropout 0.1.
1.1: gated tanh-GELU, an output kernel of its own, dropout 0 in pretraining.

    1.0    D     N*H      F      L (each)  parameters         1.1     D     N*H    F      L   parameters
    small  512   8*64     2048   6             60,506,624     small   512   6*64   1024   8       76,961,152
    base   768   12*64    3072   12           222,903,552     base    768   12*64  2048   12     247,577,856
    large  1024  16*64    4096   24           737,668,096     large   1024  16*64  2816   24     783,150,080
    3B     1024  32*128   16384  24         2,851,598,336     xl      2048  32*64  5120   24   2,849,757,184
    11B    1024  128*128  65536  24        11,307,321,344     xxl     4096  64*64  10240  24  11,135,332,352
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models import stack
from t5x_like.models.attention import Visible, fused_obstacle
from t5x_like.models.dropout import Seed, dropout, fold, seed_of
from t5x_like.models.layers import (
    MLP,
    Activation,
    Attention,
    Dense,
    Embedding,
    RelativeBias,
    RMSNorm,
    fan_in_truncated,
)
from t5x_like.models.sharding import constrain

Params = dict[str, Any]
Rngs = dict[str, jax.Array]
Cache = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5:
    """A T5 of any size: configuration and pure functions of parameters in one.

    Attributes:
      vocab_size: rows of the embedding (32,100 ids padded to a multiple of 128).
      d_model, d_kv, num_heads, d_ff: D, H, N, F. N*H need not equal D.
      num_layers: encoder layers, and decoder layers where `num_decoder_layers` is None.
      activation, gated: "relu" plain in 1.0; "gelu" (tanh form) gated in 1.1.
      tie_embeddings: logits = decoder output * D**-0.5 times the embedding (1.0), else a kernel of its own (1.1).
      dropout: rate at all five sites of the paper.
      dropout_broadcast: share masks along the length as T5X does, else one draw an element.
      dtype: of activations and matrix products. Parameters, norm statistics, softmax and logits are float32.
      scan_layers: stacked parameters (`layers/...`) or separate ones (`layers_0/...`); `models.stack` converts.
      remat: what to compute again for the gradient: nothing, attention probabilities, or whole layers.
      attention: "fused" demands the platform's kernel; "auto" takes it where it fits the call.
      relative_buckets, relative_max_distance: of the position bias.
      eps: of the norms.
    """

    kind: ClassVar[str] = "encoder-decoder"

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    num_heads: int = 6
    d_ff: int = 1024
    num_layers: int = 8
    num_decoder_layers: int | None = None
    activation: Activation = "gelu"
    gated: bool = True
    tie_embeddings: bool = False
    dropout: float = 0.0
    dropout_broadcast: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: stack.Remat = "none"
    attention: Literal["auto", "einsum", "fused"] = "auto"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    eps: float = 1e-6

    @property
    def encoder_layers(self) -> int:
        return self.num_layers

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    def check(self) -> None:
        """Raises `UserError` for sizes and combinations that cannot run on this machine."""
        sizes = ("vocab_size", "d_model", "d_kv", "num_heads", "d_ff", "num_layers", "relative_max_distance")
        for name in sizes:
            _require(getattr(self, name) >= 1, name, f"must be at least 1, not {getattr(self, name)}")
        _require(
            self.decoder_layers >= 1, "num_decoder_layers", f"must be at least 1, not {self.decoder_layers}"
        )
        _require(0.0 <= self.dropout < 1.0, "dropout", f"must lie in [0, 1), not {self.dropout}")
        _require(self.eps > 0.0, "eps", f"must be positive, not {self.eps}")
        _require(
            self.relative_buckets >= 4 and self.relative_buckets % 4 == 0,
            "relative_buckets",
            f"must be a multiple of 4 (two directions, exact and logarithmic), not {self.relative_buckets}",
        )
        _require(
            self.relative_max_distance > self.relative_buckets // 2,
            "relative_max_distance",
            f"must exceed half of relative_buckets ({self.relative_buckets}), not {self.relative_max_distance}",
        )
        if self.attention == "fused":
            obstacle = fused_obstacle(
                platform=jax.default_backend(),
                dtype=jnp.dtype(self.dtype),
                drops=self.dropout > 0.0,
                head_dim=self.d_kv,
            )
            help = "attention='auto' takes the fused kernel where it fits and einsum elsewhere"
            _require(obstacle is None, "attention", f"'fused' cannot run: {obstacle}", help)

    # Parameters

    def init(self, key: jax.Array) -> Params:
        """Random parameters as T5X draws them, float32; the same values scanned or unrolled."""
        return _init(self, key)

    def abstract_params(self) -> Params:
        """The tree of `init` as `jax.ShapeDtypeStruct`, without allocating."""
        return jax.tree.map(lambda box: box.value, _abstract_boxes(self), is_leaf=_is_box)

    def logical_axes(self) -> Params:
        """The tree of `init` with, for each parameter, the names of its axes, such as ("embed", "mlp")."""
        # A parameter split off a stack keeps its box, whose first name (`layers`) no longer has a dimension.
        return jax.tree.map(
            lambda box: tuple(box.names[-box.value.ndim :]), _abstract_boxes(self), is_leaf=_is_box
        )

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        width = self.num_heads * self.d_kv
        mlp = (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder = self.encoder_layers * (4 * self.d_model * width + mlp + 2 * self.d_model)
        decoder = self.decoder_layers * (8 * self.d_model * width + mlp + 3 * self.d_model)
        tables = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return encoder + decoder + tables + 2 * self.d_model + 2 * self.relative_buckets * self.num_heads

    def flops(self, encoder_length: int, decoder_length: int) -> float:
        """Floating point operations of the matrix products of one example's forward pass, attention unmasked,
        logits at every target position; a train step is three times that."""
        source, target, width = encoder_length, decoder_length, self.num_heads * self.d_kv
        mlp = 2 * (3 if self.gated else 2) * self.d_model * self.d_ff

        def layer(length: int) -> int:
            return length * (8 * self.d_model * width + 4 * length * width + mlp)

        cross = target * (4 * self.d_model * width + 4 * source * width) + source * 4 * self.d_model * width
        head = target * 2 * self.d_model * self.vocab_size
        return float(
            self.encoder_layers * layer(source) + self.decoder_layers * (layer(target) + cross) + head
        )

    # Forward

    def apply(
        self, params: Params, batch: dict[str, Array], rngs: Rngs | None = None
    ) -> Float[Array, "B T V"]:
        """Logits by teacher forcing, float32.

        Args:
          params: as from `init`.
          batch: `encoder_input_tokens` [B, S], `decoder_input_tokens` and `decoder_target_tokens` [B, T]; packed
            batches also `encoder_segment_ids` and `decoder_segment_ids`. Other entries are ignored: the bias
            depends on distances inside a row, so packed positions do not matter.
          rngs: {"dropout": key}, or None for no dropout.
        """
        encoded = self.encode(params, batch["encoder_input_tokens"], batch.get("encoder_segment_ids"), rngs)
        return self.decode(params, encoded, batch, rngs)

    def encode(
        self,
        params: Params,
        tokens: Int[Array, "B S"],
        segment_ids: Int[Array, "B S"] | None = None,
        rngs: Rngs | None = None,
    ) -> Float[Array, "B S D"]:
        """The encoder's output. Token 0 is padding, which nothing attends to."""
        seed = fold(seed_of(rngs), 0)
        return _Transformer(self).apply({"params": params}, tokens, segment_ids, seed, method="encode")

    def decode(
        self,
        params: Params,
        encoded: Float[Array, "B S D"],
        batch: dict[str, Array],
        rngs: Rngs | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits from the encoder's output and a batch as for `apply`."""
        seed = fold(seed_of(rngs), 1)
        return _Transformer(self).apply({"params": params}, encoded, batch, seed, method="decode")

    # One token at a time

    def init_cache(
        self,
        params: Params,
        encoded: Float[Array, "B S D"],
        encoder_mask: Bool[Array, "B S"],
        max_length: int,
    ) -> Cache:
        """The cache of a decoder that has seen nothing yet. Every leaf has the batch axis first.

        Returns:
          `index` [B]: tokens seen; `self`: keys and values [B, N, max_length, H] a layer, zeros; `cross`: keys
          and values of `encoded` [B, N, S, H] a layer; `encoder_mask` [B, S], true where there is a token.
          `cross` and `encoder_mask` are the same for all hypotheses of a source: beam search need not move them.
        """
        model, params = self._unrolled(params)
        return _Transformer(model).apply(
            {"params": params}, encoded, encoder_mask, max_length, method="init_cache"
        )

    def decode_step(
        self, params: Params, cache: Cache, token: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Logits of the next token after `token`, and the cache that has seen it. At most `max_length` steps.

        With `scan_layers` the stacked parameters are sliced in the step; a long decoding is better served by
        `stack.unstack_layers(params)` and `scan_layers=False` once, before it.
        """
        model, params = self._unrolled(params)
        return _Transformer(model).apply({"params": params}, cache, token, method="decode_step")

    def _unrolled(self, params: Params) -> tuple[T5, Params]:
        if not self.scan_layers:
            return self, params
        return dataclasses.replace(self, scan_layers=False), stack.unstack_layers(params)


def _require(condition: bool, field: str, what: str, help: str | None = None) -> None:
    if not condition:
        raise UserError(f"model.{field} {what}", where=f"model.{field}", help=help)


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)


def _boxed_init(model: T5, key: jax.Array) -> Params:
    """Parameters, each in a box with its axis names; always drawn by the scanned module, which compiles fast."""
    token = jnp.zeros((1, 1), jnp.int32)
    batch = dict.fromkeys(("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens"), token)
    scanned = dataclasses.replace(model, scan_layers=True, attention="einsum")
    params = _Transformer(scanned).init(key, batch)["params"]
    return params if model.scan_layers else stack.unstack_layers(params)


@functools.cache  # a start asks several times, and tracing a deep model takes a second
def _abstract_boxes(model: T5) -> Params:
    return jax.eval_shape(functools.partial(_boxed_init, model), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def _init(model: T5, key: jax.Array) -> Params:
    return jax.tree.map(lambda box: box.value, _boxed_init(model, key), is_leaf=_is_box)


# Modules


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


class _Transformer(nn.Module):
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


# Published sizes


def t5_1_0(size: str) -> T5:
    """T5 1.0 "small", "base", "large", "3B" or "11B" (paper section 3.7; dropout 0.1 as pretrained)."""
    sizes = {
        "small": T5(d_model=512, num_heads=8, d_kv=64, d_ff=2048, num_layers=6),
        "base": T5(d_model=768, num_heads=12, d_kv=64, d_ff=3072, num_layers=12),
        "large": T5(d_model=1024, num_heads=16, d_kv=64, d_ff=4096, num_layers=24),
        "3B": T5(d_model=1024, num_heads=32, d_kv=128, d_ff=16384, num_layers=24),
        "11B": T5(d_model=1024, num_heads=128, d_kv=128, d_ff=65536, num_layers=24),
    }
    model = _published("1.0", size, sizes)
    return dataclasses.replace(model, activation="relu", gated=False, tie_embeddings=True, dropout=0.1)


def t5_1_1(size: str) -> T5:
    """T5 1.1 "small", "base", "large", "xl" or "xxl" (dropout 0 as pretrained; fine-tune with 0.1)."""
    sizes = {
        "small": T5(d_model=512, num_heads=6, d_kv=64, d_ff=1024, num_layers=8),
        "base": T5(d_model=768, num_heads=12, d_kv=64, d_ff=2048, num_layers=12),
        "large": T5(d_model=1024, num_heads=16, d_kv=64, d_ff=2816, num_layers=24),
        "xl": T5(d_model=2048, num_heads=32, d_kv=64, d_ff=5120, num_layers=24),
        "xxl": T5(d_model=4096, num_heads=64, d_kv=64, d_ff=10240, num_layers=24),
    }
    return _published("1.1", size, sizes)


def _published(version: str, size: str, sizes: dict[str, T5]) -> T5:
    if size not in sizes:
        raise UserError(f"T5 {version} has no size {size!r}", where="model", help=did_you_mean(size, sizes))
    return sizes[size]
