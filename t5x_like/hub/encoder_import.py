"""BERT, RoBERTa and ELECTRA from Hugging Face directories; to them by hub/encoders.py.

Which heads a directory has is read from its weights, and which task a `classifier` is for from `architectures`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from t5x_like.errors import Exit, UserError
from t5x_like.hub import directory, safetensors
from t5x_like.hub.directory import number
from t5x_like.hub.encoder_keys import (
    BERT,
    DETECTION,
    ELECTRA,
    FAMILIES,
    PAIR,
    ROBERTA,
    TASKS,
    WORD,
    Family,
    detection_table,
    encoder_table,
    head_names,
    with_head_table,
)
from t5x_like.hub.encoders import ACTIVATIONS, GENERATOR, AnyEncoder
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.family import Params
from t5x_like.models.heads import EncoderWithHead, Head, Style

_HEADS: dict[str, Head] = {task: head for head, task in reversed(TASKS.items())}  # pyright: ignore[reportAssignmentType]


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
    if activation not in ACTIVATIONS:
        raise UserError(
            f"hidden_act is {activation!r}; expected one of {', '.join(ACTIVATIONS)}",
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
        activation=ACTIVATIONS[activation],
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
    try:
        encoder.check()
    except UserError as e:  # the field is one of ours; the mistake is in their file
        raise UserError(e.what, where=where, code=Exit.BAD_DATA) from None
    return encoder, family
