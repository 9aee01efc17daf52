"""T5 1.0 and 1.1: the encoder-decoder Transformer of the text-to-text study.

Papers: Raffel et al. 2020, arXiv:1910.10683 (1.0); Shazeer 2020, arXiv:2002.05202 (the gated layers of 1.1).
Code: t5x/examples/t5/{network,layers}.py of google-research/t5x; parameter names are its names. The modules are in
models/t5_network.py.

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
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models import family, stack
from t5x_like.models.dropout import fold, seed_of
from t5x_like.models.family import Boxed, Params, Rngs, require, require_range
from t5x_like.models.layers import Activation
from t5x_like.models.t5_network import Cache, Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5(family.Initialised):
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
        for name in ("vocab_size", "d_model", "d_kv", "num_heads", "d_ff", "relative_max_distance"):
            require_range(name, getattr(self, name), 1)
        require_range("num_layers", self.num_layers, 1, family.MOST_LAYERS)
        require(
            1 <= self.decoder_layers <= family.MOST_LAYERS,
            "num_decoder_layers",
            f"must be 1 to {family.MOST_LAYERS:,}, not {self.decoder_layers:,}",
        )
        require(0.0 <= self.dropout < 1.0, "dropout", f"must lie in [0, 1), not {self.dropout}")
        require(self.eps > 0.0, "eps", f"must be positive, not {self.eps}")
        require(
            self.relative_buckets >= 4 and self.relative_buckets % 4 == 0,
            "relative_buckets",
            f"must be a multiple of 4 (two directions, exact and logarithmic), not {self.relative_buckets}",
        )
        require(
            self.relative_max_distance > self.relative_buckets // 2,
            "relative_max_distance",
            f"must exceed half of relative_buckets ({self.relative_buckets}), not {self.relative_max_distance}",
        )
        if self.attention == "fused":
            family.require_fused(dtype=self.dtype, drops=self.dropout > 0.0, head_dim=self.d_kv)

    # Parameters

    def boxed(self, key: jax.Array) -> Boxed:
        """Parameters, each in a box with its axis names; always drawn by the scanned module, which compiles fast."""
        token = jnp.zeros((1, 1), jnp.int32)
        batch = dict.fromkeys(
            ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens"), token
        )
        scanned = dataclasses.replace(self, scan_layers=True, attention="einsum")
        params = dict(Transformer(scanned).init(key, batch)["params"])
        return params if self.scan_layers else stack.unstack_layers(params)

    def num_params(self) -> int:
        """Number of parameters, by formula."""
        width = self.num_heads * self.d_kv
        mlp = (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder = self.encoder_layers * (4 * self.d_model * width + mlp + 2 * self.d_model)
        decoder = self.decoder_layers * (8 * self.d_model * width + mlp + 3 * self.d_model)
        tables = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return encoder + decoder + tables + 2 * self.d_model + 2 * self.relative_buckets * self.num_heads

    def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
        """Floating point operations of the matrix products of one example's forward pass, attention unmasked,
        logits at every target position; a train step is three times that.

        Args:
          shapes: of one row of each feature; `encoder_input_tokens` and `decoder_input_tokens` count.
        """
        (source,), (target,) = shapes["encoder_input_tokens"], shapes["decoder_input_tokens"]
        width = self.num_heads * self.d_kv
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
        return _call(self, "encode", params, tokens, segment_ids, seed)

    def decode(
        self,
        params: Params,
        encoded: Float[Array, "B S D"],
        batch: dict[str, Array],
        rngs: Rngs | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits from the encoder's output and a batch as for `apply`."""
        seed = fold(seed_of(rngs), 1)
        return _call(self, "decode", params, encoded, batch, seed)

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
        return _call(model, "init_cache", params, encoded, encoder_mask, max_length)

    def decode_step(
        self, params: Params, cache: Cache, token: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Logits of the next token after `token`, and the cache that has seen it. At most `max_length` steps.

        With `scan_layers` the stacked parameters are sliced in the step; a long decoding is better served by
        `stack.unstack_layers(params)` and `scan_layers=False` once, before it.
        """
        model, params = self._unrolled(params)
        return _call(model, "decode_step", params, cache, token)

    def _unrolled(self, params: Params) -> tuple[T5, Params]:
        if not self.scan_layers:
            return self, params
        return dataclasses.replace(self, scan_layers=False), stack.unstack_layers(params)


def _call(model: T5, method: str, params: Params, *arguments: Any) -> Any:
    return Transformer(model).apply({"params": params}, *arguments, method=method)


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
