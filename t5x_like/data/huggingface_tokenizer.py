"""Hugging Face `tokenizer.json` files: WordPiece, byte-level BPE, and SentencePiece's kinds in that form."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers

from t5x_like.data.example import Vocabulary
from t5x_like.data.sentences import split_sentences
from t5x_like.data.tokenizer_base import SPACE, Encoded, Tokenizer, fingerprint
from t5x_like.errors import Exit, UserError

_USUAL_NAMES = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[EOS]", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
}
_ROBERTA = {"cls": "<s>", "sep": "</s>"}
"""What plays these parts in vocabularies with a mask and no name of their own for them."""

_NO_SPACE_BEFORE = frozenset(".,;:!?)}%'’”»…")
_NO_SPACE_BEHIND = frozenset("({$#'’“«")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` of the `tokenizers` library.

    Special tokens are named by `tokenizer_config.json` beside it where there is one, else looked up under their
    usual names.

    WordPiece forgets where spaces were: sentences are found in the text (a border is always beside punctuation or a
    line break, where BERT's rules cut words anyway, so the ids do not change), a punctuation mark is a word and its
    `piece_text` has no space, and `decode` puts spaces between words but not where punctuation usually has none. The
    ids of decoded text are the ids that were decoded.

    Args:
      files: `tokenizer.json` and, optionally, `tokenizer_config.json`.
    """

    def __init__(self, files: dict[str, bytes], *, where: str | None = None):
        try:
            text = files["tokenizer.json"].decode()
            layout: dict[str, Any] = json.loads(text)
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
            config = json.loads(files.get("tokenizer_config.json", b"{}"))
        except Exception as error:  # the Rust library raises bare `Exception`
            raise UserError(
                f"this is not a tokenizer.json: {error}", where=where, code=Exit.BAD_DATA
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocab = self._tokenizer.get_vocab(with_added_tokens=True)

        def named(kind: str) -> int | None:
            usual = _USUAL_NAMES[kind]
            if kind in _ROBERTA and "<mask>" in vocab:
                usual += (_ROBERTA[kind],)
            return _first(vocab, (configured(config, kind), *usual))

        eos, pad = named("eos"), named("pad")
        if eos is None:
            raise UserError(
                "this tokenizer has no end-of-sequence token (or separator) under a usual name",
                where=where,
                help='name it in a tokenizer_config.json beside it: {"eos_token": "..."}',
                code=Exit.BAD_DATA,
            )
        sentinels: list[int] = []
        while (index := vocab.get(f"<extra_id_{len(sentinels)}>")) is not None:
            sentinels.append(index)
        size = max(vocab.values()) + 1
        self.vocabulary = Vocabulary(
            size=size,
            pad=eos if pad is None else pad,
            eos=eos,
            unk=named("unk"),
            bos=named("bos"),
            mask=named("mask"),
            cls=named("cls"),
            sep=named("sep"),
            sentinels=tuple(sentinels),
        )
        self.files = dict(files)
        self.fingerprint = fingerprint(files)
        ends = (self.vocabulary.pad, eos, self.vocabulary.bos, self.vocabulary.cls, self.vocabulary.sep)
        self._dropped = {index for index in ends if index is not None}
        self._special = {i for kind in _USUAL_NAMES if (i := named(kind)) is not None} | set(sentinels)
        self._special |= {
            i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._spelling = _spelling(layout)
        self.lines_apart = self._spelling[0] == "continuation"
        self.word_starts = np.fromiter((self._starts_word(i) for i in range(size)), bool, size)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        pieces_tell = self._spelling[0] != "continuation"
        parts = [[text] if pieces_tell else split_sentences(text) for text in texts]
        first = np.cumsum([0, *map(len, parts)])
        self._tokenizer.encode_special_tokens = True
        try:
            encodings = self._tokenizer.encode_batch_fast(
                [part for document in parts for part in document], add_special_tokens=False
            )
        finally:
            self._tokenizer.encode_special_tokens = False
        arrays = [np.asarray(encoding.ids, np.int32) for encoding in encodings]
        ids = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
        starts = np.cumsum([0, *map(len, arrays)])
        documents = starts[first[:-1]]
        if pieces_tell:
            return Encoded(ids, documents, self._sentence_rule.starts(ids, documents))
        return Encoded(ids, documents, starts[:-1][np.diff(starts) > 0])

    def decode(self, ids: Iterable[int]) -> str:
        kept = [i for i in map(int, ids) if 0 <= i < self.vocabulary.size and i not in self._dropped]
        if self._spelling[0] == "continuation":
            return self._join(kept)
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def _join(self, ids: Iterable[int]) -> str:
        """Text of WordPiece ids. Spaces beside punctuation are a matter of taste: BERT's rules cut there anyway.

        The library's own decoder also turns `do not` into `don't`. Square brackets keep their spaces, so that no
        `[ MASK ]` of a text becomes a special token.
        """
        text, last, mark = "", "", self._spelling[1]
        for piece in map(self.id_to_piece, ids):
            inner = piece.startswith(mark)
            glued = not text or inner or piece in _NO_SPACE_BEFORE or last in _NO_SPACE_BEHIND
            text += ("" if glued else " ") + (piece.removeprefix(mark) if inner else piece)
            last = piece
        return text

    def id_to_piece(self, index: int) -> str:
        self._check(index)
        return self._tokenizer.id_to_token(int(index)) or ""

    def piece_text(self, index: int) -> str:
        piece = self._tokenizer.id_to_token(index)
        if piece is None or index in self._special:
            return ""
        kind, mark = self._spelling
        if kind == "bytes":
            codes = bytes(_byte_of().get(character, 63) for character in piece)
            return codes.decode("utf-8", errors="replace")
        if kind == "prefix":
            return piece.replace(mark, " ")
        if piece.startswith(mark):
            return piece.removeprefix(mark)
        return piece if piece in _NO_SPACE_BEFORE else " " + piece

    def _starts_word(self, index: int) -> bool:
        """Whether the piece begins with white space, or lacks the mark of those that go on with a word."""
        kind, mark = self._spelling
        if kind == "continuation":
            return index in self._special or not self.id_to_piece(index).startswith(mark)
        text = self.piece_text(index)
        return not text or text[0].isspace()


def _first(vocab: dict[str, int], names: Iterable[str | None]) -> int | None:
    return next((vocab[name] for name in names if name is not None and name in vocab), None)


def configured(config: Any, kind: str) -> str | None:
    """The name of a special token in a tokenizer_config.json: a string, or an object with `content`."""
    value = config.get(f"{kind}_token") if isinstance(config, dict) else None
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _spelling(layout: dict[str, Any]) -> tuple[str, str]:
    """How a tokenizer.json spells pieces: ("bytes", ""), ("prefix", "▁") or ("continuation", "##")."""
    model = layout.get("model") or {}
    if model.get("type") == "WordPiece":
        return "continuation", model.get("continuing_subword_prefix") or "##"
    parts = json.dumps([layout.get("pre_tokenizer"), layout.get("decoder")])
    return ("bytes", "") if '"ByteLevel"' in parts else ("prefix", SPACE)


@functools.cache
def _byte_of() -> dict[str, int]:
    """GPT-2's map from printable characters to bytes: 188 bytes stand for themselves, 68 from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
