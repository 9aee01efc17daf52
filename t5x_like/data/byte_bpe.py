"""Byte-level BPE: the tokenizer of GPT-2 and RoBERTa, read from its two files or trained.

Text is cut by GPT-2's regular expression (openai/gpt-2 `encoder.py`), each part spelled in bytes, and pairs of
pieces are joined in the order in which training joined them. A space belongs to the word behind it (`Ġthe`), so
`the` at the start of a document and ` the` elsewhere are different pieces, and no space is put before the first word
of a document, as in GPT-2 and RoBERTa. A piece begins a word where it begins with white space (fairseq,
`GPT2BPE.is_beginning_of_word`): punctuation behind a word belongs to it, the first word of a document is marked by
the document's start alone, and a word behind a line break by the break.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, ClassVar

import tokenizers

from t5x_like.data import tokenizer_json
from t5x_like.data.huggingface_tokenizer import HuggingFaceTokenizer, configured
from t5x_like.errors import Exit, UserError

SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
"""RoBERTa's: the first four are ids 0 to 3, the mask the last one."""

_ROLES = {"cls": "<s>", "sep": "</s>"}
_BYTES = 256
_MIN_FREQUENCY = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteBPETraining:
    """A byte-level BPE tokenizer to be trained, with RoBERTa's special ids.

    Attributes:
      vocab_size: all ids, special ones included; RoBERTa's has 50,265.
    """

    model_type: ClassVar[str] = "bytebpe"
    vocab_size: int = 50265

    def check(self) -> None:
        """Raises `UserError` for a vocabulary that cannot hold the bytes and the special tokens."""
        least = _BYTES + len(SPECIAL)
        if self.vocab_size < least:
            raise UserError(
                f"vocab_size is {self.vocab_size}; the {_BYTES} bytes and {len(SPECIAL)} special tokens need {least}",
                where="--vocab_size",
                help="--vocab_size=50265",
            )

    def train(self, texts: Iterable[str]) -> HuggingFaceTokenizer:
        """Trains on `texts`; equal texts give equal bytes, in every process.

        Raises:
          UserError: the sample is too small for the vocabulary; the message names the largest that works.
        """
        self.check()
        first = list(SPECIAL.values())[:-1]
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer: Any = tokenizers.trainers.BpeTrainer(
            vocab_size=self.vocab_size - 1,
            min_frequency=_MIN_FREQUENCY,
            special_tokens=first,
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        ids: dict[str, int] = model["vocab"]
        if len(ids) == len(first) + _BYTES < self.vocab_size - 1:
            raise UserError("there is no text to train a tokenizer on", where="--input", code=Exit.BAD_DATA)
        if len(ids) + 1 < self.vocab_size:
            raise UserError(
                f"the text is too small for a vocabulary of {self.vocab_size} ids (bytebpe); "
                f"it can carry {len(ids) + 1}",
                where="--vocab_size",
                help=f"--vocab_size={len(ids) + 1}, or more text",
                code=Exit.BAD_DATA,
            )
        ids[SPECIAL["mask"]] = len(ids)
        return from_merges(ids, [tuple(pair) for pair in model["merges"]])


def from_files(
    vocabulary: bytes, merges: bytes, config: bytes | None = None, *, where: str | None = None
) -> HuggingFaceTokenizer:
    """The tokenizer of `vocab.json` and `merges.txt`, or of OpenAI's `encoder.json` and `vocab.bpe`.

    Args:
      vocabulary: JSON object of piece -> id.
      merges: two pieces a line, the first joined first, under a `#version` line.
      config: a `tokenizer_config.json` beside them, for the names of special tokens and `add_prefix_space`.
      where: the first file's name for messages.

    Raises:
      UserError: they are no such files, or do not belong together.
    """
    try:
        ids = json.loads(vocabulary)
        settings = json.loads(config or b"{}")
        lines = [line.rstrip("\r") for line in merges.decode().split("\n")]
    except (ValueError, RecursionError) as error:
        raise UserError(f"this is not a byte-level BPE: {error}", where=where, code=Exit.BAD_DATA) from None
    if not isinstance(ids, dict) or not all(isinstance(index, int) for index in ids.values()):
        raise UserError(
            "this is not a byte-level BPE: expected one JSON object of piece -> id",
            where=where,
            code=Exit.BAD_DATA,
        )
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys():
            raise UserError(
                f"line {number} of the merges is {line[:60]!r}: not two pieces of the vocabulary that join to a third",
                where=where,
                code=Exit.BAD_DATA,
            )
        pairs.append(pair)
    settings = settings if isinstance(settings, dict) else {}
    usual = SPECIAL | _ROLES
    if "<|endoftext|>" in ids and "</s>" not in ids:  # GPT-2
        usual |= dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
    names = {kind: configured(settings, kind) or name for kind, name in usual.items()}
    return from_merges(
        ids,
        pairs,
        names=names,
        prefix_space=bool(settings.get("add_prefix_space", False)),
        where=where,
    )


def from_merges(
    ids: dict[str, int],
    merges: list[tuple[str, ...]],
    *,
    names: dict[str, str] | None = None,
    prefix_space: bool = False,
    where: str | None = None,
) -> HuggingFaceTokenizer:
    """A byte-level BPE tokenizer.

    Args:
      ids: piece, spelled in GPT-2's printable bytes, -> id.
      merges: pairs in the order in which they are joined.
      names: names of the special tokens; those that `ids` lacks are left out.
      prefix_space: put a space before a text that has none.
      where: the file's name for messages.
    """
    names = {kind: name for kind, name in (names or SPECIAL | _ROLES).items() if name in ids}
    post_processor = None
    if "mask" in names and "cls" in names and "sep" in names:
        post_processor = {
            "type": "RobertaProcessing",
            "sep": [names["sep"], ids[names["sep"]]],
            "cls": [names["cls"], ids[names["cls"]]],
            "trim_offsets": True,
            "add_prefix_space": prefix_space,
        }
    byte_level = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": True}
    files = tokenizer_json.files(
        added=[
            # RoBERTa's mask stands for ` word`, so it takes the space before it along.
            tokenizer_json.added_token(ids[name], name, lstrip=name == names.get("mask"))
            for name in sorted(set(names.values()), key=ids.__getitem__)
        ],
        normalizer=None,
        pre_tokenizer={**byte_level, "use_regex": True},
        post_processor=post_processor,
        decoder={**byte_level, "use_regex": True},
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(ids.items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in merges],
        },
        config={
            "tokenizer_class": "RobertaTokenizer" if "mask" in names else "GPT2Tokenizer",
            "add_prefix_space": prefix_space,
            **{f"{kind}_token": name for kind, name in names.items()},
        },
    )
    return HuggingFaceTokenizer(files, where=where)
