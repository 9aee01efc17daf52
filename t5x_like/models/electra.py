"""ELECTRA: a small generator replaces tokens, and a discriminator learns to find them.

Paper: Clark et al. 2020, arXiv:2003.10555. Code: google-research/electra `run_pretraining.py`, `model/modeling.py`.
Both networks are post-LN encoders with exact GELU and no pooler. The generator is narrower by a fraction, with heads
of 64 and F = 4 D. As released, it shares the word, position and token-type tables and their norm with the
discriminator, at the discriminator's E; each network has a projection of its own where its D is not E. No gradient
leads from the discriminator to the generator but through the shared tables (samples have none).

                L   D     N   F     E     generator     discriminator,  generator,  both, shared
                                          D, N, F       its head        its head    parameters once
    small-paper 12  256   4   1024  128   64, 1, 256     13,549,057      4,620,026   14,196,219
    small       12  256   4   1024  128   256, 4, 1024   13,549,057     13,546,682   23,122,875
    base        12  768   12  3072  768   256, 4, 1024  109,483,009     33,740,602  119,386,427
    large       24  1024  16  4096  1024  256, 4, 1024  335,142,913     51,295,290  354,655,291

"small" is the released small++, whose generator is as wide as the discriminator.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models import family
from t5x_like.models.dropout import fold, seed_of
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_network import F32, TokenScore
from t5x_like.models.family import Boxed, Params, Rngs, require
from t5x_like.models.layers import Dense
from t5x_like.models.products import pick_rows

Sharing = Literal["none", "embeddings", "all"]

ELECTRA = Encoder(
    embedding_size=128,
    hidden_size=256,
    num_heads=4,
    d_ff=1024,
    pooler="first",
    activation="gelu",
    glorot_projection=True,
    mlm_head=False,
    pair_head=False,
)
"""The small discriminator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Electra(family.Initialised):
    """Generator and discriminator: configuration and pure functions of parameters in one.

    Parameters, with the trees of models/encoder.py:

        sharing          shared                        generator                discriminator
        "none"           -                             everything of its own    everything of its own, heads
        "embeddings"     embeddings                    the rest                 the rest, heads
        "all"            embeddings, projection,       mlm                      heads
                         layers

    where the heads of the discriminator are `detection` (dense, out), or `mlm` and perhaps `copy` (kernel, bias).

    Attributes:
      encoder: the discriminator without its head of detection; what is kept for fine-tuning.
      generator_hidden: D of the generator as a fraction of the discriminator's, rounded.
      generator_layers: L of the generator as a fraction of the discriminator's, rounded.
      sharing: what the two have in common (paper section 3.2). With "none" the generator's E is its own D, as with
        the original's `untied_generator_embeddings`; with "all" both are one network, and the fractions must be 1.
      head: "detection" tells original from replaced tokens. "mlm" names the original tokens: the Replace MLM and
        All-Tokens MLM of the paper (section 3.4); `encoder.mlm_head` must then be true.
      copy: with head "mlm": the copy mechanism of All-Tokens MLM, see `original_log_probs`.
    """

    kind: ClassVar[str] = "generator-discriminator"

    encoder: Encoder = ELECTRA
    generator_hidden: float = 0.25
    generator_layers: float = 1.0
    sharing: Sharing = "embeddings"
    head: Literal["detection", "mlm"] = "detection"
    copy: bool = False

    @property
    def generator(self) -> Encoder:
        """The generator (electra/run_pretraining.py `get_generator_config`)."""
        model = self.encoder
        if self.sharing == "all":
            return dataclasses.replace(model, mlm_head=True, pair_head=False)
        width = round(model.hidden_size * self.generator_hidden)
        return dataclasses.replace(
            model,
            hidden_size=width,
            embedding_size=width if self.sharing == "none" else model.embedding_width,
            num_layers=round(model.num_layers * self.generator_layers),
            num_heads=max(1, width // 64),
            d_ff=4 * width,
            mlm_head=True,
            pair_head=False,
        )

    @property
    def vocab_size(self) -> int:
        return self.encoder.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.encoder.hidden_size

    @property
    def num_layers(self) -> int:
        return self.encoder.num_layers

    @property
    def pad_id(self) -> int:
        return self.encoder.pad_id

    @property
    def max_length(self) -> int:
        """The longest row of tokens, special tokens and padding included."""
        return self.encoder.max_length

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def scan_layers(self) -> bool:
        return self.encoder.scan_layers

    def check(self) -> None:
        """Raises `UserError` for sizes and combinations that cannot run on this machine."""
        try:
            self.encoder.check()
        except UserError as e:
            raise family.inside(e, "encoder") from None
        for name in ("generator_hidden", "generator_layers"):
            fraction = getattr(self, name)
            require(0.0 < fraction <= 1.0, name, f"must lie in (0, 1], not {fraction}")
            require(
                self.sharing != "all" or fraction == 1.0,
                name,
                f"is {fraction}, and sharing 'all' has one network in both roles",
                f"model.{name}=1, or model.sharing=embeddings",
            )
        wants = self.head == "mlm"
        require(
            self.encoder.mlm_head == wants,
            "encoder.mlm_head",
            f"is {self.encoder.mlm_head} and model.head {self.head!r}",
            f"model.encoder.mlm_head={str(wants).lower()}",
        )
        require(not self.encoder.pair_head, "encoder.pair_head", "is true; ELECTRA has no such head")
        require(not self.copy or wants, "copy", f"needs the head 'mlm', not {self.head!r}", "model.head=mlm")
        try:
            self.generator.check()
        except UserError as e:
            raise UserError(
                f"the generator that generator_hidden={self.generator_hidden} and "
                f"generator_layers={self.generator_layers} make of the encoder cannot be: {e.what}",
                where="model.generator_hidden",
                help="a fraction that gives a multiple of 64 (one head is 64 wide)",
            ) from None

    # Parameters

    def boxed(self, key: jax.Array) -> Boxed:
        """See `Initialised.boxed`."""
        of_encoder, of_generator, of_head, of_copy = jax.random.split(key, 4)
        own = self.encoder.boxed(of_encoder)
        if self.sharing == "all":
            # One network: only the head of its other role is missing.
            whole = dataclasses.replace(self.encoder, mlm_head=True).boxed(of_encoder)
            other = {"mlm": whole["mlm"]}
            shared = {k: v for k, v in own.items() if k != "mlm"}
        else:
            other = self.generator.boxed(of_generator)
            shared = {"embeddings": own["embeddings"]} if self.sharing == "embeddings" else {}
        own = {k: v for k, v in own.items() if k not in shared}
        other = {k: v for k, v in other.items() if k not in shared}
        hidden = jnp.zeros((1, 1, self.hidden_size))
        if self.head == "detection":
            own["detection"] = TokenScore(self.encoder).init(of_head, hidden)["params"]
        if self.copy:
            own["copy"] = _copy(self.encoder).init(of_copy, hidden)["params"]
        return {**({"shared": shared} if shared else {}), "generator": other, "discriminator": own}

    def num_params(self) -> int:
        """Number of parameters, by formula, those that are shared counted once."""
        d, own, other = self.hidden_size, self.encoder, self.generator
        count = own.num_params() + other.num_params()
        if self.sharing == "embeddings":
            count -= own.num_embedding_params()
        elif self.sharing == "all":
            count -= dataclasses.replace(own, mlm_head=False).num_params()
        if self.head == "detection":
            count += d * d + d + d + 1
        return count + (d + 1 if self.copy else 0)

    def encoder_params(self, params: Params) -> Params:
        """The parameters of `encoder`, shared ones included."""
        own = {k: v for k, v in params["discriminator"].items() if k not in ("detection", "copy")}
        return {**params.get("shared", {}), **own}

    def generator_params(self, params: Params) -> Params:
        """The parameters of `generator`, shared ones included."""
        return {**params.get("shared", {}), **params["generator"]}

    def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
        """Floating point operations of the matrix products of one example's pass through both networks and heads.

        Args:
          shapes: of one row of each feature: `encoder_input_tokens` (T,) and `masked_positions` (K,), which the
            generator predicts and, with head "mlm" and no `copy`, the discriminator; with `copy` it predicts all.
        """
        (length,) = shapes["encoder_input_tokens"]
        d = self.hidden_size
        everywhere = {"encoder_input_tokens": (length,)}
        total = self.generator.flops(shapes) + self.encoder.flops(everywhere if self.copy else shapes)
        if self.head == "detection":
            total += length * (2 * d * d + 2 * d)
        return total + (2 * length * d if self.copy else 0)

    # Forward

    def apply(self, params: Params, batch: dict[str, Array], rngs: Rngs | None = None) -> dict[str, Array]:
        """The discriminator over the batch's tokens as they are: `hidden` [B, T, D] and, by the head,
        `detection_logits` float32 [B, T] or `mlm_logits` as `Encoder.apply`. Training calls the parts below."""
        tokens, types = batch["encoder_input_tokens"], batch.get("encoder_token_types")
        hidden = self.discriminate(params, tokens, types, rngs)
        out = {"hidden": hidden}
        if self.head == "detection":
            out["detection_logits"] = self.detection_logits(params, hidden)
        else:
            positions = batch.get("masked_positions")
            picked = hidden if positions is None else pick_rows(hidden, positions)
            out["mlm_logits"] = self.mlm_logits(params, picked)
        return out

    def generator_logits(
        self, params: Params, batch: dict[str, Array], rngs: Rngs | None = None
    ) -> Float[Array, "B K V"]:
        """The generator's logits, float32, at `masked_positions` [B, K] of `encoder_input_tokens` [B, T]."""
        model, own = self.generator, self.generator_params(params)
        tokens, types = batch["encoder_input_tokens"], batch.get("encoder_token_types")
        hidden = model.encode_seeded(own, tokens, types, fold(seed_of(rngs), 0))
        return model.mlm_logits(own, pick_rows(hidden, batch["masked_positions"]))

    def discriminate(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        rngs: Rngs | None = None,
    ) -> Float[Array, "B T D"]:
        """The discriminator's hidden states; its dropout masks are others than the generator's of the same `rngs`."""
        own = self.encoder_params(params)
        return self.encoder.encode_seeded(own, tokens, token_types, fold(seed_of(rngs), 1))

    def detection_logits(self, params: Params, hidden: Float[Array, "B T D"]) -> Float[Array, "B T"]:
        """Log-odds, float32, that a token was replaced. Needs head "detection"."""
        require(self.head == "detection", "head", f"is {self.head!r}: nothing detects replaced tokens")
        return TokenScore(self.encoder).apply({"params": params["discriminator"]["detection"]}, hidden)  # pyright: ignore[reportReturnType]

    def mlm_logits(self, params: Params, hidden: Float[Array, "B K D"]) -> Float[Array, "B K V"]:
        """The discriminator's logits of the original tokens, float32. Needs head "mlm"."""
        return self.encoder.mlm_logits(self.encoder_params(params), hidden)

    def original_log_probs(
        self,
        params: Params,
        hidden: Float[Array, "B T D"],
        tokens: Int[Array, "B T"],
        targets: Int[Array, "B T"],
    ) -> Float[Array, "B T"]:
        """log p(target) of each place under All-Tokens MLM, float32. Needs head "mlm" and `copy`.

        The place's token is copied with probability c = sigmoid(hidden copy), else drawn from the softmax:
        p = c [target = token] + (1 - c) softmax(logits)[target] (paper section 3.4).
        """
        require(self.copy, "copy", "is false: there is no copy mechanism")
        logits = self.mlm_logits(params, hidden)
        picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        drawn = picked - jax.nn.logsumexp(logits, axis=-1)
        score = _copy(self.encoder).apply({"params": params["discriminator"]["copy"]}, hidden)
        score = jnp.squeeze(score, -1)  # pyright: ignore[reportArgumentType]
        copied = jnp.where(tokens == targets, jax.nn.log_sigmoid(score), -jnp.inf)
        return jnp.logaddexp(copied, jax.nn.log_sigmoid(-score) + drawn)


def _copy(c: Encoder) -> Dense:
    return Dense(
        1, ("embed", "classes"), nn.initializers.glorot_uniform(), jnp.dtype(c.dtype), F32, use_bias=True
    )


# Published sizes


def electra(size: str) -> Electra:
    """ELECTRA of a published size: "small-paper", "small" (as released), "base" or "large"."""
    base = dataclasses.replace(ELECTRA, embedding_size=768, hidden_size=768, num_heads=12, d_ff=3072)
    large = dataclasses.replace(
        ELECTRA, embedding_size=1024, hidden_size=1024, num_layers=24, num_heads=16, d_ff=4096
    )
    sizes = {
        "small-paper": Electra(encoder=ELECTRA, generator_hidden=0.25),
        "small": Electra(encoder=ELECTRA, generator_hidden=1.0),
        "base": Electra(encoder=base, generator_hidden=0.33333),
        "large": Electra(encoder=large, generator_hidden=0.25),
    }
    if size not in sizes:
        raise UserError(f"ELECTRA has no size {size!r}", where="model", help=did_you_mean(size, sizes))
    return sizes[size]
