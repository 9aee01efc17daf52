"""The sample of a corpus that a tokenizer is trained on."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from t5x_like.data.documents import Problem, Settings, nothing_left
from t5x_like.data.reading import blocks, parse
from t5x_like.data.sources import SourceFile
from t5x_like.data.units import fail_if_asked, is_validation, text_hash
from t5x_like.errors import Exit, UserError


def tokenizer_sample(
    files: Sequence[SourceFile], read: Settings, wanted: int, validation_fraction: float
) -> list[str]:
    """Documents for training the tokenizer: those with the smallest hashes among the beginnings of all files.

    Of each file its share of four times the wanted bytes is read, so the sample of a large corpus costs little;
    validation documents stay out.

    Args:
      files, read: the input and how it is read.
      wanted: bytes of text.
      validation_fraction: share of the documents that is held out.

    Raises:
      UserError: there is no document to train on; the message says what was wrong with those there are.
    """
    total = sum(file.size for file in files)
    kept: list[tuple[int, int, str]] = []  # a heap with the largest hash first
    problems: list[Problem] = []
    size = number = 0
    for file in files:
        budget = max(1, 4 * wanted * file.size // max(total, 1))
        done = 0
        for block in blocks([file], read, min(budget, 1 << 20)):
            for item in parse(block, file, read):
                if isinstance(item, Problem):
                    fail_if_asked(item, read)
                    problems.append(item)
                    continue
                number += 1
                if is_validation(text_hash(item.text), validation_fraction):
                    continue
                heapq.heappush(kept, (-text_hash(item.text, seed=1), number, item.text))
                size += len(item.text.encode())
                while len(kept) > 1 and size - (last := len(kept[0][2].encode())) >= wanted:
                    heapq.heappop(kept)
                    size -= last
            done += block.size
            if done >= budget:
                break
    if not number:
        kinds = Counter(problem.kind for problem in problems)
        raise nothing_left(kinds, problems[0] if problems else None)
    if not kept:
        raise UserError(
            f"the only documents there are ({number}) fall into the validation split",
            where="--validation_fraction",
            help="--validation_fraction=0, or more documents",
            code=Exit.BAD_DATA,
        )
    return [text for _, _, text in sorted(kept, key=lambda entry: entry[1])]
