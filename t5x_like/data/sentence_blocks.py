"""One segment a row: plain blocks of tokens, and RoBERTa's blocks of whole sentences (paper, section 4.2; fairseq,
data/token_block_utils_fast.pyx, `complete` and `complete_doc`).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64, Integer

from t5x_like.data import framing, windows
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.sentence_table import Sentences, chain, check_room, narrow
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import Isolated, Joined, WindowIndex


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OneSegment:
    """What inputs without a second segment have in common."""

    next_sentence: ClassVar[bool] = False
    double_separator: ClassVar[bool] = False

    def check(self) -> None:
        """Nothing to refuse."""

    def capacity(self, length: int) -> int:
        """The most tokens of a window for rows of `length` places."""
        return length - framing.num_special(pair=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contiguous(_OneSegment):
    """Blocks of as many tokens as a row holds, wherever sentences end.

    Attributes:
      documents: `joined`: blocks run on across document borders, from an offset drawn for each epoch (none in
        validation); `isolated`: they stop there, and the last block of a document is short.
    """

    documents: Literal["joined", "isolated"] = "joined"

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The blocks of an epoch for rows of `length` places; in validation every token is seen once."""
        del key
        framing.check(vocabulary)
        width = check_room(self.capacity(length), length, 1)
        return Joined(split, width, cover=cover) if self.documents == "joined" else Isolated(split, width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullSentences(_OneSegment):
    """RoBERTa's FULL-SENTENCES (`complete`): as many whole sentences as a row holds, across document borders, with
    a separator between documents.

    Every token is in one block of an epoch, in training and in validation; nothing is drawn. A sentence longer
    than a row is cut into rows of its own, of which the last takes more sentences (fairseq passes such a block on,
    and its size filter drops it). Separators stand between texts only: fairseq's block may also begin or end
    with the one of an empty line. Memory: 8 bytes a block, and 32 a sentence while they are being laid out.

    Attributes:
      sentence_separators: a separator behind every sentence, and one more between documents: what fairseq's lines,
        each ending in </s>, and its empty lines come to.
    """

    sentence_separators: bool = False

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The blocks of an epoch for rows of `length` places.

        Raises:
          UserError: no sentence offsets, no [CLS] or [SEP], no room.
        """
        del key, cover
        return _blocks(self, split, length, vocabulary, self.sentence_separators, across=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocSentences(_OneSegment):
    """RoBERTa's DOC-SENTENCES (`complete_doc`): as `FullSentences`, and a block also ends where a document does.

    Rows at the end of documents are short; the paper raises the batch size there, this project does not.

    Attributes:
      sentence_separators: a separator between the sentences of a row.
    """

    sentence_separators: bool = False

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The blocks of an epoch; errors as for `FullSentences.build`."""
        del key, cover
        return _blocks(self, split, length, vocabulary, self.sentence_separators, across=False)


def _blocks(
    form: _OneSegment,
    split: TokenSplit,
    length: int,
    vocabulary: Vocabulary,
    sentence_separators: bool,
    *,
    across: bool,
) -> SentenceBlocks:
    framing.check(vocabulary)
    width = check_room(form.capacity(length), length, 1)
    sentences = Sentences.of(split, type(form).__name__, longest=width)
    number = np.arange(sentences.count)
    # Separators ahead of each sentence, counted from the start of the split: of borders, and of other sentences.
    ahead = sentences.document_of(number)
    if sentence_separators:
        ahead += number
    begins = sentences.bounds[:-1] + ahead
    ends = sentences.bounds[1:] + ahead

    def following(begin: np.ndarray) -> np.ndarray:
        found = np.searchsorted(ends, begins[begin] + width, side="right")
        return found if across else np.minimum(found, sentences.documents[sentences.document_of(begin) + 1])

    first = chain(sentences.count, following)
    last = np.append(first, sentences.count)[1:] - 1
    return SentenceBlocks(
        split=split,
        width=width,
        starts=np.append(sentences.bounds[first], split.num_tokens),
        separators=narrow(ahead[last] - ahead[first]),
        sentence_separators=sentence_separators,
    )


@dataclasses.dataclass(frozen=True)
class SentenceBlocks:
    """Blocks of whole sentences that tile a split.

    Attributes:
      width: the most tokens of a block, separators included.
      starts: [N+1] first token of each block, then the number of tokens.
      separators: [N] separators in each block.
      sentence_separators: whether they stand between all sentences, or between documents only.
    """

    split: TokenSplit
    width: int
    starts: Int64[np.ndarray, "N+1"]
    separators: Integer[np.ndarray, "N"]
    sentence_separators: bool

    @property
    def count(self) -> int:
        """Blocks of an epoch."""
        return len(self.separators)

    def lengths(self) -> Int64[np.ndarray, "N"]:
        """Tokens and separators of every block."""
        return np.diff(self.starts) + self.separators

    def windows(
        self,
        index: np.ndarray,
        epoch_keys: Keys,
        vocabulary: Vocabulary,
        needs: frozenset[str] = frozenset(),
        is_word_start: Bool[np.ndarray, "V"] | None = None,
    ) -> Windows:
        """See `WindowIndex.windows`. A separator is a token of its own, which begins a word and no sentence."""
        del epoch_keys  # the same blocks in every epoch
        starts = self.starts[index]
        sizes = self.starts[index + 1] - starts
        separators = self.separators[index]
        if not separators.any():
            return windows.read(self.split, starts, sizes, self.width, vocabulary, needs, is_word_start)
        wanted = {"document_starts"} | ({"sentence_starts"} if self.sentence_separators else set())
        found = windows.read(self.split, starts, sizes, self.width, vocabulary, needs | wanted, is_word_start)
        column = np.arange(self.width)
        ahead = np.zeros(found.tokens.shape, np.int64)  # separators between each token and the one before it
        for name in wanted:
            marks: Bool[np.ndarray, "B W"] | None = getattr(found, name)
            ahead += 0 if marks is None else marks & (column > 0)
        place = column + np.cumsum(ahead, axis=1)
        inside = column < sizes[:, None]
        row, source = np.nonzero(inside)
        target = place[inside]

        def spread(values: np.ndarray | None, elsewhere: np.ndarray) -> np.ndarray | None:
            if values is None:
                return None
            elsewhere[row, target] = values[row, source]
            return elsewhere

        lengths = sizes + separators
        used = column < lengths[:, None]
        tokens = np.where(used, np.int32(vocabulary.sep or 0), np.int32(vocabulary.pad))
        return dataclasses.replace(
            found,
            tokens=spread(found.tokens, tokens),
            lengths=lengths.astype(np.int32),
            document_starts=spread(found.document_starts, np.zeros_like(used)) if "document_starts" in needs else None,
            sentence_starts=spread(found.sentence_starts, np.zeros_like(used)) if "sentence_starts" in needs else None,
            word_starts=spread(found.word_starts, used.copy()),
        )  # fmt: skip
