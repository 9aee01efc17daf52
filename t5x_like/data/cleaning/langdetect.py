"""The language identifier langdetect 1.0.9, faster: the same n-grams, random draws and sums, so the same answer.

C4 was made with langdetect, its random numbers seeded with 0, and its answers near the threshold of 0.99 hang on them.
The package goes through a text character by character, and through its 55 languages one by one. Here a word is cut
into n-grams once and remembered, and languages are multiplied as arrays. Profiles, and the rules that normalise
characters, are the package's own.

Method: Nakatani Shuyo's language-detection (naive Bayes over 1- to 3-grams; seven trials on random n-grams until one
language is sure). Source: langdetect/detector.py, langdetect/utils/ngram.py.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from t5x_like.errors import UserError

MAX_CHARACTERS = 10_000
_TRIALS = 7
_ALPHA, _ALPHA_WIDTH, _BASE = 0.5, 0.05, 10_000
_SURE, _MAX_DRAWS = 0.99999, 1000
_LEAST_SHOWN = 0.1
_AT_ONCE = (
    50  # draws, of which the products stay far from underflow; a multiple of five that divides _MAX_DRAWS
)

_URL = re.compile(r"https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}")
_MAIL = re.compile(r"[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}")
_SPACES = re.compile(" +")
_WORD = re.compile("[^ ]+ ?")
_LATIN = re.compile("[A-z]+")  # langdetect's range, with the six marks between Z and a
_NOT_LATIN = re.compile("[\u0300-\U0010ffff]+")  # with the Vietnamese letters that it means to leave out


class _Profiles(NamedTuple):
    """What the package knows.

    Attributes:
      languages: their codes.
      numbers: n-gram -> its row.
      rows: probability of each n-gram in each language.
      normalised: translation table of characters.
      vietnamese: letters with their marks put together.
    """

    languages: tuple[str, ...]
    numbers: dict[str, int]
    rows: Float64[np.ndarray, "N L"]
    normalised: dict[int, str]
    vietnamese: Any


class _Normalised(dict):
    """Translation table that asks the package once a character."""

    def __init__(self, normalise: Any):
        super().__init__()
        self.normalise = normalise

    def __missing__(self, code: int) -> str:
        self[code] = found = self.normalise(chr(code))
        return found


@functools.cache
def _profiles() -> _Profiles:
    try:
        import langdetect
        from langdetect.utils.ngram import NGram
    except ImportError:
        raise UserError(
            "C4's language identifier needs the package langdetect", help="pip install '.[corpus]'"
        ) from None
    folder = Path(str(langdetect.detector_factory.PROFILES_DIRECTORY))
    profiles = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir()) if path.is_file()
    ]
    numbers: dict[str, int] = {}
    for profile in profiles:
        for ngram in profile["freq"]:
            numbers.setdefault(ngram, len(numbers))
    rows = np.zeros((len(numbers), len(profiles)))
    for language, profile in enumerate(profiles):
        for ngram, count in profile["freq"].items():
            if len(ngram) <= 3:
                rows[numbers[ngram], language] = count / profile["n_words"][len(ngram) - 1]
    names = tuple(profile["name"] for profile in profiles)
    return _Profiles(names, numbers, rows, _Normalised(NGram.normalize), NGram.normalize_vi)


def probabilities(text: str, seed: int = 0) -> list[tuple[str, float]]:
    """(language, probability) of the languages above 0.1, the likeliest first; none where the text has no letters.

    Args:
      text: of which at most 10,000 characters are looked at.
      seed: of the random draws.
    """
    known = _profiles()
    ngrams = np.fromiter(_ngrams(_prepared(text, known)), np.int64)
    if not ngrams.size:
        return []
    draws = _Draws(seed)
    total = np.zeros(len(known.languages))
    for _ in range(_TRIALS):
        weight = (_ALPHA + draws.gauss() * _ALPHA_WIDTH) / _BASE
        believed = np.full(len(known.languages), 1.0 / len(known.languages))
        for drawn in itertools.count(0, _AT_ONCE):
            # The first n-gram is judged alone, then five at a time.
            places, ends = draws.choices(len(ngrams), _AT_ONCE + (drawn == 0))
            factors = known.rows.take(ngrams.take(places), axis=0) + weight
            factors[0] *= believed
            steps = np.multiply.accumulate(factors, axis=0)[0 if drawn == 0 else 4 :: 5]
            steps /= steps.sum(axis=1, keepdims=True)
            sure = np.flatnonzero(steps.max(axis=1) > _SURE)
            if sure.size or drawn + _AT_ONCE >= _MAX_DRAWS:
                last = int(sure[0]) if sure.size else len(steps) - 1
                believed = steps[last]
                draws.used(int(ends[5 * last if drawn == 0 else 5 * last + 4]))
                break
            believed = steps[-1]
            draws.used(int(ends[-1]))
        total += believed / _TRIALS
    shown = [pair for pair in zip(known.languages, total.tolist()) if pair[1] > _LEAST_SHOWN]
    return sorted(shown, key=lambda pair: -pair[1])


class _Draws:
    """Python's `random.Random(seed)`, many draws at once; its words of 32 bits are the same for every document."""

    def __init__(self, seed: int):
        self.seed, self.place = seed, 0
        self.kept: float | None = None

    def _words(self, count: int) -> np.ndarray:
        stream = _stream(self.seed, 1 << max(15, (self.place + count).bit_length()))
        return stream[self.place : self.place + count]

    def gauss(self) -> float:
        """`gauss(0.0, 1.0)`: they come in pairs."""
        if self.kept is not None:
            found, self.kept = self.kept, None
            return found
        words = self._words(4).tolist()
        self.place += 4
        turn, other = ((high >> 5) * 2.0**26 + (low >> 6) for high, low in (words[:2], words[2:]))
        turn = turn / 2.0**53 * 2.0 * math.pi
        radius = math.sqrt(-2.0 * math.log(1.0 - other / 2.0**53))
        self.kept = math.sin(turn) * radius
        return math.cos(turn) * radius

    def choices(self, among: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What `choice(range(among))` gives next, `count` times, and how many words are gone behind each."""
        shift, window = 32 - among.bit_length(), 2 * count + 64
        while True:
            found = self._words(window) >> shift
            ends = np.flatnonzero(found < among)[:count]
            if len(ends) == count:
                return found[ends], ends + 1
            window *= 2

    def used(self, words: int) -> None:
        self.place += words


@functools.lru_cache(8)
def _stream(seed: int, words: int) -> np.ndarray:
    drawn = random.Random(seed).getrandbits(32 * words)
    return np.frombuffer(drawn.to_bytes(4 * words, "little"), "<u4")


def _prepared(text: str, known: _Profiles) -> str:
    """The text without addresses, cut, its spaces made one, its characters normalised."""
    if "://" in text:
        text = _URL.sub(" ", text)
    if "@" in text:
        text = _MAIL.sub(" ", text)
    text = _SPACES.sub(" ", known.vietnamese(text)[:MAX_CHARACTERS])
    if not text.isascii():
        latin, others = (sum(map(len, runs.findall(text))) for runs in (_LATIN, _NOT_LATIN))
        if 2 * latin < others:
            text = _LATIN.sub("", text)
    return text.translate(known.normalised)


def _ngrams(text: str) -> Iterable[int]:
    """Numbers of the n-grams of a text that profiles know, in its order; none crosses a space."""
    return itertools.chain.from_iterable(map(_word_ngrams, _WORD.findall(text)))


@functools.lru_cache(1 << 16)
def _word_ngrams(word: str) -> tuple[int, ...]:
    """Numbers of the n-grams of a word, and of the space behind it if it has one.

    None ends in the second or a later of several capitals, as in abbreviations.
    """
    numbers = _profiles().numbers
    found = []
    before, grams, shouted = " ", " ", False
    for character in word:
        grams = grams[-2:] + character
        if not character.isupper():
            shouted = False
        elif before.isupper():
            shouted = True
        before = character
        if shouted:
            continue
        for length in range(1, len(grams) + 1):
            ngram = grams[-length:]
            if ngram != " " and ngram in numbers:
                found.append(numbers[ngram])
    return tuple(found)
