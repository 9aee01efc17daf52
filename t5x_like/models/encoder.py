"""The post-LN Transformer encoder of BERT and of its descendants: configuration and pure functions.

Papers: Devlin et al. 2019, arXiv:1810.04805; Vaswani et al. 2017, arXiv:1706.03762 (the layer). What differs between
BERT, RoBERTa and ELECTRA is a field here, and models/{bert,roberta,electra}.py choose. The modules are in
models/encoder_network.py.

Every sub-layer is x = LN(x + dropout(f(x))) with biases everywhere; learned positions; logits of attention divided
by sqrt(H); the sum of embeddings is not scaled. The head of masked language modelling ends in the transposed word
table; positions are picked before it, so that the product with the vocabulary is done for those alone.

Parameters, for embeddings of width E:

    embeddings   word [V, E], position [P, E], token_type [S, E] (each `embedding`), norm (scale, bias)
    projection   kernel [E, D], bias; only where E is not D
    layers, or layers_0 ...   attention (query, key, value, out), attention_norm, mlp (wi, wo), mlp_norm
    pooler       kernel [D, D], bias
    mlm          dense (kernel [D, E], bias), norm, bias [V]
    pair         kernel [D, 2], bias
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.errors import UserError
from t5x_like.models import family, stack
from t5x_like.models.dropout import Seed, seed_of
from t5x_like.models.encoder_network import EncoderNetwork
from t5x_like.models.family import Boxed, Params, Rngs, require, require_range
from t5x_like.models.products import pick_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(family.Initialised):
    """A post-LN encoder of any size: configuration and pure functions of parameters in one.

    Attributes:
      vocab_size: V, rows of the word table.
      hidden_size, num_layers, num_heads, d_ff: D, L, N, F. N divides D.
      embedding_size: E, width of the tables; None: D. Where E is not D, a dense layer leads from one to the other.
      max_positions: P, rows of the position table.
      position_offset: row of the first token. 0: rows are places (BERT). 2 (RoBERTa): rows count the tokens that are
        not padding, and padding has row 1. The longest text is P - position_offset.
      token_types: rows of the token-type table; 0: none. With one row the ids of a batch are not looked at, as in
        fairseq's RoBERTa, which has no token types.
      pooler: "tanh": a dense layer and tanh over the first hidden state (BERT); "first": that state itself
        (ELECTRA); "none".
      activation: "gelu" is exact (erf), "gelu_tanh" its approximation. Also in the masked-language-modelling head.
      eps: of the norms.
      dropout: after the embeddings and before each residual sum; attention_dropout: on the probabilities.
      stddev, truncated_init: of the initial kernels and tables: normal, or cut at 2 stddev without rescaling.
      position_init: "normal" draws the position table as the others; "sinusoid" begins with Vaswani et al.'s sines and
        cosines (DistilBERT), scaled to the root mean square `stddev`. Neighbouring places then look alike from the
        first step, and a small model finds out about them sooner.
      glorot_projection: Glorot-uniform kernel from E to D (electra/model/modeling.py), else as the others.
      zero_pad_rows: the word row of padding and its position row start at zero, where they stay: no loss sees them.
      pad_id: the id that nothing attends to.
      mlm_head, pair_head: heads of masked language modelling and of next sentence prediction.
      dtype: of activations and matrix products. Parameters, norms, softmax and logits are float32.
      scan_layers: stacked parameters (`layers/...`) or separate ones (`layers_0/...`); `models.stack` converts.
      remat: what to compute again for the gradient: nothing, attention probabilities, or whole layers.
      attention: "fused" demands the platform's kernel; "auto" takes it where it fits the call.
    """

    kind: ClassVar[str] = "encoder"

    vocab_size: int = 30522
    hidden_size: int = 768
    embedding_size: int | None = None
    num_layers: int = 12
    num_heads: int = 12
    d_ff: int = 3072
    max_positions: int = 512
    position_offset: int = 0
    token_types: int = 2
    pooler: Literal["tanh", "first", "none"] = "tanh"
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu_tanh"
    eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    stddev: float = 0.02
    truncated_init: bool = True
    position_init: Literal["normal", "sinusoid"] = "normal"
    glorot_projection: bool = False
    zero_pad_rows: bool = False
    pad_id: int = 0
    mlm_head: bool = True
    pair_head: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: stack.Remat = "none"
    attention: Literal["auto", "einsum", "fused"] = "auto"

    @property
    def double_separator(self) -> bool:
        """Whether two [SEP] stand between two segments, which nothing else sets apart where there is one token type
        (RoBERTa)."""
        return self.token_types < 2

    @property
    def embedding_width(self) -> int:
        """E."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def head_dim(self) -> int:
        """H."""
        return self.hidden_size // self.num_heads

    @property
    def max_length(self) -> int:
        """The longest row of tokens, special tokens and padding included."""
        return self.max_positions - self.position_offset

    def check(self) -> None:
        """Raises `UserError` for sizes and combinations that cannot run on this machine."""
        for name in ("vocab_size", "hidden_size", "num_heads", "d_ff", "max_positions"):
            require_range(name, getattr(self, name), 1)
        require_range("num_layers", self.num_layers, 1, family.MOST_LAYERS)
        require_range("embedding_size", self.embedding_width, 1)
        require_range("token_types", self.token_types, 0)
        require_range("position_offset", self.position_offset, 0)
        nearest = self.num_heads * max(1, round(self.hidden_size / self.num_heads))
        require(
            self.hidden_size % self.num_heads == 0,
            "hidden_size",
            f"must be a multiple of num_heads ({self.num_heads}), not {self.hidden_size}",
            f"model.hidden_size={nearest}",
        )
        require(
            self.max_length >= 1,
            "max_positions",
            f"must exceed position_offset ({self.position_offset}), not {self.max_positions}",
        )
        require(
            0 <= self.pad_id < self.vocab_size,
            "pad_id",
            f"must lie in [0, {self.vocab_size}) (vocab_size), not {self.pad_id}",
        )
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            require(0.0 <= rate < 1.0, name, f"must lie in [0, 1), not {rate}")
        for name in ("eps", "stddev"):
            require(getattr(self, name) > 0.0, name, f"must be positive, not {getattr(self, name)}")
        require(
            not (self.pair_head and self.pooler == "none"),
            "pair_head",
            "needs a pooled state, and pooler is 'none'",
            "model.pooler=tanh, or model.pair_head=false",
        )
        require(
            not (self.zero_pad_rows and self.position_offset == 0),
            "zero_pad_rows",
            "needs a position row for padding, and position_offset is 0",
            "model.position_offset=2 (RoBERTa), or model.zero_pad_rows=false",
        )
        if self.attention == "fused":
            family.require_fused(dtype=self.dtype, drops=self.attention_dropout > 0.0, head_dim=self.head_dim)

    # Parameters

    def boxed(self, key: jax.Array) -> Boxed:
        """Parameters, each in a box with its axis names; always drawn by the scanned module, which compiles fast."""
        scanned = dataclasses.replace(self, scan_layers=True, attention="einsum")
        params = dict(EncoderNetwork(scanned).init(key, jnp.zeros((1, 1), jnp.int32))["params"])
        return params if self.scan_layers else stack.unstack_layers(params)

    def num_params(self) -> int:
        """Number of parameters, by formula; the decoder of the masked-language-modelling head is the word table."""
        d, e, f = self.hidden_size, self.embedding_width, self.d_ff
        layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        count = self.num_embedding_params() + self.num_layers * layer
        count += e * d + d if e != d else 0
        count += d * d + d if self.pooler == "tanh" else 0
        count += d * e + e + 2 * e + self.vocab_size if self.mlm_head else 0
        return count + (2 * d + 2 if self.pair_head else 0)

    def num_embedding_params(self) -> int:
        """Number of parameters of the three tables and their norm."""
        rows = self.vocab_size + self.max_positions + self.token_types
        return (rows + 2) * self.embedding_width

    def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
        """Floating point operations of the matrix products of one example's forward pass, every place attended to.

        Args:
          shapes: of one row of each feature: `encoder_input_tokens` (T,) and `masked_positions` (K,); without the
            latter the masked-language-modelling head is counted at every place, as `apply` then runs it.
        """
        (length,) = shapes["encoder_input_tokens"]
        (picked,) = shapes.get("masked_positions", (length,))
        d, e = self.hidden_size, self.embedding_width
        total = self.num_layers * length * (8 * d * d + 4 * length * d + 4 * d * self.d_ff)
        total += 2 * length * e * d if e != d else 0
        if self.mlm_head:
            total += picked * 2 * e * (d + self.vocab_size)
        if self.pair_head:
            total += (2 * d * d if self.pooler == "tanh" else 0) + 4 * d
        return float(total)

    # Forward

    def apply(self, params: Params, batch: dict[str, Array], rngs: Rngs | None = None) -> dict[str, Array]:
        """Hidden states and what the heads make of them.

        Args:
          params: as from `init`.
          batch: `encoder_input_tokens` [B, T]; `encoder_token_types` [B, T], all 0 where missing;
            `masked_positions` [B, K] where only some places are to be predicted. Other entries are ignored.
          rngs: {"dropout": key}, or None for no dropout.

        Returns:
          `hidden` [B, T, D]; with the head of masked language modelling `mlm_logits` float32 [B, K, V], or [B, T, V]
          without `masked_positions`; with the pair head `pair_logits` float32 [B, 2].
        """
        hidden = self.encode(params, batch["encoder_input_tokens"], batch.get("encoder_token_types"), rngs)
        out = {"hidden": hidden}
        if self.mlm_head:
            positions = batch.get("masked_positions")
            picked = hidden if positions is None else pick_rows(hidden, positions)
            out["mlm_logits"] = self.mlm_logits(params, picked)
        if self.pair_head:
            out["pair_logits"] = self.pair_logits(params, self.pooled(params, hidden))
        return out

    def encode(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        rngs: Rngs | None = None,
    ) -> Float[Array, "B T D"]:
        """The last layer's output; nothing attends to `pad_id`. Raises `UserError` for T > `max_length`."""
        return self.encode_seeded(params, tokens, token_types, seed_of(rngs))

    def encode_seeded(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None,
        seed: Seed | None,
    ) -> Float[Array, "B T D"]:
        """`encode` with the seed of the dropout masks in place of `rngs`, for models that run several encoders."""
        if tokens.shape[1] > self.max_length:
            raise UserError(
                f"a row of {tokens.shape[1]} tokens is longer than the {self.max_length} that the position table "
                f"holds",
                where="model.max_positions",
                help=f"model.max_positions={tokens.shape[1] + self.position_offset}, or shorter rows",
            )
        return self._call("encode", params, tokens, token_types, seed)

    def mlm_logits(self, params: Params, hidden: Float[Array, "B K D"]) -> Float[Array, "B K V"]:
        """Logits of the vocabulary, float32, of hidden states picked already. Needs `mlm_head`."""
        require(self.mlm_head, "mlm_head", "is false: there are no logits of the vocabulary")
        return self._call("mlm_logits", params, hidden)

    def pooled(self, params: Params, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """One vector a row, by `pooler`."""
        require(self.pooler != "none", "pooler", "is 'none': there is no pooled state")
        return self._call("pooled", params, hidden)

    def pair_logits(self, params: Params, pooled: Float[Array, "B D"]) -> Float[Array, "B 2"]:
        """Logits, float32, of 0: the second segment follows the first, and 1: it is from elsewhere."""
        require(self.pair_head, "pair_head", "is false: there are no logits of pairs")
        return self._call("pair_logits", params, pooled)

    def _call(self, method: str, params: Params, *arguments: Any) -> Any:
        return EncoderNetwork(self).apply({"params": params}, *arguments, method=method)
