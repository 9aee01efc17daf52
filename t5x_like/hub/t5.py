"""T5 1.0, 1.1 and mT5 from and to Hugging Face directories.

The key table is `key_table`: their `nn.Linear` weights are [out, in] and our kernels [in, out], so kernels are
transposed; so is the bias table ([buckets, heads] there), which only their first layer of a stack owns.

Whether a model is tied cannot be read from one flag: 1.0 ties and scales by D**-0.5, 1.1 does neither. transformers
4 says so by `tie_word_embeddings`; transformers 5 always writes that as true and adds `scale_decoder_outputs`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t5x_like.errors import Exit, UserError
from t5x_like.hub import directory, safetensors, tokenizers
from t5x_like.hub.directory import Key, number
from t5x_like.models.layers import Activation
from t5x_like.models.stack import unstack_layers
from t5x_like.models.t5 import T5, Params

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer

_PROJECTIONS: dict[tuple[Activation, bool], str] = {
    ("relu", False): "relu",
    ("relu", True): "gated-relu",
    ("gelu", False): "gelu_new",
    ("gelu", True): "gated-gelu",  # which transformers reads as the tanh form, unlike a plain "gelu"
}
_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# A bias table that early checkpoints carry in cross attention, which never used it.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def key_table(model: T5) -> list[Key]:
    """Every parameter of `model` with unrolled layers."""
    table = [Key(("token_embedder", "embedding"), "shared.weight", False)]

    def attention(ours: tuple[str, ...], theirs: str) -> None:
        for name in ("query", "key", "value", "out"):
            letter = "o" if name == "out" else name[0]
            table.append(Key((*ours, name, "kernel"), f"{theirs}.{letter}.weight", True))

    def norm(ours: tuple[str, ...], theirs: str) -> None:
        table.append(Key((*ours, "scale"), f"{theirs}.weight", False))

    def mlp(ours: tuple[str, ...], theirs: str) -> None:
        for name in ("wi_0", "wi_1", "wo") if model.gated else ("wi", "wo"):
            table.append(Key((*ours, "mlp", name, "kernel"), f"{theirs}.DenseReluDense.{name}.weight", True))

    for side, layers in (("encoder", model.encoder_layers), ("decoder", model.decoder_layers)):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        table.append(Key((side, "relpos_bias", "rel_embedding"), bias, True))
        norm((side, f"{side}_norm"), f"{side}.final_layer_norm")
        for i in range(layers):
            ours, theirs = (side, f"layers_{i}"), f"{side}.block.{i}.layer"
            if side == "encoder":
                norm((*ours, "pre_attention_layer_norm"), f"{theirs}.0.layer_norm")
                attention((*ours, "attention"), f"{theirs}.0.SelfAttention")
            else:
                norm((*ours, "pre_self_attention_layer_norm"), f"{theirs}.0.layer_norm")
                attention((*ours, "self_attention"), f"{theirs}.0.SelfAttention")
                norm((*ours, "pre_cross_attention_layer_norm"), f"{theirs}.1.layer_norm")
                attention((*ours, "encoder_decoder_attention"), f"{theirs}.1.EncDecAttention")
            last = 1 if side == "encoder" else 2
            norm((*ours, "pre_mlp_layer_norm"), f"{theirs}.{last}.layer_norm")
            mlp(ours, f"{theirs}.{last}")
    if not model.tie_embeddings:
        table.append(Key(("decoder", "logits_dense", "kernel"), "lm_head.weight", True))
    return table


# Export


def export_t5(model: T5, params: Params, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Writes a directory that `AutoModelForSeq2SeqLM.from_pretrained` loads, and `AutoTokenizer` with a tokenizer.

    Args:
      model, params: scanned or unrolled; the weights are written in float32.
      folder: must not exist or be empty. It appears whole or not at all.
      tokenizer: its files are written too, and its special ids go into the configuration.

    Raises:
      UserError: the folder is in use, cannot be written, or the parameters are not those of the model.
    """
    if tokenizer is not None and tokenizer.vocabulary.size > model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocabulary.size} ids and the model rows for {model.vocab_size}",
            help="export with the tokenizer that the model was trained with",
        )
    with directory.new_folder(folder) as made:
        safetensors.write(made, to_hugging_face(model, params))
        config = to_config(model, tokenizer)
        directory.write_json(made / "config.json", config)
        ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        directory.write_json(made / "generation_config.json", {name: config[name] for name in ids})
        if tokenizer is not None:
            tokenizers.write(tokenizer, made)


def to_hugging_face(model: T5, params: Params) -> dict[str, np.ndarray]:
    """Their names to float32 arrays on the host. Tied weights are written once: loaders tie them again."""
    if model.scan_layers:
        params = unstack_layers(params)
    return directory.to_arrays(key_table(model), params)


def to_config(model: T5, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """config.json, as transformers 4 and 5 both read it."""
    vocabulary = tokenizer.vocabulary if tokenizer is not None else None
    pad, eos = (0, 1) if vocabulary is None else (vocabulary.pad, vocabulary.eos)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "d_model": model.d_model,
        "d_kv": model.d_kv,
        "num_heads": model.num_heads,
        "d_ff": model.d_ff,
        "num_layers": model.encoder_layers,
        "num_decoder_layers": model.decoder_layers,
        "feed_forward_proj": _PROJECTIONS[model.activation, model.gated],
        "tie_word_embeddings": model.tie_embeddings,
        "relative_attention_num_buckets": model.relative_buckets,
        "relative_attention_max_distance": model.relative_max_distance,
        "dropout_rate": model.dropout,
        "layer_norm_epsilon": model.eps,
        "decoder_start_token_id": pad,  # T5 starts from its padding id
        "pad_token_id": pad,
        "eos_token_id": eos,
        "torch_dtype": "float32",
    }


# Import


def import_t5(folder: str | Path, *, on_host: bool = False) -> tuple[T5, Params]:
    """A model and its float32 parameters, unrolled, from a Hugging Face directory of T5, T5 1.1, FLAN-T5 or mT5.

    Args:
      folder: `config.json` with `model.safetensors` or shards and their index; float16 and bfloat16 are widened.
      on_host: leave NumPy arrays, for who spreads them over a mesh; otherwise they go to the default device.

    Raises:
      UserError: not such a folder, weights that do not fit the configuration (every missing, unexpected and
        reshaped name is counted, the first ones named), or an architecture that T5 here does not express.
    """
    folder = Path(folder)
    weights = safetensors.Weights(folder)
    model = from_config(safetensors.read_json(folder / "config.json"), where=str(folder / "config.json"))
    shared = "shared.weight"
    for alias in _ALIASES:
        if alias not in weights.names():
            continue
        if shared not in weights.names():
            shared = alias
        elif not np.array_equal(weights.read(alias), weights.read(shared)):
            raise UserError(
                f"{alias} differs from {shared}; T5 shares them", where=str(folder), code=Exit.BAD_DATA
            )
    output_is_shared = "lm_head.weight" not in weights.names()
    if (
        model.tie_embeddings
        and not output_is_shared
        and not np.array_equal(weights.read("lm_head.weight"), weights.read(shared))
    ):
        raise UserError(
            "the configuration ties the output to the embedding, but lm_head.weight differs from shared.weight",
            where=str(folder),
            help='for T5 1.1 and mT5 config.json says "tie_word_embeddings": false',
            code=Exit.BAD_DATA,
        )
    # transformers 5 drops a head that equals the embedding, also where the output is not scaled.
    stands_for = {"shared.weight": shared} | ({"lm_head.weight": shared} if output_is_shared else {})
    model = dataclasses.replace(model, scan_layers=False)
    params = directory.from_arrays(
        weights,
        key_table(model),
        model.abstract_params(),
        stands_for=stands_for,
        ignored={*_ALIASES, _UNUSED, "lm_head.weight"},
        on_host=on_host,
    )
    return model, params


def from_config(config: dict[str, Any], where: str = "config.json") -> T5:
    """The `T5` that a config.json of transformers 4 or 5 describes; raises `UserError` for what it cannot express."""
    kind = config.get("model_type", "t5")
    if kind not in ("t5", "mt5"):
        raise UserError(f"model_type is {kind!r}; expected 't5' or 'mt5'", where=where, code=Exit.BAD_DATA)
    projection = config.get("feed_forward_proj", "gated-gelu" if kind == "mt5" else "relu")
    known = {theirs: ours for ours, theirs in _PROJECTIONS.items()}
    known["gated-gelu_new"] = ("gelu", True)
    if projection not in known:
        raise UserError(
            f"feed_forward_proj is {projection!r}; expected one of {', '.join(known)}",
            where=where,
            code=Exit.BAD_DATA,
        )
    activation, gated = known[projection]
    fields = {
        "vocab_size": number(config, "vocab_size", int, where),
        "d_model": number(config, "d_model", int, where),
        "d_kv": number(config, "d_kv", int, where),
        "num_heads": number(config, "num_heads", int, where),
        "d_ff": number(config, "d_ff", int, where),
        "num_layers": number(config, "num_layers", int, where),
        "dropout": number(config, "dropout_rate", float, where, 0.1),
        "eps": number(config, "layer_norm_epsilon", float, where, 1e-6),
        "relative_buckets": number(config, "relative_attention_num_buckets", int, where, 32),
        "relative_max_distance": number(config, "relative_attention_max_distance", int, where, 128),
    }
    if config.get("num_decoder_layers") is None:
        config = {**config, "num_decoder_layers": fields["num_layers"]}
    fields["num_decoder_layers"] = number(config, "num_decoder_layers", int, where)
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", kind == "t5"))
    model = T5(**fields, activation=activation, gated=gated, tie_embeddings=bool(tied))
    model.check()
    return model
