"""ELECTRA's two segments without labels (google-research/electra, build_pretraining_dataset.py `ExampleBuilder`)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64, Integer

from t5x_like.data import counter, framing, windows
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.sentence_table import Sentences, chain, check_duplicates, check_room, narrow
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import WindowIndex

_SHORT, _TARGET, _SINGLE, _COIN = range(1, 5)  # salts of a block's draws
_ALL = 100_000  # tokens that the first segment aims at where it is to have all


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
        framing.check(vocabulary)
        sentences = Sentences.of(split, type(self).__name__)
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
        for low in range(0, self.count, 1 << 12):
            *_, first, second = self._deal(np.arange(low, min(low + (1 << 12), self.count)))
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
        source, target, size, first, second = self._deal(index)
        row, which = np.nonzero(size)
        flat = row * (width := self.length - framing.num_special(pair=False)) + target[row, which]
        order = np.argsort(flat)  # the second segment's sentences stand behind the first's
        # From a place of the window to its place in the block: one distance for each sentence, so add up its changes.
        distance = (source - target)[row, which][order]
        change = np.zeros(len(index) * width, np.int64)
        change[flat[order]] = np.diff(distance, prepend=0)
        place = np.arange(width)
        columns = place + np.cumsum(change).reshape(-1, width)
        # All sentences but the last of a block begin before the target, so twice the length holds what is used.
        reach = (source + size).max(axis=1, initial=1, where=size > 0)
        starts = self.sentences.bounds[self.begins[index]]
        found = windows.read(
            self.split, starts, reach, int(reach.max(initial=1)), vocabulary, needs, is_word_start
        )
        inside = place < (first + second)[:, None]
        columns[~inside] = 0

        def dealt(values: np.ndarray | None, elsewhere: int | bool) -> np.ndarray | None:
            if values is None:
                return None
            taken = np.take_along_axis(values, columns, axis=1)
            return np.where(inside, taken, values.dtype.type(elsewhere))

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
    ) -> tuple[
        Int64[np.ndarray, "B S"],
        Int64[np.ndarray, "B S"],
        Int64[np.ndarray, "B S"],
        Int64[np.ndarray, "B"],
        Int64[np.ndarray, "B"],
    ]:
        """For the sentences of blocks `index`: where each begins in its block and in its window, and its tokens there
        (0 where none is left or there is no sentence); the tokens of the first and second segments."""
        key = self.keys[np.searchsorted(self.firsts, index, side="right") - 1]
        begin, end = self.begins[index].astype(np.int64), self.ends[index].astype(np.int64)
        half = (targets(key, begin, self.length) - 3) // 2
        aim = np.where(counter.uniform_at(key, begin, _SINGLE) < 0.1, _ALL, half)
        sentence = np.minimum(begin[:, None] + np.arange(int((end - begin).max(initial=1))), end[:, None])
        bounds = self.sentences.bounds
        source = bounds[sentence] - bounds[begin][:, None]
        size = bounds[np.minimum(sentence + 1, end[:, None])] - bounds[sentence]
        coin = counter.uniform_at(key[:, None], sentence, _COIN) < 0.5
        target, to_second = np.zeros_like(source), np.zeros(source.shape, bool)
        first, second = np.zeros_like(begin), np.zeros_like(begin)
        for n in range(source.shape[1]):
            fits = (first == 0) | (first + size[:, n] < aim)
            fits |= (second == 0) & (first < aim) & coin[:, n]
            target[:, n] = np.where(fits, first, second)
            to_second[:, n] = ~fits
            first += np.where(fits, size[:, n], 0)
            second += np.where(fits, 0, size[:, n])
        first = np.minimum(first, self.length - 2)
        second = np.minimum(second, np.maximum(self.length - 3 - first, 0))
        room = np.where(to_second, second[:, None], first[:, None]) - target
        target += np.where(to_second, first[:, None], 0)
        size = np.clip(room, 0, size)  # what is behind its segment's end is cut
        return source, target, size, first, second


def targets(key: Keys, begin: np.ndarray, length: int) -> Int64[np.ndarray, "B"]:
    """The tokens that blocks beginning with these sentences aim at."""
    short = (counter.uniform_at(key, begin, _SHORT) < 0.05) & (begin > 0)  # the first one is never short
    return np.where(short, counter.integers_at(key, begin, _TARGET, 5, length + 1), length)
