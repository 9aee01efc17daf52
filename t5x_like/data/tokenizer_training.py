"""Training a SentencePiece tokenizer with T5's ids from a sample of documents."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Iterator
from typing import Literal

import sentencepiece

from t5x_like.data.tokenizers import SENTINELS, SentencePieceTokenizer
from t5x_like.errors import Exit, UserError

# The trainer sums its expectations per thread, so the model's bytes depend on the number of threads: a constant.
_THREADS = 4
_MAX_LINE = 4096  # SentencePiece leaves lines beyond 4192 bytes out without a word
_BORDER = re.compile(r"(?<=[.!?])\s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A tokenizer to be trained. Source: sentencepiece, doc/options.md; ids as in T5 (pad 0, eos 1, unk 2, no bos).

    Attributes:
      vocab_size: all ids, pieces and sentinels together: 32,100 gives T5's 32,000 pieces and 100 sentinels.
      model_type: SentencePiece's algorithm.
      extra_ids: sentinels at the top of the ids.
      character_coverage: share of the characters in the sample that become pieces; the rest are unknown.
      byte_fallback: spell unknown characters as bytes (256 pieces); T5's own vocabulary has none.
    """

    vocab_size: int = 32100
    model_type: Literal["unigram", "bpe"] = "unigram"
    extra_ids: int = SENTINELS
    character_coverage: float = 0.9999
    byte_fallback: bool = False

    def check(self) -> None:
        """Refuses what SentencePiece would refuse later.

        Raises:
          UserError: names the flag.
        """
        if not 0.9 <= self.character_coverage <= 1:
            raise UserError(
                f"character_coverage is {self.character_coverage}, expected 0.9 to 1",
                where="--character_coverage",
            )
        if not 0 <= self.extra_ids < self.vocab_size:
            raise UserError(
                f"vocab_size {self.vocab_size} counts pieces and sentinels, and extra_ids asks for {self.extra_ids}"
                " sentinels",
                where="--vocab_size",
                help=f"--vocab_size={self.extra_ids + 4000}",
            )

    def train(self, texts: Iterable[str]) -> SentencePieceTokenizer:
        """Trains on `texts`; equal texts give equal bytes.

        Raises:
          UserError: the sample is too small for the vocabulary, or the vocabulary for the alphabet; the message
            names the nearest size that works.
        """
        self.check()
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line for text in texts for line in _lines(text)),
                model_writer=model,
                vocab_size=self.vocab_size - self.extra_ids,
                model_type=self.model_type,
                character_coverage=self.character_coverage,
                byte_fallback=self.byte_fallback,
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                num_threads=_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise self._friendly(str(error)) from None
        return SentencePieceTokenizer(model.getvalue(), extra_ids=self.extra_ids)

    def _friendly(self, message: str) -> UserError:
        if found := re.search(r"value <= (\d+)", message):
            most = int(found[1]) + self.extra_ids
            return UserError(
                f"the text is too small for a vocabulary of {self.vocab_size} ids ({self.model_type}); "
                f"it can carry {most}",
                where="--vocab_size",
                help=f"--vocab_size={most}, or more text",
                code=Exit.BAD_DATA,
            )
        if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
            least = int(found[1]) + self.extra_ids
            return UserError(
                f"a vocabulary of {self.vocab_size} ids is too small: the alphabet of the text, the special ids and "
                f"{self.extra_ids} sentinels need {least}",
                where="--vocab_size",
                help=f"--vocab_size={_round_up(least)}, or a smaller --character_coverage",
                code=Exit.BAD_DATA,
            )
        if "sentences_.empty()" in message:
            return UserError("there is no text to train a tokenizer on", where="--input", code=Exit.BAD_DATA)
        return UserError(f"SentencePiece cannot train this tokenizer: {message}", code=Exit.BAD_DATA)


def _round_up(least: int) -> int:
    """A size a little above the least, so that there is room for some words too."""
    return -(-(least + least // 4) // 100) * 100


def _lines(text: str) -> Iterator[str]:
    """Sentences of at most `_MAX_LINE` bytes, so that SentencePiece leaves none out."""
    for line in text.split("\n"):
        for sentence in _BORDER.split(line):
            while len(sentence.encode()) > _MAX_LINE:
                cut = sentence.rfind(" ", 1, _MAX_LINE // 4)
                cut = cut if cut > 0 else _MAX_LINE // 4
                yield sentence[:cut]
                sentence = sentence[cut:]
            if sentence:
                yield sentence
