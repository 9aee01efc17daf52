"""What every tokenizer does."""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from t5x_like.data.example import Vocabulary
from t5x_like.data.sentences import SentenceRule
from t5x_like.errors import UserError

SPACE = "▁"
"""How SentencePiece and its like spell a space."""


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
      lines_apart: whether the tokens of a document are those of its lines, one line after another.
      word_starts: [V] true where the piece begins a word, and for special ids.
    """

    vocabulary: Vocabulary
    fingerprint: str
    files: dict[str, bytes]
    word_starts: Bool[np.ndarray, "V"]
    lines_apart: bool = False

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

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "D"]:
        """Tokens of each document, as `encode_documents` finds them; equal lines are looked at once where it goes."""
        lines = [text.split("\n") if self.lines_apart else (text,) for text in texts]
        unique = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
        encoded = self.encode_documents(unique)
        sizes = np.diff(encoded.documents, append=len(encoded.ids)).tolist()
        size = dict(zip(unique, sizes, strict=True))
        return np.fromiter((sum(map(size.__getitem__, some)) for some in lines), np.int64, len(lines))

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


def fingerprint(files: dict[str, bytes]) -> str:
    """32 hexadecimal digits of the SHA-256 of names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:32]
