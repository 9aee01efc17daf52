"""What the tests of the data path share: a tokenizer trained on a few sentences, datasets of a few documents, and
an objective whose examples can be read at a glance."""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path

import numpy as np
import sentencepiece

from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.token_dataset import TokenDataset, TokenSplit, from_documents
from t5x_like.data.tokenizers import SentencePieceTokenizer
from t5x_like.data.windows import Isolated, Joined, WindowIndex
from t5x_like.errors import Exit, UserError

_TEXT = (
    "the whale and a ship sailed upon the great water while captain stood near old mast watching gulls turn over "
    "white waves one by one until evening came down with rain"
)
WORDS = _TEXT.split()


def documents(count: int, seed: int = 0, most: int = 60) -> list[str]:
    """Texts of 1 to `most` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, most + 1))) + "." for _ in range(count)]


@functools.cache
def tokenizer(seed: int = 0) -> SentencePieceTokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents(300, seed) + WORDS), model_writer=model, vocab_size=80 + seed,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return SentencePieceTokenizer(model.getvalue())


def dataset(path: Path, count: int = 60, seed: int = 0, **splits: list[str]) -> TokenDataset:
    """A dataset of `count` training documents and a few for validation, or of the splits that are given."""
    texts = splits or {"train": documents(count, seed), "validation": documents(7, seed + 1000)}
    return from_documents(path, tokenizer(), texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo:
    """The window and EOS as inputs, its first `half` tokens and EOS as targets, and the key of the example."""

    length: int = 12
    half: int = 4
    documents: str = "joined"

    def window_length(self) -> int:
        return self.length

    def index(self, split: TokenSplit, vocabulary: Vocabulary, key: np.ndarray, cover: bool) -> WindowIndex:
        joined = self.documents == "joined"
        return Joined(split, self.length, cover) if joined else Isolated(split, self.length)

    def parts(self) -> tuple[tuple[Echo, float], ...]:
        return ((self, 1.0),)

    def features(self, vocabulary: Vocabulary) -> dict[str, Feature]:
        return {
            "encoder_input_tokens": Feature((self.length + 1,)),
            "decoder_input_tokens": Feature((self.half + 1,)),
            "decoder_target_tokens": Feature((self.half + 1,)),
            "decoder_loss_weights": Feature((self.half + 1,), np.float32),
            "decoder_key": Feature((self.half + 1,), np.uint64),
        }

    def example_lengths(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        return {"encoder": lengths + 1, "decoder": np.minimum(lengths, self.half) + 1}

    def examples(self, windows: Windows, keys: np.ndarray) -> Batch:
        rows = np.arange(len(windows.tokens))
        inputs = np.pad(windows.tokens, ((0, 0), (0, 1)))
        inputs[rows, windows.lengths] = windows.vocabulary.eos
        kept = np.minimum(windows.lengths, self.half)
        targets = np.where(np.arange(self.half + 1) < kept[:, None], inputs[:, : self.half + 1], 0)
        targets[rows, kept] = windows.vocabulary.eos
        return {
            "encoder_input_tokens": inputs,
            "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
            "decoder_target_tokens": targets,
            "decoder_loss_weights": (targets > 0).astype(np.float32),
            "decoder_key": np.where(targets > 0, keys[:, None], np.uint64(0)),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Several(Echo):
    """A mixture of Echoes of several lengths."""

    lengths: tuple[int, ...] = (12, 5, 7)
    rates: tuple[float, ...] = (0.5, 0.3, 0.2)

    def parts(self) -> tuple[tuple[Echo, float], ...]:
        echoes = [Echo(length=n, half=min(n, 4), documents=self.documents) for n in self.lengths]
        return tuple(zip(echoes, self.rates, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failing(Echo):
    """Raises in one of two ways."""

    how: str = "error"

    def examples(self, windows: Windows, keys: np.ndarray) -> Batch:
        if self.how == "error":
            raise RuntimeError("the objective fell over")
        raise UserError("no such thing", where="here", help="try that", code=Exit.BAD_DATA)
