"""Tokenizers: SentencePiece models and Hugging Face `tokenizer.json` files behind one interface.

Special ids come from the file, by name; sentinels `<extra_id_i>` are taken from the file where it has them and
are otherwise put above a SentencePiece model's pieces in T5's order, `<extra_id_0>` highest (seqio,
`SentencePieceVocabulary(extra_ids=...)`).
"""

from __future__ import annotations

import abc
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32, Int64

from t5x_like.data.example import Vocabulary
from t5x_like.data.sentences import SentenceRule
from t5x_like.errors import Exit, UserError

SENTINELS = 100
"""Sentinels that a SentencePiece model without its own gets by default, as in T5."""

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_SPACE = "▁"
# ModelProto.normalizer_spec (field 3) { add_dummy_prefix (field 3): false }. Serialised protobuf messages merge
# when they are concatenated, so these bytes behind a model switch its leading space off.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
_USUAL_NAMES = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[EOS]", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
}


class Encoded(NamedTuple):
    """Documents as one flat array: ids, first token of each document, first token of each sentence."""

    ids: Int32[np.ndarray, "T"]
    documents: Int64[np.ndarray, "D"]
    sentences: Int64[np.ndarray, "S"]


class Tokenizer(abc.ABC):
    """Text to ids and back.

    Attributes:
      vocabulary: size and special ids.
      fingerprint: 32 hexadecimal digits of the SHA-256 of everything that decides the ids.
      files: file name -> content; what `save` writes.
      word_starts: [V] true where the piece begins a word, and for special ids.
    """

    vocabulary: Vocabulary
    fingerprint: str
    files: dict[str, bytes]
    word_starts: Bool[np.ndarray, "V"]

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; `<extra_id_i>` in it becomes the sentinel; no end-of-sequence id is added."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`: sentinels as `<extra_id_i>`; padding, begin and end ids and ids beyond the pieces dropped."""

    @abc.abstractmethod
    def id_to_piece(self, index: int) -> str:
        """The piece as the tokenizer's file spells it; `<extra_id_i>` for a sentinel.

        Raises:
          UserError: `index` is outside the vocabulary.
        """

    @abc.abstractmethod
    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Documents as training data: nothing in the text is read as a special token."""

    @abc.abstractmethod
    def piece_text(self, index: int) -> str:
        """The text that a piece stands for, a leading space where it begins a word; "" for special ids."""

    def encode_batch(self, texts: Sequence[str]) -> list[Int32[np.ndarray, "T"]]:
        """`encode` of each text, as arrays."""
        return [np.asarray(self.encode(text), np.int32) for text in texts]

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer's files into `folder`; `load_tokenizer(folder)` gives an equal tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    @functools.cached_property
    def _sentence_rule(self) -> SentenceRule:
        return SentenceRule([self.piece_text(i) for i in range(self.vocabulary.size)])

    def _check(self, index: int) -> None:
        if not 0 <= index < self.vocabulary.size:
            raise UserError(f"token id {index} is outside the vocabulary of {self.vocabulary.size} ids")


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model (unigram or BPE), with sentinels above its pieces unless the model has its own.

    Args:
      model: the content of a `.model` file.
      extra_ids: number of sentinels to add; 0 where the model has pieces `<extra_id_i>`.
      where: the file's name for messages.
    """

    def __init__(self, model: bytes, *, extra_ids: int = SENTINELS, where: str | None = None):
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._continuation = sentencepiece.SentencePieceProcessor(model_proto=model + _NO_DUMMY_PREFIX)
            pieces = self._processor.get_piece_size()
        except RuntimeError:
            pieces = 0
        if not pieces:
            raise UserError("this is not a SentencePiece model", where=where, code=Exit.BAD_DATA)
        own = self._own_sentinels()
        extra_ids = 0 if own else extra_ids
        size = pieces + extra_ids
        sentinels = own or tuple(size - 1 - i for i in range(extra_ids))
        eos = self._processor.eos_id()
        if eos < 0:
            raise UserError(
                "this SentencePiece model has no end-of-sequence piece",
                where=where,
                help="train it with eos_id=1, or let `prepare` train one",
                code=Exit.BAD_DATA,
            )
        pad = self._processor.pad_id()
        self.vocabulary = Vocabulary(
            size=size,
            # Without a padding piece (LLaMA) rows are padded with the end id, and masked by their lengths.
            pad=pad if pad >= 0 else eos,
            eos=eos,
            unk=_known(self._processor.unk_id()),
            bos=_known(self._processor.bos_id()),
            mask=self._named("[MASK]", "<mask>"),
            cls=self._named("[CLS]", "<cls>"),
            sep=self._named("[SEP]", "<sep>"),
            sentinels=sentinels,
        )
        self._pieces = pieces
        self._sentinel_number = {index: i for i, index in enumerate(sentinels)}
        self._dropped = {self.vocabulary.pad, eos, self.vocabulary.bos}
        settings = json.dumps({"extra_ids": extra_ids}).encode()
        self.files = {"spiece.model": model, "spiece.json": settings}
        self.fingerprint = _fingerprint(self.files)
        self.word_starts = np.fromiter((self._starts_word(i) for i in range(size)), bool, size)
        # T5's models fold runs of white space into one; LLaMA's keep them.
        self._collapses = self._processor.encode(" a\n\n b ") == self._processor.encode("a b")

    def encode(self, text: str) -> list[int]:
        if "<extra_id_" not in text:
            return self._processor.encode(text)
        ids: list[int] = []
        position = 0
        for match in _SENTINEL.finditer(text):
            number = int(match[1][:9])
            if number >= len(self.vocabulary.sentinels):
                continue
            ids += self._encode_after(text[position : match.start()], first=position == 0)
            ids.append(self.vocabulary.sentinels[number])
            position = match.end()
        return ids + self._encode_after(text[position:], first=position == 0)

    def _encode_after(self, text: str, *, first: bool) -> list[int]:
        """Ids of a stretch of text; behind a sentinel, `lo` goes on with a word and ` lo` begins one."""
        if first or (self._collapses and text[:1].isspace()):
            return self._processor.encode(text)
        return self._continuation.encode(text)

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        if self._collapses:
            # A line break is white space to the model, so lines are encoded one by one to remember where they begin.
            lines = [text.split("\n") for text in texts]
            flat = [line for document in lines for line in document]
            first = np.cumsum([0, *map(len, lines)])[:-1]
        else:
            flat, first = list(texts), np.arange(len(texts))
        arrays = self._processor.encode(flat, return_type="numpy", num_threads=1) if flat else []
        ids = np.concatenate(arrays) if flat else np.zeros(0, np.int32)
        starts = np.zeros(len(flat) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, arrays), np.int64, len(flat)), out=starts[1:])
        return Encoded(ids, starts[:-1][first], self._sentence_rule.starts(ids, starts[:-1]))

    def decode(self, ids: Iterable[int]) -> str:
        text, group = "", []
        for index in [*map(int, ids), -1]:
            sentinel = self._sentinel_number.get(index)
            if sentinel is None and index != -1:
                if 0 <= index < self._pieces and index not in self._dropped:
                    group.append(index)
                continue
            if group:
                text += (" " if text and self.word_starts[group[0]] else "") + self._processor.decode(group)
                group = []
            if sentinel is not None:
                text += (" " if text and not text[-1].isspace() else "") + f"<extra_id_{sentinel}>"
        return text

    def id_to_piece(self, index: int) -> str:
        self._check(index)
        if index in self._sentinel_number:
            return f"<extra_id_{self._sentinel_number[index]}>"
        return self._processor.id_to_piece(int(index))

    def piece_text(self, index: int) -> str:
        if index >= self._pieces or index in self._sentinel_number or self._is_special(index):
            return ""
        piece = self._processor.id_to_piece(index)
        if self._processor.is_byte(index):
            value = int(piece[3:5], 16)
            return chr(value) if value < 128 else ""
        return piece.replace(_SPACE, " ")

    def _starts_word(self, index: int) -> bool:
        if index >= self._pieces or index in self._sentinel_number or self._is_special(index):
            return True
        return self._processor.id_to_piece(index).startswith(_SPACE)

    def _is_special(self, index: int) -> bool:
        return self._processor.is_control(index) or self._processor.is_unknown(index)

    def _named(self, *names: str) -> int | None:
        for name in names:
            index = self._processor.piece_to_id(name)
            if index != self._processor.unk_id():
                return index
        return None

    def _own_sentinels(self) -> tuple[int, ...]:
        found: list[int] = []
        while (index := self._named(f"<extra_id_{len(found)}>")) is not None:
            found.append(index)
        return tuple(found)


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` of the `tokenizers` library (extra `text`).

    Special tokens are named by `tokenizer_config.json` beside it where there is one, else looked up under their
    usual names.

    Args:
      files: `tokenizer.json` and, optionally, `tokenizer_config.json`.
    """

    def __init__(self, files: dict[str, bytes], *, where: str | None = None):
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                "reading tokenizer.json needs the `tokenizers` package",
                where=where,
                help="pip install 't5x_like[text]'",
            ) from None
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
            return _first(vocab, (_configured(config, kind), *_USUAL_NAMES[kind]))

        eos, pad = named("eos"), named("pad")
        if eos is None:
            raise UserError(
                "this tokenizer.json has no end-of-sequence token under a usual name",
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
        self.fingerprint = _fingerprint(files)
        self._dropped = {self.vocabulary.pad, eos, self.vocabulary.bos}
        self._special = {i for kind in _USUAL_NAMES if (i := named(kind)) is not None} | set(sentinels)
        self._special |= {
            i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._spelling = _spelling(layout)
        texts = [self.piece_text(i) for i in range(size)]
        self.word_starts = np.fromiter((not t or t[0].isspace() for t in texts), bool, size)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        self._tokenizer.encode_special_tokens = True
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = False
        arrays = [np.asarray(encoding.ids, np.int32) for encoding in encodings]
        ids = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
        starts = np.cumsum([0, *map(len, arrays)])[:-1]
        return Encoded(ids, starts, self._sentence_rule.starts(ids, starts))

    def decode(self, ids: Iterable[int]) -> str:
        kept = [i for i in map(int, ids) if 0 <= i < self.vocabulary.size and i not in self._dropped]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

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
        return piece.removeprefix(mark) if piece.startswith(mark) else " " + piece


def load_tokenizer(path: str | Path, *, extra_ids: int | None = None) -> Tokenizer:
    """Reads a SentencePiece `.model`, a Hugging Face `tokenizer.json`, or a folder that holds either.

    Args:
      path: file or folder.
      extra_ids: sentinels to put above a SentencePiece model's pieces; by default the number in a `spiece.json`
        beside the model, else 100, else none where the model has its own.

    Raises:
      UserError: nothing there, not a tokenizer, or a package that is not installed.
    """
    path = Path(path)
    if path.is_dir():
        names = ("spiece.model", "tokenizer.model", "tokenizer.json")
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise UserError(
                f"no tokenizer in this folder; expected one of {', '.join(names)}",
                where=str(path),
                code=Exit.BAD_DATA,
            )
        path = found
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the tokenizer: {error.strerror}", where=str(path), code=Exit.BAD_DATA
        ) from None
    if path.suffix == ".json":
        files = {"tokenizer.json": content}
        config = path.with_name("tokenizer_config.json")
        if config.is_file():
            files[config.name] = config.read_bytes()
        return HuggingFaceTokenizer(files, where=str(path))
    settings = path.with_name("spiece.json")
    if extra_ids is None:
        extra_ids = SENTINELS
        if settings.is_file():
            extra_ids = _stored_extra_ids(settings)
    return SentencePieceTokenizer(content, extra_ids=extra_ids, where=str(path))


def _stored_extra_ids(path: Path) -> int:
    try:
        value = json.loads(path.read_bytes())["extra_ids"]
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, int) or not 0 <= value <= 1 << 20:
        raise UserError('expected {"extra_ids": <number of sentinels>}', where=str(path), code=Exit.BAD_DATA)
    return value


def _known(index: int) -> int | None:
    return index if index >= 0 else None


def _fingerprint(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:32]


def _first(vocab: dict[str, int], names: Iterable[str | None]) -> int | None:
    return next((vocab[name] for name in names if name is not None and name in vocab), None)


def _configured(config: Any, kind: str) -> str | None:
    """The name of a special token in tokenizer_config.json: a string, or an object with `content`."""
    value = config.get(f"{kind}_token") if isinstance(config, dict) else None
    return value.get("content") if isinstance(value, dict) else value


def _spelling(layout: dict[str, Any]) -> tuple[str, str]:
    """How a tokenizer.json spells pieces: ("bytes", ""), ("prefix", "▁") or ("continuation", "##")."""
    model = layout.get("model") or {}
    if model.get("type") == "WordPiece":
        return "continuation", model.get("continuing_subword_prefix") or "##"
    parts = json.dumps([layout.get("pre_tokenizer"), layout.get("decoder")])
    return ("bytes", "") if '"ByteLevel"' in parts else ("prefix", _SPACE)


@functools.cache
def _byte_of() -> dict[str, int]:
    """GPT-2's map from printable characters to bytes: 188 bytes stand for themselves, 68 from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
