"""The flags by which a command is told of a tokenizer: one that exists, or how to train one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from absl import flags

from t5x_like.errors import UserError

if TYPE_CHECKING:
    from t5x_like.data.preparation import AnyTraining

_FITS = {
    "lowercase": ("wordpiece",),
    "extra_ids": ("unigram", "bpe"),
    "byte_fallback": ("unigram", "bpe"),
    "character_coverage": ("unigram", "bpe", "wordpiece"),
}
"""Flags that not every kind of tokenizer has."""
_TRAINING = ("vocab_size", "model_type", "tokenizer_sample_bytes", *_FITS)
MOST_IDS = 2**24
"""Of a vocabulary: trainers reserve memory for all of them."""


class TokenizerFlags:
    """Defines the flags and reads them.

    Args:
      values: the flags of the command.
    """

    def __init__(self, values: flags.FlagValues):
        self._values = values
        self._tokenizer = flags.DEFINE_string(
            "tokenizer",
            None,
            "an existing SentencePiece .model, tokenizer.json, BERT's vocab.txt, vocab.json beside merges.txt, or a "
            "folder with one; default: train one",
            flag_values=values,
        )
        self._vocab_size = flags.DEFINE_integer(
            "vocab_size",
            None,
            "ids of the trained tokenizer, pieces, special ids and sentinels together; default: as published, 32100 "
            "for unigram and bpe (T5's 32000 and 100 sentinels), 30522 for wordpiece (BERT), 50265 for bytebpe "
            "(RoBERTa)",
            upper_bound=MOST_IDS,
            flag_values=values,
        )
        self._model_type = flags.DEFINE_enum(
            "model_type",
            "unigram",
            ["unigram", "bpe", "wordpiece", "bytebpe"],
            "of the trained tokenizer: unigram and bpe are SentencePiece with T5's ids, wordpiece is BERT's and "
            "ELECTRA's, bytebpe GPT-2's with RoBERTa's special ids",
            flag_values=values,
        )
        self._lowercase = flags.DEFINE_bool(
            "lowercase", False, "lower the text and strip accents (wordpiece)", flag_values=values
        )
        self._extra_ids = flags.DEFINE_integer(
            "extra_ids",
            100,
            "sentinels <extra_id_i> at the top of the trained tokenizer's ids (unigram, bpe)",
            flag_values=values,
        )
        self._character_coverage = flags.DEFINE_float(
            "character_coverage",
            0.9999,
            "share of the characters that get a piece; the rest are unknown (not bytebpe, which has them all)",
            flag_values=values,
        )
        self._byte_fallback = flags.DEFINE_bool(
            "byte_fallback",
            False,
            "spell unknown characters as bytes (unigram, bpe; T5 does not)",
            flag_values=values,
        )
        self._sample = flags.DEFINE_integer(
            "tokenizer_sample_bytes",
            None,
            "text that the tokenizer is trained on; default: 1000 bytes for each id, at least 4 MB",
            lower_bound=1,
            flag_values=values,
        )

    @property
    def existing(self) -> str | None:
        """The tokenizer that exists, if one is named."""
        return self._tokenizer.value

    @property
    def sample_bytes(self) -> int | None:
        """Text to train on."""
        return self._sample.value

    @property
    def given(self) -> bool:
        """Whether the command line says anything about a tokenizer."""
        return bool(self.existing) or any(self._values[name].present for name in _TRAINING)

    def check(self) -> None:
        """Raises `UserError` where a tokenizer that exists is also to be trained."""
        if not self.existing:
            return
        for name in _TRAINING:
            if self._values[name].present:
                raise UserError(
                    f"--{name} is for training a tokenizer, and --tokenizer names one that exists",
                    where="command line",
                    help="leave one of the two out",
                )

    def training(self) -> AnyTraining:
        """The tokenizer that the flags ask for.

        Raises:
          UserError: a flag is given that this kind of tokenizer does not have.
        """
        from t5x_like.data.byte_bpe import ByteBPETraining
        from t5x_like.data.tokenizer_training import Training
        from t5x_like.data.wordpiece import WordPieceTraining

        kind = self._model_type.value
        for name, kinds in _FITS.items():
            if self._values[name].present and kind not in kinds:
                raise UserError(
                    f"--{name} is for {' and '.join(kinds)}, and --model_type is {kind}", where="command line"
                )
        size: dict[str, Any] = (
            {} if self._vocab_size.value is None else {"vocab_size": self._vocab_size.value}
        )
        if kind == "wordpiece":
            return WordPieceTraining(
                lowercase=self._lowercase.value, character_coverage=self._character_coverage.value, **size
            )
        if kind == "bytebpe":
            return ByteBPETraining(**size)
        return Training(
            model_type=cast(Any, kind),
            extra_ids=self._extra_ids.value,
            character_coverage=self._character_coverage.value,
            byte_fallback=self._byte_fallback.value,
            **size,
        )
