"""Pairs of segments, as BERT builds them (google-research/bert, create_pretraining_data.py
`create_instances_from_document`), and pairs of single sentences (RoBERTa paper, section 4.2).

A plan of an epoch is made once, from the sentence offsets alone; each row of it is then O(1) to read. The draws
of a pair are named by (pass over the corpus, sentence that it begins with), so the plan is a function of (split,
key), and rows of it can be made anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int64, Integer

from t5x_like.data import counter, framing, windows
from t5x_like.data.counter import Keys
from t5x_like.data.example import Vocabulary, Windows
from t5x_like.data.sentence_table import Sentences, chain, check_duplicates, check_room, narrow
from t5x_like.data.token_dataset import TokenSplit
from t5x_like.data.windows import WindowIndex
from t5x_like.errors import Exit, UserError

_SHORT, _TARGET, _CUT, _RANDOM, _SENTENCE, _FRONT_A, _FRONT_B = range(1, 8)  # salts of a pair's draws
_OTHER = 100  # salt of the first of ten draws of another document
_BLOCK = 1 << 18  # pairs that are laid out together


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentPairs:
    """BERT's input: two runs of whole sentences, the second in half of the cases from another document.

    Sentences of a document are collected until they come to a target length, cut in two at a sentence border,
    and the second part is kept or, with probability 1/2, replaced by a run from a random place of a random
    document, while what it replaces goes back to the stream. A chunk of one sentence always takes a random second
    part, so more than half of the pairs are negatives. The longer segment loses tokens until both fit, each at
    its front or back with probability 1/2.

    An epoch is `duplicates` passes over the corpus with fresh draws, shuffled together; later epochs have the same
    pairs, and a validation has one pass. As in the original, tokens that truncation cuts away are not seen in this
    pass. The plan is made when the data is opened: for each million sentences and pass, 0.2 to 0.4 s (measured on one
    core, 24 tokens a sentence) and 2 to 4 MB (13 bytes a pair); for a large corpus, take fewer passes.

    Attributes:
      next_sentence: with labels. False: the second segment is always the one that follows, nothing is put back,
        and a chunk of one sentence is a single segment.
      short_probability: share of (document, pass) that aim at a length drawn from 2..capacity (`short_seq_prob`).
      duplicates: passes over the corpus in an epoch (`dupe_factor`; BERT's flag 10, its README 5).
      double_separator: RoBERTa's frame, which costs a place more.
    """

    next_sentence: bool = True
    short_probability: float = 0.1
    duplicates: int = 10
    double_separator: bool = False

    def check(self) -> None:
        """Raises `UserError` where a field cannot be."""
        _check_share("short_probability", self.short_probability)
        check_duplicates(self.duplicates)

    def capacity(self, length: int) -> int:
        """The most tokens of a window for rows of `length` places."""
        return length - framing.num_special(pair=True, double_separator=self.double_separator)

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The pairs of an epoch.

        Args:
          length: T, places of a row, special ids included.
          key: scalar uint64 that names all draws.
          cover: one pass, whatever `duplicates` says.

        Raises:
          UserError: no sentence offsets; `next_sentence` where there is one document only; no room.
        """
        self.check()
        width = check_room(self.capacity(length), length, 2)
        sentences = _sentences(split, vocabulary, type(self).__name__, self.next_sentence)
        passes = 1 if cover else self.duplicates
        return _index(
            split,
            width,
            sentences,
            [self._pass(sentences, width, counter.fold(key, n)) for n in range(passes)],
        )

    def _pass(self, sentences: Sentences, width: int, key: Keys) -> _Pass:
        document = np.arange(sentences.num_documents)
        short = counter.uniform_at(key, document, _SHORT) < self.short_probability
        drawn = counter.integers_at(key, document, _TARGET, 2, width + 1)
        return _Pass(sentences, width, key, self.next_sentence, np.where(short, drawn, width))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePairs:
    """RoBERTa's SENTENCE-PAIR + NSP input: two sentences, the second the next one or a random one of another
    document, with probability 1/2 (and always, where a document ends). A sentence that was not taken as the
    second begins the next pair. Pairs that do not fit are truncated as BERT's are.

    Rows are much shorter than `length`: the paper (section 4.2) raises the batch size to keep the tokens of a
    batch. Plan, passes and memory as for `SegmentPairs`.

    Attributes:
      next_sentence: with labels. False: always the sentence that follows.
      duplicates: passes over the corpus in an epoch.
      double_separator: RoBERTa's frame.
    """

    next_sentence: bool = True
    duplicates: int = 10
    double_separator: bool = True

    def check(self) -> None:
        """Raises `UserError` where a field cannot be."""
        check_duplicates(self.duplicates)

    def capacity(self, length: int) -> int:
        """The most tokens of a window for rows of `length` places."""
        return length - framing.num_special(pair=True, double_separator=self.double_separator)

    def build(
        self, split: TokenSplit, length: int, vocabulary: Vocabulary, key: Keys, cover: bool
    ) -> WindowIndex:
        """The pairs of an epoch; arguments and errors as for `SegmentPairs.build`."""
        self.check()
        width = check_room(self.capacity(length), length, 2)
        sentences = _sentences(split, vocabulary, type(self).__name__, self.next_sentence)
        keys = [counter.fold(key, n) for n in range(1 if cover else self.duplicates)]
        return _index(
            split, width, sentences, [_Pass(sentences, width, k, self.next_sentence, None) for k in keys]
        )


@dataclasses.dataclass(frozen=True)
class PairIndex:
    """Pairs by number: two spans of tokens each, and a label. 13 to 25 bytes a pair.

    Attributes:
      width: the most tokens of a pair.
      first_starts, first_lengths, second_starts, second_lengths: [N] spans of the split; a second one may be empty.
      labels: [N] 1 where the second segment is a random one; None: no labels.
    """

    split: TokenSplit
    width: int
    first_starts: Integer[np.ndarray, "N"]
    first_lengths: Integer[np.ndarray, "N"]
    second_starts: Integer[np.ndarray, "N"]
    second_lengths: Integer[np.ndarray, "N"]
    labels: Integer[np.ndarray, "N"] | None

    @property
    def count(self) -> int:
        """Pairs of an epoch."""
        return len(self.first_starts)

    def lengths(self) -> Int64[np.ndarray, "N"]:
        """Tokens of both segments of every pair."""
        return self.first_lengths.astype(np.int64) + self.second_lengths

    def windows(
        self,
        index: np.ndarray,
        epoch_keys: Keys,
        vocabulary: Vocabulary,
        needs: frozenset[str] = frozenset(),
        is_word_start: Bool[np.ndarray, "V"] | None = None,
    ) -> Windows:
        """See `WindowIndex.windows`: both segments without a gap. The same pairs in every epoch."""
        del epoch_keys
        first = self.first_lengths[index].astype(np.int64)
        both = first + self.second_lengths[index]
        # A window that begins `first` tokens ahead of the second segment has that segment where it belongs.
        ahead = self.second_starts[index].astype(np.int64) - first
        front = windows.read(
            self.split, self.first_starts[index].astype(np.int64), both, self.width, vocabulary, needs, is_word_start
        )  # fmt: skip
        back = windows.read(self.split, ahead, both, self.width, vocabulary, needs, is_word_start)
        of_first = np.arange(self.width) < first[:, None]

        def joined(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
            return None if a is None or b is None else np.where(of_first, a, b)

        return dataclasses.replace(
            front,
            tokens=np.where(of_first, front.tokens, back.tokens),
            document_starts=joined(front.document_starts, back.document_starts),
            sentence_starts=joined(front.sentence_starts, back.sentence_starts),
            word_starts=joined(front.word_starts, back.word_starts),
            first_lengths=first.astype(np.int32),
            pair_labels=None if self.labels is None else self.labels[index].astype(np.int32),
        )


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One pass over the corpus.

    Attributes:
      width: the most tokens of a pair.
      targets: [D] length that the chunks of each document aim at; None: pairs of single sentences.
    """

    sentences: Sentences
    width: int
    key: Keys
    next_sentence: bool
    targets: Int64[np.ndarray, "D"] | None

    def chunks(self, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For chunks that begin with these sentences: the sentence that begins the second segment, the sentence
        behind the chunk, and whether the second segment is to be a random one."""
        document = self.sentences.document_of(begin)
        if self.targets is None:
            end, middle = begin + 2, begin + 1
        else:
            end, middle = self.sentences.reaching(begin, self.targets[document]), None
        end = np.minimum(end, self.sentences.documents[document + 1])
        if middle is None:
            middle = counter.integers_at(self.key, begin, _CUT, begin + 1, np.maximum(end, begin + 2))
        if not self.next_sentence:
            return middle, end, np.zeros(len(begin), bool)
        single = end - begin == 1
        return middle, end, single | (counter.uniform_at(self.key, begin, _RANDOM) < 0.5)

    def begins(self) -> Int64[np.ndarray, "N"]:
        """The sentences with which chunks begin, ascending."""

        def following(begin: np.ndarray) -> np.ndarray:
            middle, end, is_random = self.chunks(begin)
            return np.where(is_random, middle, end)  # what a random segment replaces goes back to the stream

        return chain(self.sentences.count, following)

    def pairs(self, begin: np.ndarray) -> tuple[np.ndarray, ...]:
        """(first start, first length, second start, second length, label) of the chunks that begin here, in tokens
        and truncated."""
        bounds = self.sentences.bounds
        middle, end, is_random = self.chunks(begin)
        first, first_length = bounds[begin], bounds[middle] - bounds[begin]
        low, high = middle, end
        at = np.flatnonzero(is_random)
        low[at], high[at] = self._elsewhere(begin[at], first_length[at])
        second, second_length = bounds[low], bounds[high] - bounds[low]
        cut_first, cut_second = truncation(first_length, second_length, self.width)
        return (
            first + self._front(begin, cut_first, _FRONT_A),
            first_length - cut_first,
            second + self._front(begin, cut_second, _FRONT_B),
            second_length - cut_second,
            is_random,
        )

    def _elsewhere(self, begin: np.ndarray, first_length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sentences [low, high) of another document for each pair: ten draws to find another than its own."""
        sentences = self.sentences
        own = sentences.document_of(begin)
        document = own.copy()
        same = np.arange(len(begin))
        for attempt in range(10):
            document[same] = counter.integers_at(
                self.key, begin[same], _OTHER + attempt, 0, sentences.num_documents
            )
            same = same[document[same] == own[same]]
        last = sentences.documents[document + 1]
        low = counter.integers_at(self.key, begin, _SENTENCE, sentences.documents[document], last)
        if self.targets is None:
            return low, low + 1
        return low, np.minimum(sentences.reaching(low, self.targets[own] - first_length), last)

    def _front(self, begin: np.ndarray, cut: np.ndarray, salt: int) -> np.ndarray:
        """How many of `cut` dropped tokens are dropped at the front: a fair coin for each. Coin n is bit n % 64 of
        draw n // 64."""
        front = np.zeros(len(cut), np.int64)
        at, draw = np.flatnonzero(cut), 0
        while len(at):
            left = cut[at] - 64 * draw
            coins = counter.bits_at(counter.fold(self.key, draw), begin[at], salt)
            coins <<= np.maximum(64 - left, 0).astype(np.uint64)  # keeps the low bits, one a token
            front[at] += np.bitwise_count(coins)
            at, draw = at[left > 64], draw + 1
        return front


def truncation(
    first: np.ndarray, second: np.ndarray, most: int
) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
    """How many tokens each of two segments loses until both have `most` together, when the longer one loses a token
    at a time, and of equal ones the second (`truncate_seq_pair`)."""
    excess = np.maximum(first + second - most, 0)
    level = np.minimum(np.abs(first - second), excess)  # taken from the longer one until they are equal
    rest = excess - level
    longer = first > second
    return rest // 2 + np.where(longer, level, 0), (rest + 1) // 2 + np.where(longer, 0, level)


def _index(split: TokenSplit, width: int, sentences: Sentences, passes: list[_Pass]) -> PairIndex:
    columns: list[list[np.ndarray]] = [[] for _ in range(5)]
    for one in passes:
        for part in _blocks(one.begins()):
            for column, values in zip(columns, one.pairs(part), strict=True):
                column.append(narrow(values))
    first, first_length, second, second_length, labels = (
        np.concatenate([np.zeros(0, np.uint8), *column]) for column in columns
    )
    labelled = labels.astype(np.uint8) if passes[0].next_sentence else None
    return PairIndex(split, width, first, first_length, second, second_length, labelled)


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[low : low + _BLOCK] for low in range(0, len(values), _BLOCK))


def _sentences(split: TokenSplit, vocabulary: Vocabulary, name: str, next_sentence: bool) -> Sentences:
    """The sentences to make pairs of.

    Raises:
      UserError: no [CLS] or [SEP]; no sentence offsets; pairs with labels of one document, or of documents of one
        sentence.
    """
    framing.check(vocabulary)
    sentences = Sentences.of(split, name)
    if next_sentence and sentences.num_documents == 1:
        raise UserError(
            f"{name} takes half of its second segments from another document; split {split.name!r} has one document",
            where="objective.inputs.next_sentence",
            help="prepare the text so that it has several documents, or --set=objective.inputs.next_sentence=false",
            code=Exit.BAD_DATA,
        )
    if next_sentence and sentences.count <= sentences.num_documents:
        raise UserError(
            f"{name} pairs sentences of a document; in split {split.name!r} each of the {sentences.num_documents:,} "
            "documents is a single sentence, so that every second segment would be a random one",
            where="objective.inputs.next_sentence",
            help="prepare text that has sentences (. ! ? or line breaks end them), or "
            "--set=objective.inputs.next_sentence=false",
            code=Exit.BAD_DATA,
        )
    return sentences


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} is {value:g}; it is a share, 0 to 1", where=f"objective.inputs.{name}")
