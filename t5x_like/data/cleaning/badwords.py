"""Rejects pages that hold a word of a list (Raffel et al. 2020, section 2.2; mC4: Xue et al. 2021, section 3.1)."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from t5x_like.data import urls
from t5x_like.data.cleaning import files
from t5x_like.data.cleaning.base import Rejection, in_unit
from t5x_like.data.documents import Document
from t5x_like.errors import Exit, UserError

_RUN = re.compile(r"\w+")
_SPACES = (
    bytes(code if chr(code).isalnum() or code == ord("_") else ord(" ") for code in range(128)) + b" " * 128
)
_NO_SPACES = ("ja", "th", "zh")
# Common parts of words in languages without spaces; each would remove more than a tenth of its language's pages.
_ALLOWED = {"ja": frozenset(("sm", "グロ", "女の子")), "zh": frozenset(("性",))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadWords:
    """Rejects pages that hold a word of the list for their language, in lower case and between non-word characters.

    In Japanese, Thai and Chinese any occurrence counts, and a few common parts of words are allowed.

    Attributes:
      lists: `ldnoobw`, the list that C4 uses (lists/README.md), or a JSON file of the user's: language -> list of
        words, or a text file with one word a line, for the language of `language`.
      language: of documents whose language is not known, and of a text file.
      share: of the pages with such a word, chosen by their address, this many are rejected; 0.999 in mC4 3.1.0.

    Reason: `bad_word`. Source: tensorflow_datasets/text/c4_utils.py, `get_badwords_filter_fn` (3.1.0: words are taken
    literally; before, they were regular expressions), c4.py, `_BADWORDS_ALLOWLIST`.
    """

    name: ClassVar[str] = "bad_words"

    lists: str = "ldnoobw"
    language: str = "en"
    share: float = 1.0

    def __post_init__(self) -> None:
        in_unit(self, "share")

    def files_read(self) -> Iterable[str]:
        if self.lists == "ldnoobw":
            return ()
        help = "a file with one word a line, or ldnoobw for the list of this package"
        return files.names(self.lists, "lists", help)

    def __call__(self, document: Document) -> Document | Rejection:
        language = (document.language or self.language).partition("-")[0]
        words = _lists(self.lists, self.language).get(language)
        if words is None or not (word := words.first_in(document.text.lower())):
            return document
        rejected, of = self.share.as_integer_ratio()
        if urls.hashed(document.url) % of >= rejected:
            return document
        return Rejection(self.name, "bad_word", word)


class _Words(NamedTuple):
    r"""A list, arranged so that a text is gone through once.

    A word of the list that stands between non-word characters, as `(?:\W|^)(...)(?:\W|$)` has it, is made of whole
    runs of word characters; so its longest run is among those of the text.

    Attributes:
      by_run: run -> the words of the list whose longest run it is.
      ascii_runs: the same runs in bytes; None where some are not ASCII.
      others: words without such characters, which are looked for everywhere.
      whole: whether words must stand between non-word characters.
    """

    by_run: dict[str, tuple[str, ...]]
    ascii_runs: frozenset[bytes] | None
    others: tuple[str, ...]
    whole: bool

    def first_in(self, text: str) -> str:
        """The first of the words, by the alphabet of their runs, that is in `text`; nothing if none is."""
        for run in sorted(self._runs_in(text)):
            for word in self.by_run[run]:
                if self._stands_in(text, word):
                    return word
        return next((word for word in self.others if word in text and self._stands_in(text, word)), "")

    def _runs_in(self, text: str) -> set[str]:
        """The runs that may be in `text`; none is missed. As bytes, letters that are not ASCII part runs, which is a
        fraction of the work; and a run of the list ends where one of the text does."""
        if not self.by_run:
            return set()
        if self.ascii_runs is None:
            return self.by_run.keys() & set(_RUN.findall(text))
        found = self.ascii_runs.intersection(text.encode("ascii", "replace").translate(_SPACES).split())
        return {run.decode() for run in found}

    def _stands_in(self, text: str, word: str) -> bool:
        begin = text.find(word)
        while begin >= 0:
            end = begin + len(word)
            if not self.whole or not (_in_word(text[begin - 1 : begin]) or _in_word(text[end : end + 1])):
                return True
            begin = text.find(word, begin + 1)
        return False


def _in_word(character: str) -> bool:
    r"""Whether `\w` matches it; nothing, at the ends of a text, is no character."""
    return character.isalnum() or character == "_"


def _arranged(language: str, words: Iterable[str]) -> _Words:
    words = sorted(set(words) - _ALLOWED.get(language, frozenset()))
    if language in _NO_SPACES:
        return _Words({}, None, tuple(words), False)
    by_run: dict[str, tuple[str, ...]] = {}
    others = []
    for word in words:
        if runs := _RUN.findall(word):
            run = max(runs, key=len)
            by_run[run] = (*by_run.get(run, ()), word)
        else:
            others.append(word)
    ascii_runs = frozenset(run.encode() for run in by_run) if all(map(str.isascii, by_run)) else None
    return _Words(by_run, ascii_runs, tuple(others), True)


@functools.cache
def _lists(lists: str, language: str) -> dict[str, _Words]:
    if lists == "ldnoobw":
        found = files.bad_words()
        if language.partition("-")[0] not in found:
            raise UserError(
                f"there is no list of bad words for {language!r}",
                where="language",
                help="known: " + ", ".join(sorted(found)) + "; or a file of one's own in `lists`",
                code=Exit.USAGE,
            )
    elif lists.endswith((".json", ".json.gz")):
        found = files.read_json(lists, "lists")
        if not isinstance(found, dict) or not all(
            isinstance(words, list) and all(isinstance(word, str) for word in words)
            for words in found.values()
        ):
            raise UserError(
                "expected an object of language -> list of words", where=f"lists: {lists}", code=Exit.BAD_DATA
            )
        found = {name: [word.lower() for word in words] for name, words in found.items()}
    else:
        found = {language: [word.lower() for word in files.lines(lists, "lists")]}
    if any("" in words for words in found.values()):
        raise UserError("an empty word is in every page", where=f"lists: {lists}", code=Exit.BAD_DATA)
    return {name: _arranged(name, words) for name, words in found.items()}
