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

_WORD = re.compile(r"\w+")
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

    def __call__(self, document: Document) -> Document | Rejection:
        language = (document.language or self.language).partition("-")[0]
        matcher = _matchers(self.lists, self.language).get(language)
        if matcher is None or not (word := matcher.first(document.text.lower())):
            return document
        rejected, of = self.share.as_integer_ratio()
        if urls.hashed(document.url) % of >= rejected:
            return document
        return Rejection(self.name, "bad_word", word)


class _Matcher(NamedTuple):
    """Finds a word of a list in a text, without going through the text once a word.

    Attributes:
      by_word: what must stand in the text as a whole word -> what then to look for; the empty tuple where the word is
        all there is to it.
      inside: words, each with its characters, that may stand anywhere in the text.
      others: patterns of words without letters or digits.
    """

    by_word: dict[str, tuple[re.Pattern[str], ...]]
    inside: tuple[tuple[str, frozenset[str]], ...]
    others: tuple[re.Pattern[str], ...]

    def first(self, text: str) -> str:
        """A word of the list that is in `text`, or nothing."""
        if self.inside:
            characters = set(text)
            return next((w for w, letters in self.inside if letters <= characters and w in text), "")
        # A word between non-word characters is a run of word characters.
        for word in sorted(self.by_word.keys() & set(_WORD.findall(text))):
            patterns = self.by_word[word]
            if not patterns:
                return word
            for pattern in patterns:
                if found := pattern.search(text):
                    return found[1]
        return next((found[1] for pattern in self.others if (found := pattern.search(text))), "")


def _matcher(language: str, words: Iterable[str]) -> _Matcher:
    words = sorted(set(words) - _ALLOWED.get(language, frozenset()))
    if language in _NO_SPACES:
        return _Matcher({}, tuple((word, frozenset(word)) for word in words), ())
    by_word: dict[str, tuple[re.Pattern[str], ...]] = {}
    others = []
    for word in words:
        runs = _WORD.findall(word)
        if runs == [word]:
            continue
        pattern = re.compile(rf"(?:\W|^)({re.escape(word)})(?:\W|$)")
        if runs:
            longest = max(runs, key=len)
            by_word[longest] = (*by_word.get(longest, ()), pattern)
        else:
            others.append(pattern)
    by_word |= {word: () for word in words if _WORD.fullmatch(word)}
    return _Matcher(by_word, (), tuple(others))


@functools.cache
def _matchers(lists: str, language: str) -> dict[str, _Matcher]:
    if lists == "ldnoobw":
        found = files.bad_words()
    elif lists.endswith((".json", ".json.gz")):
        found = files.read_json(lists, "lists")
        if not isinstance(found, dict) or not all(
            isinstance(words, list) and all(isinstance(word, str) for word in words)
            for words in found.values()
        ):
            raise UserError(
                "expected an object of language -> list of words", where=f"lists: {lists}", code=Exit.BAD_DATA
            )
    else:
        found = {language: list(files.lines(lists, "lists"))}
    if any("" in words for words in found.values()):
        raise UserError("an empty word is in every page", where=f"lists: {lists}", code=Exit.BAD_DATA)
    return {name: _matcher(name, words) for name, words in found.items()}
