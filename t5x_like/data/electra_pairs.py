"""ELECTRA's two segments without labels (google-research/electra, build_pretraining_dataset.py `ExampleBuilder`)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64, Integer

from t5x_like.data import counter, framing, windows
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.pairs import check_duplicates, check_room, sentences_for
from t5x_like.data.sentence_table import Sentences, chain, narrow
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import WindowIndex, within

_SHORT, _TARGET, _SINGLE, _COIN = range(1, 5)  # salts of a block's draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElectraPairs:
    """ELECTRA's input: sentences in a row, dealt to a first and a second segment, no labels.

    Sentences are collected until they come to a target, which is the length of a row, and for one block in twenty
    a number from 5 to that. The first segment aims at half of it (in one block of ten at all of it); a sentence
    goes there while it fits, by a coin where it is the first that does not, and otherwise to the second. So a short
    sentence may go to the first segment after a longer one has gone to the second: the original's rule, kept.
    What is too long is cut at the end.

    Without `document_breaks`, blocks run on across document borders. Nothing else differs in validation, which
    makes one pass. Memory: 8 to 16 bytes a block, and 16 a sentence.

    Attributes:
      document_breaks: a block ends with its document (the original's Wikipedia and books; not its OpenWebText).
      duplicates: passes over the corpus in an epoch, each with fresh draws; the original's files have one.
    """

    next_sentence: ClassVar[bool] = False
    double_separator: ClassVar[bool] = False

    document_breaks: bool = True
    duplicates: int = 1

    def check(self) -> None:
        """Raises `UserError` where a field cannot be."""
        check_duplicates(self.duplicates)

    def capacity(self, length: int) -> int:
        """The most tokens of a window (of one with a single segment) for rows of `length` places."""
        return length - framing.num_special(pair=False)

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The blocks of an epoch for rows of `length` places.

        Raises:
          UserError: no sentence offsets, no [CLS] or [SEP], rows shorter than the least target.
        """
        self.check()
        check_room(self.capacity(length), length, 3)
        sentences = sentences_for(split, vocabulary, type(self).__name__, next_sentence=False)
        keys = np.array([counter.fold(key, n) for n in range(1 if cover else self.duplicates)])
        parts = [self._pass(sentences, length, one) for one in keys]
        begins, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
        firsts = np.cumsum([0, *(len(part) for part, _ in parts)])
        return ElectraBlocks(split, length, sentences, begins, ends, keys, firsts)

    def _pass(self, sentences: Sentences, length: int, key: Keys) -> tuple[np.ndarray, np.ndarray]:
        """First sentence of each block, and the sentence behind it."""

        def ends(begin: np.ndarray) -> np.ndarray:
            found = sentences.reaching(begin, targets(key, begin, length))
            if not self.document_breaks:
                return found
            return np.minimum(found, sentences.documents[sentences.document_of(begin) + 1])

        begin = chain(sentences.count, ends)
        return narrow(begin), narrow(np.append(begin, sentences.count)[1:])


@dataclasses.dataclass(frozen=True)
class ElectraBlocks:
    """Blocks by number; which sentence goes to which segment is worked out when they are read.

    Attributes:
      length: places of a row.
      begins, ends: [N] first sentence of each block, and the one behind it; pass after pass.
      keys: [P] the key of each pass; `firsts` [P+1] its first block, then N.
    """

    split: TokenSplit
    length: int
    sentences: Sentences
    begins: Integer[np.ndarray, "N"]
    ends: Integer[np.ndarray, "N"]
    keys: Keys
    firsts: Int64[np.ndarray, "P+1"]

    @property
    def count(self) -> int:
        """Blocks of an epoch."""
        return len(self.begins)

    def lengths(self) -> Int64[np.ndarray, "N"]:
        """Tokens of every block, both segments; it deals all of them, a few million a second."""
        parts = [np.zeros(0, np.int64)]
        for low in range(0, self.count, 1 << 16):
            _, first, second = self._deal(np.arange(low, min(low + (1 << 16), self.count)))
            parts.append(first + second)
        return np.concatenate(parts)

    def windows(
        self,
        index: np.ndarray,
        epoch_keys: Keys,
        vocabulary: Vocabulary,
        needs: frozenset[str] = frozenset(),
        is_word_start: Bool[np.ndarray, "V"] | None = None,
    ) -> Windows:
        """See `WindowIndex.windows`: both segments without a gap. The same blocks in every epoch."""
        del epoch_keys
        (row, source, target, size), first, second = self._deal(index)
        starts = self.sentences.bounds[self.begins[index]]
        # All sentences but the last of a block begin before the target, so twice the length holds what is used.
        reach = np.zeros(len(index), np.int64)
        np.maximum.at(reach, row, source + size)
        found = windows.read(
            self.split, starts, reach, int(reach.max(initial=1)), vocabulary, needs, is_word_start
        )
        width = self.length - framing.num_special(pair=False)
        columns = np.full((len(index), width), -1)
        columns[np.repeat(row, size), np.repeat(target, size) + within(size)] = np.repeat(
            source, size
        ) + within(size)

        def dealt(values: np.ndarray | None, elsewhere: int | bool) -> np.ndarray | None:
            if values is None:
                return None
            taken = np.take_along_axis(values, np.maximum(columns, 0), axis=1)
            return np.where(columns >= 0, taken, values.dtype.type(elsewhere))

        tokens = dealt(found.tokens, vocabulary.pad)
        assert tokens is not None
        return dataclasses.replace(
            found,
            tokens=tokens,
            lengths=(first + second).astype(np.int32),
            document_starts=dealt(found.document_starts, False),
            sentence_starts=dealt(found.sentence_starts, False),
            word_starts=dealt(found.word_starts, False),
            first_lengths=first.astype(np.int32),
        )

    def _deal(
        self, index: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
        """The sentences of blocks `index` [B] that are used: (row, place in the block, place in the window, tokens)
        of each, and the tokens of both segments [B], [B]."""
        key = self.keys[np.searchsorted(self.firsts, index, side="right") - 1]
        begin, end = self.begins[index].astype(np.int64), self.ends[index].astype(np.int64)
        aim = targets(key, begin, self.length)
        aim = np.where(counter.uniform_at(key, begin, _SINGLE) < 0.1, 100_000, (aim - 3) // 2)
        start = self.sentences.bounds[begin]
        first, second = np.zeros_like(begin), np.zeros_like(begin)
        rows, sources, targets_, sizes, sides = [], [], [], [], []
        row = np.arange(len(index))
        sentence = begin
        while len(row):
            low, high = self.sentences.bounds[sentence[row]], self.sentences.bounds[sentence[row] + 1]
            size, one, two, most = high - low, first[row], second[row], aim[row]
            coin = counter.uniform_at(key[row], sentence[row], _COIN) < 0.5
            to_first = (one == 0) | (one + size < most) | ((two == 0) & (one < most) & coin)
            rows.append(row)
            sources.append(low - start[row])
            targets_.append(np.where(to_first, one, two))
            sizes.append(size)
            sides.append(~to_first)
            first[row] += np.where(to_first, size, 0)
            second[row] += np.where(to_first, 0, size)
            sentence = sentence + 1
            row = row[sentence[row] < end[row]]
        first = np.minimum(first, self.length - 2)
        second = np.minimum(second, np.maximum(self.length - 3 - first, 0))
        row, source, target, size, side = (np.concatenate(c) for c in (rows, sources, targets_, sizes, sides))
        room = np.where(side, second[row], first[row])
        size = np.clip(room - target, 0, size)  # what is behind the end of its segment is cut
        target = target + np.where(side, first[row], 0)
        used = size > 0
        return (row[used], source[used], target[used], size[used]), first, second


def targets(key: Keys, begin: np.ndarray, length: int) -> Int64[np.ndarray, "B"]:
    """The tokens that blocks beginning with these sentences aim at."""
    short = (counter.uniform_at(key, begin, _SHORT) < 0.05) & (begin > 0)  # the first one is never short
    return np.where(short, counter.integers_at(key, begin, _TARGET, 5, length + 1), length)
