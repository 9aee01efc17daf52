"""Sentence starts, found in the tokens themselves.

Sentences begin only where a word begins, so for a tokenizer whose pieces never cross white space the tokens of a
document are the tokens of its sentences one after another. Finding them in the token array costs a few table
look-ups for each token; splitting the text first and encoding sentence by sentence costs a third of the
tokenizer's own time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, Integer

_CLOSERS = "\"')\\]}”’»"
_OPENERS = "\"'(\\[{“‘«"
_ENDS = re.compile(rf"[.!?…][{_CLOSERS}]*$")
_CLOSES = re.compile(rf"[{_CLOSERS}]+")
_OPENS = re.compile(rf" (?:$|[{_OPENERS}]*(?:$|[^\sa-z{_OPENERS}]))")
_ABBREVIATION = re.compile(
    r"Mr|Mrs|Ms|Dr|St|Prof|Rev|Hon|Gen|Col|Capt|Lieut|Lt|Maj|Sgt|Messrs|Mt|Gov|Sen|Rep|Pres|Nos?|Vol|Fig|vs|cf|Jr|Sr"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|[A-HJ-Z]"
)
_ENDS_ABBREVIATED = re.compile(rf"(?<!\w)(?:{_ABBREVIATION.pattern})$")
_ENDS_SMALL_ABBREVIATED = re.compile(_ENDS_ABBREVIATED.pattern, re.IGNORECASE)
_BORDER = re.compile(rf"\n\s*|([.!?…][{_CLOSERS}]*)[^\S\n]+(?=[{_OPENERS}]*([^\s{_OPENERS}]))")


def split_sentences(text: str) -> list[str]:
    """Sentences of a text by the same rule, for tokenizers whose pieces do not tell where spaces were.

    Cut behind the white space that ends a sentence, so the parts joined are the text. A text without any capital
    letter may begin its sentences with small ones.
    """
    small = text.islower()
    abbreviated = _ENDS_SMALL_ABBREVIATED if small else _ENDS_ABBREVIATED
    parts, begin = [], 0
    for border in _BORDER.finditer(text):
        mark = border[1]
        if mark is not None:
            if not small and "a" <= border[2] <= "z":
                continue
            if mark == "." and abbreviated.search(text, max(begin, border.start() - 12), border.start()):
                continue
        parts.append(text[begin : border.end()])
        begin = border.end()
    return [*parts, text[begin:]]


# What a piece may be: it ends a sentence, closes a quotation, begins a sentence, has a line break, is a full stop, an
# abbreviation without or with its stop.
_ENDED, _CLOSED, _OPENED, _BROKEN, _STOP, _SHORT, _SHORTENED = (1 << bit for bit in range(7))


class SentenceRule:
    """Finds the tokens that begin a sentence; made once for a vocabulary.

    A token begins a sentence when it begins a word, is not a lower-case letter, and the token before it closes a
    sentence (`.`, `!`, `?`, `…`, with closing quotes or brackets behind), unless that full stop belongs to an
    abbreviation or an initial; also after a line break, and at the start of every document.

    Args:
      pieces: the text of each id, with a leading space where the piece begins a word, "" for ids that are no text.
    """

    def __init__(self, pieces: Sequence[str]):
        cased = any(piece != piece.lower() for piece in pieces)

        def table(test) -> Bool[np.ndarray, "V"]:
            return np.fromiter((bool(test(piece)) for piece in pieces), bool, len(pieces))

        tables = {
            _ENDED: table(_ENDS.search),
            _CLOSED: table(_CLOSES.fullmatch),
            _OPENED: table(_OPENS.match if cased else (lambda piece: piece[:1] == " ")),
            _BROKEN: table(lambda piece: "\n" in piece),
            _STOP: table(lambda piece: piece == "."),
            _SHORT: table(lambda piece: piece[:1].isspace() and _abbreviates(piece[1:])),
            _SHORTENED: table(
                lambda piece: piece[:1].isspace() and piece[-1:] == "." and _abbreviates(piece[1:-1])
            ),
        }
        self._flags = np.zeros(len(pieces), np.uint8)  # one look-up for each token
        for bit, column in tables.items():
            self._flags |= column * np.uint8(bit)

    def starts(
        self, ids: Integer[np.ndarray, "T"], document_starts: Integer[np.ndarray, "D"]
    ) -> Int64[np.ndarray, "S"]:
        """Positions in `ids` that begin a sentence, ascending; every document start below T is among them."""
        if not len(ids):
            return np.zeros(0, np.int64)
        flags = self._flags.take(ids)
        # One token in twenty or so may be the last of a sentence; the rules are asked of these alone.
        last = np.flatnonzero(flags[:-1] & (_ENDED | _CLOSED | _BROKEN) != 0)
        here, after = flags[last], flags[last + 1]
        before = flags[last - 1]
        before[last == 0] = 0
        ended = (here & _ENDED > 0) | ((here & _CLOSED > 0) & (before & _ENDED > 0))
        ended &= (here & _SHORTENED == 0) & ((here & _STOP == 0) | (before & _SHORT == 0))
        broken = (here & _BROKEN > 0) & (after & _BROKEN == 0)
        behind = last[(ended & (after & _OPENED > 0)) | broken] + 1
        starts = np.concatenate([behind, document_starts[document_starts < len(ids)]])
        starts.sort(kind="stable")  # two ascending parts are merged
        return starts[np.diff(starts, prepend=-1) > 0]


def _abbreviates(word: str) -> bool:
    return _ABBREVIATION.fullmatch(word) is not None
