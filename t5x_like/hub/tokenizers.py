"""A tokenizer's files as `AutoTokenizer` wants them, sentinels and special ids included.

transformers 5 rebuilds `T5Tokenizer` from `spiece.model` as a plain unigram model: right for T5's own kind of
vocabulary, wrong for BPE and for byte fallback. Those get a `tokenizer.json` too, which says everything, and the
class that reads it as it stands.
"""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5x_like.data import tokenizer_json

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer

_SPACE = "▁"
_UNIGRAM = 1  # sentencepiece_model.proto, TrainerSpec.ModelType
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6  # SentencePiece.Type


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the tokenizer's own files, `tokenizer_config.json`, and `tokenizer.json` where it takes that."""
    tokenizer.save(folder)
    config = folder / "tokenizer_config.json"
    if config.exists():
        return
    vocabulary = tokenizer.vocabulary
    settings: dict[str, Any] = {
        f"{name}_token": tokenizer.id_to_piece(index)
        for name in ("pad", "eos", "unk", "bos", "cls", "sep", "mask")
        if (index := getattr(vocabulary, name)) is not None
    }
    sentinels = [f"<extra_id_{i}>" for i in range(len(vocabulary.sentinels))]
    if sentinels:
        settings["additional_special_tokens"] = sentinels
    if "spiece.model" in tokenizer.files and _is_t5s_own_kind(tokenizer):
        settings |= {"tokenizer_class": "T5Tokenizer", "extra_ids": len(sentinels), "legacy": False}
    else:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        if "spiece.model" in tokenizer.files:
            (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json(tokenizer), ensure_ascii=False))
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@functools.cache
def _model_class() -> Any:
    """The message ModelProto, as far as it is read here (sentencepiece_model.proto). The package's own generated
    module asks for the newest protobuf runtime, which not everything in one environment goes with."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pieces.proto", package="t5x_like", syntax="proto2")
    for message, fields in {
        "Piece": [("piece", 1, "string", ""), ("score", 2, "float", ""), ("type", 3, "int32", "1")],
        "TrainerSpec": [("model_type", 3, "int32", "1")],
        "NormalizerSpec": [("precompiled_charsmap", 2, "bytes", "")],
        "ModelProto": [
            ("pieces", 1, "Piece", ""),
            ("trainer_spec", 2, "TrainerSpec", ""),
            ("normalizer_spec", 3, "NormalizerSpec", ""),
        ],
    }.items():
        described = file.message_type.add(name=message)
        for name, number, kind, default in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".t5x_like.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t5x_like.ModelProto"))


def _model_proto(tokenizer: Tokenizer) -> Any:
    return _model_class().FromString(tokenizer.files["spiece.model"])


def _is_t5s_own_kind(tokenizer: Tokenizer) -> bool:
    """Unigram without bytes or user symbols, pad 0, eos 1, unk 2, all sentinels above the pieces."""
    proto, vocabulary = _model_proto(tokenizer), tokenizer.vocabulary
    top = tuple(range(vocabulary.size - 1, len(proto.pieces) - 1, -1))
    return (
        proto.trainer_spec.model_type == _UNIGRAM
        and not any(piece.type in (_BYTE, _USER_DEFINED) for piece in proto.pieces)
        and (vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2)
        and vocabulary.sentinels == top
    )


def _tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `tokenizers` library's description of a SentencePiece model; white space is folded, as T5 does."""
    proto, vocabulary = _model_proto(tokenizer), tokenizer.vocabulary
    names = [tokenizer.id_to_piece(i) for i in range(vocabulary.size)]
    scores = [piece.score for piece in proto.pieces] + [0.0] * (vocabulary.size - len(proto.pieces))
    added = {vocabulary.pad, vocabulary.eos, *vocabulary.sentinels}
    added |= {i for i, piece in enumerate(proto.pieces) if piece.type in (_UNKNOWN, _CONTROL, _USER_DEFINED)}
    metaspace = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    eos = names[vocabulary.eos]
    first, end = tokenizer_json.sequence("A", 0), tokenizer_json.special(eos, 0)
    second = tokenizer_json.sequence("B", 1)
    charsmap = proto.normalizer_spec.precompiled_charsmap
    normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    byte_fallback = any(piece.type == _BYTE for piece in proto.pieces)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            tokenizer_json.added_token(
                i, names[i], special=i >= len(proto.pieces) or proto.pieces[i].type != _USER_DEFINED
            )
            for i in sorted(added)
        ],
        "normalizer": normalizer if charsmap else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": tokenizer_json.template(
            [first, end], [first, end, second, tokenizer_json.special(eos, 1)], {eos: vocabulary.eos}
        ),
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]},
        "model": _unigram(names, scores, vocabulary.unk, byte_fallback)
        if proto.trainer_spec.model_type == _UNIGRAM
        else _bpe(names, scores, vocabulary.unk, byte_fallback),
    }


def _unigram(names: list[str], scores: list[float], unk: int | None, byte_fallback: bool) -> dict[str, Any]:
    vocab = list(zip(names, scores, strict=True))
    return {"type": "Unigram", "unk_id": unk, "vocab": vocab, "byte_fallback": byte_fallback}


def _bpe(names: list[str], scores: list[float], unk: int | None, byte_fallback: bool) -> dict[str, Any]:
    """A SentencePiece BPE model joins whichever neighbours form the piece of the best score; here that is a list
    of merges, best first: every way to cut every piece into two pieces."""
    ids = {name: i for i, name in enumerate(names)}
    merges = [
        (-scores[i], ids[name[:cut]], ids[name[cut:]], [name[:cut], name[cut:]])
        for i, name in enumerate(names)
        for cut in range(1, len(name))
        if name[:cut] in ids and name[cut:] in ids
    ]
    return {
        "type": "BPE",
        "unk_token": None if unk is None else names[unk],
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
        "vocab": ids,
        "merges": [pair for *_, pair in sorted(merges)],
    }
