"""BERT, RoBERTa and ELECTRA to and from Hugging Face directories.

Their "gelu" is the exact form; ours of google-research/bert, the tanh form, is their "gelu_new". Which heads a
directory has is read from its weights, and which task a `classifier` is for from `architectures`.

ELECTRA's two networks are two models there, each with its own copy of the shared tables: the discriminator
(`ElectraForPreTraining`) is the directory, the generator (`ElectraForMaskedLM`) its folder `generator`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from t5x_like.errors import Exit, UserError
from t5x_like.hub import directory, safetensors, tokenizers
from t5x_like.hub.directory import number
from t5x_like.hub.encoder_keys import (
    BERT,
    DETECTION,
    ELECTRA,
    FAMILIES,
    PAIR,
    ROBERTA,
    TASKS,
    TYPES,
    WORD,
    Family,
    detection_table,
    encoder_table,
    head_names,
    with_head_table,
)
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.family import Params
from t5x_like.models.heads import EncoderWithHead, Head, Style
from t5x_like.models.stack import unstack_layers

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer

AnyEncoder = Encoder | Electra | EncoderWithHead

GENERATOR = "generator"
"""The folder of ELECTRA's generator inside that of the discriminator."""

_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_HEADS: dict[str, Head] = {task: head for head, task in reversed(TASKS.items())}  # pyright: ignore[reportAssignmentType]


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


# Export


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
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
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


# Import


def import_encoder(folder: str | Path, *, on_host: bool = False) -> tuple[AnyEncoder, Params]:
    """A model and its float32 parameters, unrolled, from a Hugging Face directory of BERT, RoBERTa or ELECTRA.

    Args:
      folder: `config.json` with `model.safetensors` or shards and their index.
      on_host: leave NumPy arrays; otherwise they go to the default device.

    Returns:
      An `Encoder` with the pretraining heads that are there; an `EncoderWithHead` where the class is one for a task;
      an `Electra` where there is a head of detection or a folder `generator`. Without that folder its parameters
      have no "generator": it detects and can be fine-tuned, but fills no blanks. See `import_electra`.

    Raises:
      UserError: not such a folder, weights that do not fit the configuration, or an architecture that is not
        expressed here.
    """
    folder = Path(folder)
    if (folder / GENERATOR / "config.json").is_file():
        return import_electra(folder, folder / GENERATOR, on_host=on_host)
    return _import(folder, on_host)


def import_electra(
    discriminator: str | Path, generator: str | Path, *, on_host: bool = False
) -> tuple[Electra, Params]:
    """Both networks of ELECTRA from two directories, for going on with pretraining.

    What they share is seen from the values: tables and norm of the embeddings, or the whole stack.

    Raises:
      UserError: as `import_encoder`; or the two do not belong together.
    """
    where = str(generator)
    model, params = _import(Path(discriminator), on_host)
    other, other_params = _import(Path(generator), on_host)
    if isinstance(model, Encoder) and model.mlm_head and model.pooler == "first":
        model, params = Electra(encoder=model, head="mlm"), {"discriminator": params}
    if not isinstance(model, Electra):
        raise UserError("this is no discriminator of ELECTRA", where=str(discriminator), code=Exit.BAD_DATA)
    if not isinstance(other, Encoder) or not other.mlm_head or other.pooler != "first":
        raise UserError("this is no generator of ELECTRA", where=where, code=Exit.BAD_DATA)
    own = params["discriminator"]
    everything = other_params.keys() - {"mlm"}
    alike = {name for name in everything if name in own and _equal(own[name], other_params[name])}
    sharing: Literal["none", "embeddings", "all"] = "none"
    if alike == everything and everything == model.encoder_params(params).keys() - {"mlm"}:
        sharing = "all"
    elif "embeddings" in alike:
        sharing, alike = "embeddings", {"embeddings"}
    else:
        alike = set()
    model = dataclasses.replace(
        model,
        generator_hidden=other.hidden_size / model.hidden_size,
        generator_layers=other.num_layers / model.num_layers,
        sharing=sharing,
    )
    model.check()
    expected = model.generator
    for name in ("vocab_size", "embedding_width", "num_heads", "d_ff", "max_positions", "token_types", "eps"):
        if getattr(other, name) != getattr(expected, name):
            raise UserError(
                f"the generator's {name} is {getattr(other, name)}; beside this discriminator it is "
                f"{getattr(expected, name)}",
                where=where,
                code=Exit.BAD_DATA,
            )
    shared = {"shared": {name: own[name] for name in sorted(alike)}} if alike else {}
    return model, {
        **shared,
        "generator": {k: v for k, v in other_params.items() if k not in alike},
        "discriminator": {k: v for k, v in own.items() if k not in alike},
    }


def _equal(a: Params, b: Params) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def _import(folder: Path, on_host: bool) -> tuple[AnyEncoder, Params]:
    weights = safetensors.Weights(folder)
    where = str(folder / "config.json")
    config = safetensors.read_json(folder / "config.json")
    # TensorFlow's names of norms, in the oldest checkpoints.
    names = {
        name.removesuffix(".gamma") + ".weight"
        if name.endswith(".gamma")
        else name.removesuffix(".beta") + ".bias"
        if name.endswith(".beta")
        else name: name
        for name in weights.names()
    }
    encoder, family = from_config(config, names.keys(), where=where)
    prefix = None if any(name.startswith(family.name + ".") for name in names) else ""
    task = _task(config, family, names.keys(), where)
    if task is not None:
        head, style = task
        out = names[f"{head_names(head, family)['out']}.weight"]
        outputs = len(weights.read(out))
        if head == "classification" and outputs == 1:
            head = "regression"
        model: AnyEncoder = EncoderWithHead(
            encoder=encoder,
            head=head,
            num_labels=outputs if head in ("classification", "tagging") else 1,
            style=style,
            dropout=number(
                {k: v for k, v in config.items() if v is not None}, "classifier_dropout", float, where, encoder.dropout
            ),
        )  # fmt: skip
        table, abstract = with_head_table(model, family), model.abstract_params()
    elif family is ELECTRA and f"{DETECTION['out']}.weight" in names:
        model = Electra(encoder=encoder, sharing="none")
        table = encoder_table(encoder, family) + detection_table()
        abstract = model.abstract_params()["discriminator"]
    else:
        model = encoder
        table, abstract = encoder_table(encoder, family, prefix), encoder.abstract_params()
    aliases = _agreeing_aliases(weights, names, family, prefix)
    buffers = {name for name in names if name.endswith((".position_ids", ".token_type_ids"))}
    # Checkpoints of a task keep the pretraining heads' or the pooler's weights now and then, unused.
    known = {key.name for key in encoder_table(_with_all_heads(encoder, family), family)}
    unused = known - {key.name for key in table} if task is not None else set()
    params = directory.from_arrays(
        weights,
        table,
        abstract,
        stands_for=names,
        ignored={names.get(name, name) for name in {"embeddings.position_ids"} | aliases | buffers | unused},
        on_host=on_host,
    )
    if isinstance(model, Electra):
        params = {"discriminator": params}
    return model, params


def _with_all_heads(encoder: Encoder, family: Family) -> Encoder:
    return dataclasses.replace(encoder, mlm_head=True, pair_head=family is BERT, pooler="tanh")


def _agreeing_aliases(
    weights: safetensors.Weights, names: dict[str, str], family: Family, prefix: str | None
) -> set[str]:
    """Stored copies of shared arrays; raises `UserError` where one differs from what it is a copy of."""
    originals = {
        "word": (f"{family.name}." if prefix is None else prefix) + WORD,
        "bias": family.mlm[2],
    }
    found = set()
    for alias, kind in family.aliases.items():
        original = originals[kind]
        if alias not in names:
            continue
        found.add(alias)
        if original in names and not np.array_equal(
            weights.read(names[alias]), weights.read(names[original])
        ):
            raise UserError(
                f"{alias} differs from {original}; here they are one",
                where=str(weights.folder),
                code=Exit.BAD_DATA,
            )
    return found


def _task(config: dict[str, Any], family: Family, names: Any, where: str) -> tuple[Head, Style] | None:
    """The head and style that `architectures` and the weights speak of; None for pretrained models."""
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    head = _HEADS.get(str(named).removeprefix(f"{family.title}For"))
    if head is None:
        if any(name.startswith(("classifier.", "qa_outputs.")) for name in names):
            raise UserError(
                f"there is a task's head, but architectures is {architectures!r}; expected one of "
                + ", ".join(f"{family.title}For{task}" for task in _HEADS),
                where=where,
                code=Exit.BAD_DATA,
            )
        return None
    layers = head_names(head, family)
    if f"{layers['out']}.weight" not in names:
        raise UserError(
            f"architectures is {named}, and the weights have no {layers['out']}.weight",
            where=where,
            code=Exit.BAD_DATA,
        )
    if family is not ELECTRA:
        return head, "bert" if family is BERT else "roberta"
    if head == "choice" and f"{layers['dense']}.weight" not in names:
        return head, "electra"
    return head, "electra-hf"


def from_config(config: dict[str, Any], names: Any, where: str = "config.json") -> tuple[Encoder, Family]:
    """The encoder that a config.json describes, with those heads whose weights are among `names`.

    Raises:
      UserError: another family, or what is not expressed here.
    """
    kind = config.get("model_type", "bert")
    if kind not in FAMILIES:
        raise UserError(
            f"model_type is {kind!r}; expected one of {', '.join(FAMILIES)}", where=where, code=Exit.BAD_DATA
        )
    family = FAMILIES[kind]
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"hidden_act is {activation!r}; expected one of {', '.join(_ACTIVATIONS)}",
            where=where,
            code=Exit.BAD_DATA,
        )
    for name, only in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if config.get(name, only) != only:
            raise UserError(
                f"{name} is {config[name]!r}; here it is always {only!r}", where=where, code=Exit.BAD_DATA
            )
    pad = number(config, "pad_token_id", int, where, 1 if family is ROBERTA else 0)
    pooled = any(name.endswith("pooler.dense.weight") for name in names)
    mlm = f"{family.mlm[0]}.weight" in names
    if mlm and family is not BERT and activation != "gelu":
        # transformers computes these heads with the exact form, whatever the configuration says.
        raise UserError(
            f"hidden_act is {activation!r}, and the head of {family.title}ForMaskedLM is always 'gelu'",
            where=where,
            code=Exit.BAD_DATA,
        )
    encoder = Encoder(
        vocab_size=number(config, "vocab_size", int, where, 30522),
        hidden_size=(hidden := number(config, "hidden_size", int, where, 768)),
        embedding_size=number(config, "embedding_size", int, where, hidden) if family is ELECTRA else None,
        num_layers=number(config, "num_hidden_layers", int, where, 12),
        num_heads=number(config, "num_attention_heads", int, where, 12),
        d_ff=number(config, "intermediate_size", int, where, 3072),
        max_positions=number(config, "max_position_embeddings", int, where, 512),
        position_offset=pad + 1 if family is ROBERTA else 0,
        token_types=number(config, "type_vocab_size", int, where, 2),
        pooler="first" if family is ELECTRA else "tanh" if pooled else "none",
        activation=_ACTIVATIONS[activation],
        eps=number(config, "layer_norm_eps", float, where, 1e-12),
        dropout=number(config, "hidden_dropout_prob", float, where, 0.1),
        attention_dropout=number(config, "attention_probs_dropout_prob", float, where, 0.1),
        stddev=number(config, "initializer_range", float, where, 0.02),
        truncated_init=family is not ROBERTA,
        glorot_projection=family is ELECTRA,
        zero_pad_rows=family is ROBERTA,
        pad_id=pad,
        mlm_head=mlm,
        pair_head=f"{PAIR}.weight" in names,
        scan_layers=False,
    )
    encoder.check()
    return encoder, family
