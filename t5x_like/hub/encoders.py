"""BERT, RoBERTa and ELECTRA to Hugging Face directories; back by hub/encoder_import.py.

Their "gelu" is the exact form; ours of google-research/bert, the tanh form, is their "gelu_new".

ELECTRA's two networks are two models there, each with its own copy of the shared tables: the discriminator
(`ElectraForPreTraining`) is the directory, the generator (`ElectraForMaskedLM`) its folder `generator`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from t5x_like.errors import Exit, UserError
from t5x_like.hub import directory, safetensors, tokenizers
from t5x_like.hub.encoder_keys import (
    BERT,
    ELECTRA,
    ROBERTA,
    TASKS,
    TYPES,
    WORD,
    Family,
    detection_table,
    encoder_table,
    with_head_table,
)
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.family import Params
from t5x_like.models.heads import EncoderWithHead
from t5x_like.models.stack import unstack_layers

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer

AnyEncoder = Encoder | Electra | EncoderWithHead

GENERATOR = "generator"
"""The folder of ELECTRA's generator inside that of the discriminator."""

ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def family_of(model: AnyEncoder) -> Family:
    """The family in whose form `model` is written.

    Raises:
      UserError: there is none; says which field stands in the way.
    """
    encoder = model if isinstance(model, Encoder) else model.encoder
    roberta = encoder.position_offset > 0
    narrow = encoder.embedding_width != encoder.hidden_size
    electra = isinstance(model, Electra) or narrow
    if isinstance(model, EncoderWithHead):
        electra = electra or model.style.startswith("electra")
    else:
        electra = electra or encoder.pooler == "first"
    family = ROBERTA if roberta else ELECTRA if electra else BERT
    obstacles = [
        (roberta and electra, "positions that begin at position_offset", "ELECTRA's tables or heads"),
        (roberta and encoder.position_offset != encoder.pad_id + 1, "positions from", "another row than pad_id + 1"),
        (family is not BERT and _has_pair(model), f"{family.title} has", "no head for pairs of segments"),
        (family is ELECTRA and _has_pooler(model), "Electra has", "no dense pooler"),
        (
            family is not BERT and _has_mlm(model) and encoder.activation != "gelu",
            f"{family.title}'s head of masked language modelling has",
            f"the activation 'gelu', not {encoder.activation!r}",
        ),
    ]  # fmt: skip
    if isinstance(model, EncoderWithHead):
        style = {"electra-hf": "electra"}.get(model.style, model.style)
        obstacles += [
            (
                style != family.name,
                f"the encoder is {family.title}'s and the head's style",
                repr(model.style),
            ),
            (
                model.style == "electra" and model.head in ("classification", "regression"),
                "ElectraForSequenceClassification has",
                "a dense layer before the output: style 'electra-hf', not 'electra'",
            ),
        ]
    if isinstance(model, Electra):
        obstacles.append((model.copy, "Electra has", "no copy mechanism"))
    for hinders, what, why in obstacles:
        if hinders:
            raise UserError(f"transformers has no class for this model: {what} {why}", code=Exit.CANNOT_WRITE)
    return family


def _has_pair(model: AnyEncoder) -> bool:
    return isinstance(model, Encoder) and model.pair_head


def _has_mlm(model: AnyEncoder) -> bool:
    return isinstance(model, Electra) or (isinstance(model, Encoder) and model.mlm_head)


def _has_pooler(model: AnyEncoder) -> bool:
    if isinstance(model, EncoderWithHead):
        return model.backbone.pooler == "tanh"
    return (model if isinstance(model, Encoder) else model.encoder).pooler == "tanh"


def export_encoder(
    model: AnyEncoder, params: Params, folder: str | Path, tokenizer: Tokenizer | None = None
) -> None:
    """Writes a directory that `AutoModel...from_pretrained` loads, and `AutoTokenizer` with a tokenizer.

    Args:
      model, params: scanned or unrolled; the weights are written in float32. An `Electra` becomes its discriminator
        with the generator, where the parameters have one, in the folder `generator` inside.
      folder: must not exist or be empty. It appears whole or not at all.
      tokenizer: its files are written too.

    Raises:
      UserError: the folder is in use, cannot be written, transformers has no class for the model, or the parameters
        or the tokenizer are not those of the model.
    """
    family = family_of(model)
    if tokenizer is not None:
        directory.check_tokenizer(model.vocab_size, tokenizer)
        if tokenizer.vocabulary.pad != model.pad_id:
            raise UserError(
                f"the tokenizer's padding is id {tokenizer.vocabulary.pad} and the model's {model.pad_id}",
                help="export with the tokenizer that the model was trained with",
            )
    with directory.new_folder(folder) as made:
        _write(model, params, made, family, tokenizer)
        if isinstance(model, Electra) and GENERATOR in params:
            (made / GENERATOR).mkdir()
            _write(model.generator, model.generator_params(params), made / GENERATOR, family, tokenizer)


def _write(
    model: AnyEncoder, params: Params, folder: Path, family: Family, tokenizer: Tokenizer | None
) -> None:
    safetensors.write(folder, to_hugging_face(model, params, family))
    directory.write_json(folder / "config.json", to_config(model, family, tokenizer))
    if tokenizer is not None:
        tokenizers.write(tokenizer, folder)


def to_hugging_face(model: AnyEncoder, params: Params, family: Family | None = None) -> dict[str, np.ndarray]:
    """Their names to float32 arrays on the host; of an `Electra`, those of its discriminator."""
    family = family or family_of(model)
    encoder = model if isinstance(model, Encoder) else model.encoder
    if isinstance(model, Electra):
        own = model.encoder_params(params)
        if model.head == "detection":
            own["detection"] = params["discriminator"]["detection"]
        params = own
    if encoder.scan_layers:
        params = unstack_layers(params)
    if isinstance(model, EncoderWithHead):
        table = with_head_table(model, family)
    else:
        bare = isinstance(model, Encoder) and not model.mlm_head and not model.pair_head
        table = encoder_table(encoder, family, "" if bare else None)
        if isinstance(model, Electra) and model.head == "detection":
            table += detection_table()
    arrays = directory.to_arrays(table, params)
    if not encoder.token_types:  # there is always a table there; a row of zeros changes nothing
        prefix = table[0].name.removesuffix(WORD)
        arrays[prefix + TYPES] = np.zeros((1, encoder.embedding_width), np.float32)
    return arrays


def architecture(model: AnyEncoder, family: Family) -> str:
    """The class that the directory is for."""
    if isinstance(model, EncoderWithHead):
        return f"{family.title}For{TASKS[model.head]}"
    if isinstance(model, Electra):
        return "ElectraForPreTraining" if model.head == "detection" else "ElectraForMaskedLM"
    if model.pair_head:
        return "BertForPreTraining" if model.mlm_head else "BertForNextSentencePrediction"
    return f"{family.title}ForMaskedLM" if model.mlm_head else f"{family.title}Model"


def to_config(model: AnyEncoder, family: Family, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """config.json, as transformers 4 and 5 both read it."""
    encoder = model if isinstance(model, Encoder) else model.encoder
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    config: dict[str, Any] = {
        "architectures": [architecture(model, family)],
        "model_type": family.name,
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": encoder.d_ff,
        "hidden_act": theirs[encoder.activation],
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "max_position_embeddings": encoder.max_positions,
        "type_vocab_size": max(1, encoder.token_types),
        "initializer_range": encoder.stddev,
        "layer_norm_eps": encoder.eps,
        "pad_token_id": encoder.pad_id,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    if family is ELECTRA:
        config["embedding_size"] = encoder.embedding_width
    if tokenizer is not None and family is ROBERTA:
        config |= {"bos_token_id": tokenizer.vocabulary.bos, "eos_token_id": tokenizer.vocabulary.eos}
    if isinstance(model, EncoderWithHead):
        labels = {"span": 2, "choice": 2}.get(model.head, model.outputs)
        config |= {
            "classifier_dropout": model.dropout,
            "id2label": {str(i): f"LABEL_{i}" for i in range(labels)},
            "label2id": {f"LABEL_{i}": i for i in range(labels)},
        }
        if TASKS[model.head] == "SequenceClassification":
            regression = model.head == "regression"
            config["problem_type"] = "regression" if regression else "single_label_classification"
        if family is ELECTRA and model.head == "choice":
            inner = model.style == "electra-hf"
            config |= {
                "summary_type": "first",
                "summary_use_proj": inner,
                "summary_activation": "gelu" if inner else "",  # none
                "summary_last_dropout": model.dropout,
            }
    return config
