"""Key tables of BERT, RoBERTa and ELECTRA: our parameters and the names that transformers gives them.

The stack is spelled alike in all three, `{prefix}.encoder.layer.N...`; the heads are not. The decoder of masked
language modelling is the word table there too: its copies (`aliases`) are not written, and must agree when read.
"""

from __future__ import annotations

import dataclasses

from t5x_like.hub.directory import Key, dense, norm
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead

WORD = "embeddings.word_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is spelled.

    Attributes:
      name: `model_type` of config.json, and the prefix of the encoder's names.
      title: what its classes begin with.
      mlm: the head of masked language modelling: dense layer, norm, bias of the logits.
      aliases: stored names of what the head shares -> "word" or "bias".
    """

    name: str
    title: str
    mlm: tuple[str, str, str]
    aliases: dict[str, str]


BERT = Family(
    name="bert",
    title="Bert",
    mlm=("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    aliases={"cls.predictions.decoder.weight": "word", "cls.predictions.decoder.bias": "bias"},
)
ROBERTA = Family(
    name="roberta",
    title="Roberta",
    mlm=("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    aliases={"lm_head.decoder.weight": "word", "lm_head.decoder.bias": "bias"},
)
ELECTRA = Family(
    name="electra",
    title="Electra",
    mlm=("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    aliases={"generator_lm_head.weight": "word"},
)
FAMILIES = {family.name: family for family in (BERT, ROBERTA, ELECTRA)}

PAIR = "cls.seq_relationship"
DETECTION = {"dense": "discriminator_predictions.dense", "out": "discriminator_predictions.dense_prediction"}

TASKS = {
    "classification": "SequenceClassification",
    "regression": "SequenceClassification",
    "tagging": "TokenClassification",
    "span": "QuestionAnswering",
    "choice": "MultipleChoice",
}
"""`EncoderWithHead.head` -> what their class is for."""


def encoder_table(model: Encoder, family: Family, prefix: str | None = None) -> list[Key]:
    """Every parameter of `model` with unrolled layers.

    Args:
      prefix: before the encoder's names; the bare models (`BertModel`) have "", all others the family's name.
    """
    prefix = f"{family.name}." if prefix is None else prefix
    table = [Key(("embeddings", "word", "embedding"), prefix + WORD, False)]
    position = "embeddings.position_embeddings.weight"
    table.append(Key(("embeddings", "position", "embedding"), prefix + position, False))
    if model.token_types:
        table.append(Key(("embeddings", "token_type", "embedding"), prefix + TYPES, False))
    table += norm(("embeddings", "norm"), f"{prefix}embeddings.LayerNorm")
    if model.embedding_width != model.hidden_size:
        table += dense(("projection",), f"{prefix}embeddings_project")
    for index in range(model.num_layers):
        ours, theirs = f"layers_{index}", f"{prefix}encoder.layer.{index}"
        for name in ("query", "key", "value"):
            table += dense((ours, "attention", name), f"{theirs}.attention.self.{name}")
        table += dense((ours, "attention", "out"), f"{theirs}.attention.output.dense")
        table += norm((ours, "attention_norm"), f"{theirs}.attention.output.LayerNorm")
        table += dense((ours, "mlp", "wi"), f"{theirs}.intermediate.dense")
        table += dense((ours, "mlp", "wo"), f"{theirs}.output.dense")
        table += norm((ours, "mlp_norm"), f"{theirs}.output.LayerNorm")
    if model.pooler == "tanh":
        table += dense(("pooler",), f"{prefix}pooler.dense")
    if model.mlm_head:
        transform, transform_norm, bias = family.mlm
        table += dense(("mlm", "dense"), transform) + norm(("mlm", "norm"), transform_norm)
        table.append(Key(("mlm", "bias"), bias, False))
    if model.pair_head:
        table += dense(("pair",), PAIR)
    return table


def detection_table() -> list[Key]:
    """ELECTRA's head of detection, below "detection"."""
    return [key for part, name in DETECTION.items() for key in dense(("detection", part), name)]


def head_names(head: str, family: Family) -> dict[str, str]:
    """Our layers of a task's head -> theirs. "dense" may be more than the model has: BERT's is its pooler, and
    ELECTRA's choice may go without (`summary_use_proj`)."""
    if head == "span":
        return {"out": "qa_outputs"}
    if head in ("classification", "regression") and family is not BERT:
        return {"dense": "classifier.dense", "out": "classifier.out_proj"}
    if head == "choice" and family is ELECTRA:
        return {"dense": "sequence_summary.summary", "out": "classifier"}
    return {"out": "classifier"}


def with_head_table(model: EncoderWithHead, family: Family) -> list[Key]:
    """Every parameter of a fine-tuned model with unrolled layers."""
    table = [
        Key(("encoder", *key.path), key.name, key.transposed) for key in encoder_table(model.backbone, family)
    ]
    layers = model.abstract_params()["head"]
    names = head_names(model.head, family)
    return table + [key for layer in layers for key in dense(("head", layer), names[layer])]
