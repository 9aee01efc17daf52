"""Examples as rows of tokens for encoders: [CLS] A [SEP], [CLS] A [SEP] B [SEP], windows of a context, choices.

    kind                         encoder_input_tokens   labels
    classification, regression   [N, T]                 [N]
    tagging                      [N, T]                 [N, T], -1 where a place is not the first piece of a word
    span                         [M, T]                 [M, 2] first and last place of the answer; 0, 0: not here
    choice                       [N, C, T]              [N]

A span's context is cut into windows (tasks/spans.py), so it has M rows for N examples. T is the longest row there is,
rounded up, and at most the length asked for: nothing attends to padding, so that fewer places change no result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from t5x_like.data import framing
from t5x_like.data.tokenizer_base import Tokenizer
from t5x_like.errors import UserError
from t5x_like.tasks import spans
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example

ROUNDING = 8
STRIDE, QUESTION_LENGTH = 128, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of tokens, ready to be cut into batches.

    Attributes:
      arrays: `encoder_input_tokens`, `encoder_token_types` and `labels`, as the module's table has them; `labels` are
        zeros where an example has none.
      example: the example that a row belongs to; rows of one example are consecutive.
      truncated: examples that lost tokens.
      windows: of a span's rows: what each place shows.
      first_pieces: of tagging: place of each word's first piece, for words that fit.
    """

    arrays: dict[str, np.ndarray]
    example: Int64[np.ndarray, "M"]
    truncated: int = 0
    windows: spans.Windows | None = None
    first_pieces: Sequence[Int64[np.ndarray, "W"]] = ()

    @property
    def count(self) -> int:
        return len(self.example)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Featurizer:
    """From examples to rows of tokens.

    Attributes:
      task, tokenizer: as they belong to the model.
      length: most places of a row, special ids counted.
      double_separator: RoBERTa's way to set off the second segment.
      stride: places by which windows of a context move on; None: run_squad.py's 128, in short rows half of what is
        left beside the question.
      question_length: most tokens of a question; None: run_squad.py's 64, in short rows a quarter.
    """

    task: Task
    tokenizer: Tokenizer
    length: int
    double_separator: bool = False
    stride: int | None = None
    question_length: int | None = None

    def check(self) -> None:
        """Raises `UserError` where a row would have no room for text, or windows of a context would not overlap."""
        framing.check(self.tokenizer.vocabulary)
        special = framing.num_special(self.task.is_pair, self.double_separator)
        if self.length < special + 2:
            raise UserError(
                f"length is {self.length}; rows of {self.task.name} have {special} special ids and need room for text",
                where="length",
                help=f"length={special + 2} or more",
            )
        if self.task.kind != "span":
            return
        room, stride, question = self._windowing()
        if room - question < 1:
            raise UserError(
                f"question_length is {question}, and a row of {self.length} has room for {room} tokens",
                where="question_length",
                help=f"question_length={max(1, room // 4)}",
            )
        if stride >= room - question and self.stride is not None:
            raise UserError(
                f"stride is {stride}, and a window of a context {room - question} tokens: windows must overlap",
                where="stride",
                help=f"stride={max(1, (room - question) // 2)}",
            )

    def _windowing(self) -> tuple[int, int, int]:
        """Room for question and context in a row, stride, and most tokens of a question."""
        room = self.length - framing.num_special(True, self.double_separator)
        question = self.question_length or min(QUESTION_LENGTH, max(1, room // 4))
        return room, self.stride or min(STRIDE, max(1, (room - question) // 2)), question

    def __call__(self, examples: Sequence[Example]) -> Rows:
        """Rows of all examples, in their order."""
        if self.task.kind == "span":
            return self._span(examples)
        if self.task.kind == "tagging":
            return self._tagging(examples)
        return self._segments(examples)

    def _segments(self, examples: Sequence[Example]) -> Rows:
        choice = self.task.kind == "choice"
        pairs = [
            (e.texts[0], candidate)
            for e in examples
            for candidate in (e.texts[1:] if choice else [e.texts[1:]])
        ]
        first = self.tokenizer.encode_batch([a for a, _ in pairs])
        second = [np.zeros(0, np.int32)] * len(pairs)
        if self.task.is_pair:
            second = self.tokenizer.encode_batch([b if isinstance(b, str) else b[0] for _, b in pairs])
        framed, cut = self._frame(first, second)
        arrays = {"encoder_input_tokens": framed.tokens, "encoder_token_types": framed.token_types}
        if choice:
            count = len(self.task.choices)
            arrays = {name: rows.reshape(-1, count, rows.shape[1]) for name, rows in arrays.items()}
            cut = cut.reshape(-1, count).any(1)
        kind = np.float32 if self.task.kind == "regression" else np.int32
        arrays["labels"] = np.array([0 if e.label is None else e.label for e in examples], kind)
        return Rows(arrays=arrays, example=np.arange(len(examples)), truncated=int(cut.sum()))

    def _tagging(self, examples: Sequence[Example]) -> Rows:
        rows, starts = [], []
        for example in examples:
            # A space before a word makes byte-level pieces begin it as they do inside a text.
            pieces = [self._word(word, i > 0) for i, word in enumerate(example.texts)]
            starts.append(np.cumsum([0, *map(len, pieces)])[:-1])
            rows.append(np.concatenate(pieces))
        framed, cut = self._frame(rows, [np.zeros(0, np.int32)] * len(rows))
        labels = np.full(framed.tokens.shape, -1, np.int32)
        places = []
        for row, (example, first) in enumerate(zip(examples, starts, strict=True)):
            fits = first + 2 < framed.lengths[row]  # [CLS] before it, [SEP] behind
            places.append(first[fits] + 1)
            if example.label is not None:
                labels[row, places[-1]] = np.asarray(example.label)[fits]
        arrays = {
            "encoder_input_tokens": framed.tokens,
            "encoder_token_types": framed.token_types,
            "labels": labels,
        }
        return Rows(
            arrays=arrays, example=np.arange(len(rows)), truncated=int(cut.sum()), first_pieces=places
        )

    def _word(self, word: str, inside: bool) -> Int32[np.ndarray, "n"]:
        """Pieces of a word, at least one: a word of characters that the tokenizer drops is unknown."""
        ids = self.tokenizer.encode((" " if inside else "") + word)
        unknown = self.tokenizer.vocabulary.unk
        return np.asarray(ids or [self.tokenizer.vocabulary.pad if unknown is None else unknown], np.int32)

    def _span(self, examples: Sequence[Example]) -> Rows:
        cut = spans.cut(self.tokenizer, examples, *self._windowing())
        framed, _ = self._frame(cut.questions, cut.contexts)
        # The window's column of the first token of the context stands behind the question.
        question = np.array([len(q) for q in cut.questions], np.int64)
        columns = np.where(framed.source >= question[:, None], framed.source - question[:, None], -1)
        labels = spans.place(cut, examples, columns)
        arrays = {
            "encoder_input_tokens": framed.tokens,
            "encoder_token_types": framed.token_types,
            "labels": labels,
        }
        windows = dataclasses.replace(cut, columns=columns)
        return Rows(arrays=arrays, example=cut.example, windows=windows)

    def _frame(
        self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]
    ) -> tuple[framing.Framed, np.ndarray]:
        """Segments cut to fit and framed, and which rows were cut."""
        a, b = (np.array([len(row) for row in side], np.int64) for side in (first, second))
        room = self.length - np.where(
            b > 0, framing.num_special(True, self.double_separator), framing.num_special(False)
        )
        kept_a, kept_b = truncate(a, b, room)
        # A row of nothing would get no special ids: it shows what an unknown word does.
        unknown = self.tokenizer.vocabulary.unk
        empty = kept_a + kept_b == 0
        width = int((kept_a + kept_b + empty).max(initial=1))
        windows = np.full((len(first), width), self.tokenizer.vocabulary.pad, np.int32)
        for row, (x, y) in enumerate(zip(first, second, strict=True)):
            windows[row, : kept_a[row]] = x[: kept_a[row]]
            windows[row, kept_a[row] : kept_a[row] + kept_b[row]] = y[: kept_b[row]]
        if unknown is not None:
            windows[empty, 0] = unknown
        lengths, split = kept_a + kept_b + empty, kept_a + empty
        used = int((lengths + self.length - room).max(initial=1))
        length = min(self.length, -(-used // ROUNDING) * ROUNDING)
        framed = framing.frame(
            windows, lengths, split, length, self.tokenizer.vocabulary, double_separator=self.double_separator
        )
        return framed, kept_a + kept_b < a + b


def truncate(
    first: np.ndarray, second: np.ndarray, room: np.ndarray | int
) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
    """Lengths of two segments after tokens were taken off the end of the longer one until both fit `room`, the second
    where they are equal (bert/run_classifier.py `_truncate_seq_pair`, in one go)."""
    half = np.maximum(np.asarray(room) - second, -(-np.asarray(room) // 2))
    kept = np.where(first + second <= room, first, np.minimum(first, half))
    return kept.astype(np.int64), np.minimum(second, room - kept).astype(np.int64)
