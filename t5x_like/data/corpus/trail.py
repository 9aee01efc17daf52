"""Tokens of every step, counted: what texts documents had on their way, kept until there is a tokenizer.

A tokenizer may be trained on the result, and another may be asked for when all else is done; so passes count no tokens.
They leave every text that a document had, once, and which sides of which steps saw it.
"""

from __future__ import annotations

import functools
import heapq
import json
import operator
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from t5x_like.data.corpus import stored
from t5x_like.data.token_writer import write_durably
from t5x_like.data.tokenizers import Tokenizer, load_tokenizer

_BATCH = 1 << 20
"""Characters that are tokenised at a time."""


class Trail:
    """Writes down the texts of one pass over one unit; a row is number, text, sides, and numbers ascend.

    Args:
      file: where to.
      carried: the first text of each document is the last that the pass before wrote, and None is written for it.
    """

    def __init__(self, file: IO[bytes], carried: bool):
        self._rows, self._carried = stored.Rows(file), carried
        self._number, self._text, self._sides = -1, "", list[str]()
        self._known = False

    def saw(self, number: int, text: str, side: str) -> None:
        """A side of a step, such as `03 c4_clean/out`, saw this text of document `number`; documents come one by
        one."""
        if number != self._number or text != self._text:
            self._flush()
            self._known = self._carried and number != self._number
            self._number, self._text = number, text
        self._sides.append(side)

    def close(self) -> None:
        """Writes what is left; the file stays open."""
        self._flush()
        self._rows.close()

    def _flush(self) -> None:
        if self._sides:
            self._rows.write([self._number, None if self._known else self._text, self._sides])
            self._sides = []


def count(passes: Sequence[str], tokenizer: str, fingerprint: str, output: str) -> None:
    """Counts the tokens of a unit, by side, into a file of JSON; with how much was tokenised in what time.

    Args:
      passes: trails of the unit, pass by pass.
      tokenizer: its folder.
      fingerprint: of the tokenizer.
      output: the file.
    """
    model, counts, tokens = _load(tokenizer, fingerprint), Counter[str](), 0
    measured, seconds = Counter[str](), 0.0
    # What became of a document stands together, so that lines which it kept are tokenised once.
    trails = (stored.rows(Path(path)) for path in passes)
    for batch in _batches(heapq.merge(*trails, key=operator.itemgetter(0))):
        texts = [text for _, text, _ in batch if text is not None]
        begun = time.perf_counter()
        lengths = iter(model.lengths(texts).tolist())
        seconds += time.perf_counter() - begun
        measured.update(documents=len(texts), characters=sum(map(len, texts)))
        for _, text, sides in batch:
            if text is not None:
                tokens = next(lengths)
            for side in sides:
                counts[f"{side}/tokens"] += tokens
    found = {"counts": counts, "speed": {**measured, "seconds": seconds}}
    write_durably(Path(output), json.dumps(found, sort_keys=True).encode())


@functools.lru_cache(maxsize=1)
def _load(folder: str, fingerprint: str) -> Tokenizer:
    del fingerprint  # tells apart what lies in one folder at different times
    return load_tokenizer(folder)


def _batches(rows: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += len(row[1] or "")
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    yield batch
