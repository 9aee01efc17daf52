"""Tokenizers behind one interface: SentencePiece models, WordPiece, byte-level BPE, `tokenizer.json` files.

Special ids come from the file, by name; sentinels `<extra_id_i>` are taken from the file where it has them and
are otherwise put above a SentencePiece model's pieces in T5's order, `<extra_id_0>` highest (seqio,
`SentencePieceVocabulary(extra_ids=...)`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from jaxtyping import Int32, Int64

from t5x_like.data import byte_bpe, wordpiece
from t5x_like.data.example import Vocabulary
from t5x_like.data.huggingface_tokenizer import HuggingFaceTokenizer
from t5x_like.data.tokenizer_base import SPACE, Encoded, Tokenizer, fingerprint
from t5x_like.errors import Exit, UserError

SENTINELS = 100
"""Sentinels that a SentencePiece model without its own gets by default, as in T5."""

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
# ModelProto.normalizer_spec (field 3) { add_dummy_prefix (field 3): false }. Serialised protobuf messages merge
# when they are concatenated, so these bytes behind a model switch its leading space off.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


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
        self.fingerprint = fingerprint(self.files)
        self.word_starts = np.fromiter((self._starts_word(i) for i in range(size)), bool, size)
        # T5's models fold runs of white space into one; LLaMA's keep them.
        self.lines_apart = self._processor.encode(" a\n\n b ") == self._processor.encode("a b")

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
        if first or (self.lines_apart and text[:1].isspace()):
            return self._processor.encode(text)
        return self._continuation.encode(text)

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        if not texts:
            return Encoded(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
        parts: list[bytes] = []
        first = []
        for text in texts:
            first.append(len(parts))
            # A line break is white space to the model, so lines are encoded one by one to remember where they begin.
            parts += text.encode().split(b"\n") if self.lines_apart else (text.encode(),)
        ids, starts = self._flat(parts)
        return Encoded(ids, starts[first], self._sentence_rule.starts(ids, starts))

    def _flat(self, parts: list[bytes]) -> tuple[Int32[np.ndarray, "T"], Int64[np.ndarray, "P"]]:
        """Ids of all parts one after another, and where each begins.

        The library can hand out one array a part, which for lines of text takes a tenth as long as finding the ids.
        Beneath lie buffers, taken as they are where this version of the library has them.
        """
        buffers: Any = getattr(getattr(self._processor, "_processor", None), "_EncodeAsBufferBatch", None)
        try:  # a thread, no pool, no sampling (-1 and 0.1 are for it), no bos, no eos, not reversed
            found = buffers(parts, 1, None, False, -1, 0.1, False, False, False)
        except TypeError:  # there are none, or they are asked for in another way
            found = self._processor.encode(parts, return_type="numpy", num_threads=1)
        ids = np.frombuffer(b"".join(found), np.int32)
        starts = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, map(memoryview, found)), np.int64, len(parts)), out=starts[1:])
        return ids, starts[:-1]

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
        return piece.replace(SPACE, " ")

    def _starts_word(self, index: int) -> bool:
        if index >= self._pieces or index in self._sentinel_number or self._is_special(index):
            return True
        return self._processor.id_to_piece(index).startswith(SPACE)

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


_FILES = ("spiece.model", "tokenizer.model", "tokenizer.json", "vocab.txt", "vocab.json", "encoder.json")
_MERGES = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}


def load_tokenizer(path: str | Path, *, extra_ids: int | None = None) -> Tokenizer:
    """Reads a tokenizer by its file's name, or a folder that holds such a file.

    `.model` is SentencePiece; `vocab.txt` (any `.txt`) WordPiece; `vocab.json` with `merges.txt` and `encoder.json`
    with `vocab.bpe` byte-level BPE; any other `.json` a `tokenizer.json`. A `tokenizer_config.json` beside the last
    four names their special tokens. Vocabularies of the older forms become a `tokenizer.json` when saved.

    Args:
      path: file or folder; of several in a folder, the first in the order above with `tokenizer.json` before `.txt`.
      extra_ids: sentinels to put above a SentencePiece model's pieces; by default the number in a `spiece.json`
        beside the model, else 100, else none where the model has its own.

    Raises:
      UserError: nothing there, or not a tokenizer.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in _FILES if (path / name).is_file()), None)
        if found is None:
            raise UserError(
                f"no tokenizer in this folder; expected one of {', '.join(_FILES)}",
                where=str(path),
                code=Exit.BAD_DATA,
            )
        path = found
    vocabularies = {merges: vocabulary for vocabulary, merges in _MERGES.items()}
    path = path.with_name(vocabularies.get(path.name, path.name))
    content = _read(path)
    if path.suffix in (".json", ".txt"):
        config = path.with_name("tokenizer_config.json")
        settings = _read(config) if config.is_file() else None
        if path.suffix == ".txt":
            return wordpiece.from_vocabulary(content, settings, where=str(path))
        if path.name in _MERGES:
            merges = _read(path.with_name(_MERGES[path.name]))
            return byte_bpe.from_files(content, merges, settings, where=str(path))
        files = {"tokenizer.json": content} | ({} if settings is None else {config.name: settings})
        return HuggingFaceTokenizer(files, where=str(path))
    stored = path.with_name("spiece.json")
    if extra_ids is None:
        extra_ids = _stored_extra_ids(stored) if stored.is_file() else SENTINELS
    return SentencePieceTokenizer(content, extra_ids=extra_ids, where=str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the tokenizer: {error.strerror}", where=str(path), code=Exit.BAD_DATA
        ) from None


def _stored_extra_ids(path: Path) -> int:
    try:
        value = json.loads(path.read_bytes())["extra_ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if not isinstance(value, int) or not 0 <= value <= 1 << 20:
        raise UserError('expected {"extra_ids": <number of sentinels>}', where=str(path), code=Exit.BAD_DATA)
    return value


def _known(index: int) -> int | None:
    return index if index >= 0 else None
