"""The sentences of a split as one table of token positions, and a way to lay blocks over them one after another.

Where a block ends depends on where it begins, and where the next begins on where it ended: a chain. But its draws
may be named by the sentence that it begins with, so that "which sentence comes after a block that begins here?" is
answered for every sentence at once in NumPy, and what is left to do one by one is to hop along the answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from t5x_like.data.token_dataset import TokenSplit
from t5x_like.errors import Exit, UserError

_CHUNK = 1 << 18  # sentences that are looked at together: large enough for NumPy, small enough for the cache
MOST_DUPLICATES = 1000


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Sentences of a split, numbered through. Empty documents have none, and are left out.

    16 bytes a sentence and 8 a document while a plan is being made.

    Attributes:
      bounds: [S+1] first token of each sentence, then the number of tokens; strictly ascending.
      documents: [D+1] first sentence of each document that has any, then S.
    """

    bounds: Int64[np.ndarray, "S+1"]
    documents: Int64[np.ndarray, "D+1"]

    @classmethod
    def of(cls, split: TokenSplit, wanted_by: str, longest: int | None = None) -> Sentences:
        """The sentences of `split`; with `longest`, one of more tokens is cut into pieces of that many.

        Raises:
          UserError: the token dataset does not know where sentences begin; `wanted_by` names what needs it.
        """
        if split.sentence_offsets is None:
            raise UserError(
                f"{wanted_by} needs to know where sentences begin; split {split.name!r} does not tell",
                where="objective.inputs",
                help="prepare the text again (python -m t5x_like.prepare notes sentences), or "
                '--set=objective.inputs=\'{"type": "Contiguous"}\'',
                code=Exit.BAD_DATA,
            )
        firsts = np.unique(split.document_offsets)  # of equal ones, all but the last are empty documents
        bounds = np.append(split.sentence_offsets, np.int64(split.num_tokens))
        if (np.diff(bounds) <= 0).any() or (bounds[np.searchsorted(bounds, firsts)] != firsts).any():
            bounds = np.union1d(
                bounds, firsts
            )  # a sentence given twice, or a document that begins without one
        if longest is not None and (np.diff(bounds) > longest).any():
            pieces = -(-np.diff(bounds) // longest)
            first = np.cumsum(pieces) - pieces
            place = np.arange(int(pieces.sum())) - np.repeat(first, pieces)
            bounds = np.append(np.repeat(bounds[:-1], pieces) + longest * place, split.num_tokens)
        return cls(bounds, np.searchsorted(bounds, firsts))

    @property
    def count(self) -> int:
        """S."""
        return len(self.bounds) - 1

    @property
    def num_documents(self) -> int:
        """Documents that have a sentence."""
        return len(self.documents) - 1

    def document_of(self, sentence: np.ndarray) -> np.ndarray:
        """The document of each sentence, any shape."""
        return np.searchsorted(self.documents, sentence, side="right") - 1

    def reaching(self, sentence: np.ndarray, tokens: np.ndarray | int) -> np.ndarray:
        """How far to read, from the start of `sentence`, to have at least `tokens` of them: the sentence behind the
        last one that is read. At least one is read; the end of the document is not looked at."""
        found = np.searchsorted(self.bounds, self.bounds[sentence] + tokens)
        return np.clip(found, sentence + 1, self.count)


def chain(count: int, following: Callable[[np.ndarray], np.ndarray]) -> Int64[np.ndarray, "N"]:
    """0, following(0), following(following(0)), ... while below `count`.

    Args:
      following: for ascending sentences [n], the sentence behind the block that begins at each: a larger one.
    """
    visited: list[np.ndarray] = []
    at = 0
    for low in range(0, count, _CHUNK):
        high = min(low + _CHUNK, count)
        if at >= high:
            continue
        hops = following(np.arange(low, high)).tolist()
        found: list[int] = []
        while at < high:
            found.append(at)
            at = hops[at - low]
        visited.append(np.array(found, np.int64))
    return np.concatenate([np.zeros(0, np.int64), *visited])


def narrow(values: np.ndarray) -> np.ndarray:
    """The same numbers (none negative) as uint16, uint32 or int64, whichever is the smallest that holds them."""
    largest = int(values.max(initial=0))
    return values.astype(np.uint16 if largest < 1 << 16 else np.uint32 if largest < 1 << 32 else np.int64)


# ---- what all input formats refuse ----------------------------------------------------------------


def check_room(capacity: int, length: int, least: int) -> int:
    """`capacity`, or `UserError` where it is below `least` tokens."""
    if capacity < least:
        raise UserError(
            f"rows of {length} places have room for {max(capacity, 0)} tokens beside the special ids; "
            f"these inputs need {least}",
            where="objective.length",
            help=f"objective.length={length - capacity + least} or more",
        )
    return capacity


def check_duplicates(duplicates: int) -> None:
    """Raises `UserError` unless there is a pass over the corpus, and for more than anyone would wait for: all of them
    are laid out when the data is opened."""
    if not 1 <= duplicates <= MOST_DUPLICATES:
        raise UserError(
            f"duplicates is {duplicates:,}; an epoch has 1 to {MOST_DUPLICATES:,} passes over the text",
            where="objective.inputs.duplicates",
        )
