"""Page by page, the rules of Gopher, FineWeb and C4 decide as datatrove's filters do, where datatrove is installed.

Both sides cut a text into words and sentences by the same functions, ours: datatrove asks spaCy.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable

import pytest
import tfds_c4
import web_pages
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.cleaning import characters
from t5x_like.data.cleaning.base import Rule
from t5x_like.data.cleaning.c4 import C4Clean, LongLines
from t5x_like.data.cleaning.fineweb import FineWebQuality
from t5x_like.data.cleaning.gopher import GopherQuality, GopherRepetition
from t5x_like.data.cleaning.pii import MaskPII
from t5x_like.data.cleaning.punkt import _model, _sentences
from t5x_like.data.documents import Document

pytest.importorskip("datatrove")
from datatrove.data import Document as Page
from datatrove.pipeline.filters import (
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils import text as datatrove_text

REASONS = {
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "too_few_sentences",
    "< 3 paragraphs": "too_few_long_lines",
    "empty": "empty",
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullets",
    "gopher_too_many_end_ellipsis": "line_ellipses",
    "gopher_below_alpha_threshold": "few_letters",
    "gopher_enough_stop_words": "few_stop_words",
    "dup_para_frac": "paragraphs",
    "dup_para_char_frac": "paragraph_characters",
    "dup_line_frac": "lines",
    "dup_line_char_frac": "line_characters",
    **{f"top_{n}_gram": f"top_{n}gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate_{n}grams" for n in range(5, 11)},
    "line_punct_ratio": "ended_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "repeated_lines",
    "list_ratio": "line_breaks",
}
FINEWEB_C4 = C4Clean(end_marks=(), min_words=3, words_before_citations=True, min_sentences=5)
DATATROVE_C4 = dataclasses.replace(FINEWEB_C4, end_marks=(".", "?", "!", '"', "'"))
PAIRS = [
    (DATATROVE_C4, lambda: c4_filters.C4QualityFilter()),
    (FINEWEB_C4, lambda: c4_filters.C4QualityFilter(filter_no_terminal_punct=False)),
    (LongLines(), c4_filters.C4ParagraphFilter),
    (GopherQuality(), gopher_quality_filter.GopherQualityFilter),
    (
        GopherQuality(min_words=3, min_stop_words=0),
        lambda: gopher_quality_filter.GopherQualityFilter(3, min_stop_words=0),
    ),
    (GopherRepetition(), gopher_repetition_filter.GopherRepetitionFilter),
    (FineWebQuality(), fineweb_quality_filter.FineWebQualityFilter),
]
IDS = ["c4", "c4_fineweb", "mc4", "gopher_quality", "gopher_quality_short", "gopher_repetition", "fineweb"]


@pytest.fixture(autouse=True, scope="module")
def same_words():
    def words(text, language="en"):
        return characters.words(text, "tokens")

    def sentences(text, language="en"):
        return [text[a:b] for a, b in _sentences(text, _model("english"))]

    with pytest.MonkeyPatch.context() as patch:
        for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
            patch.setattr(module, "split_into_words", words)
        patch.setattr(c4_filters, "split_into_sentences", sentences)
        yield


def _same(rule: Rule, make, text: str) -> str:
    page = Page(text=text, id="0")
    found = make().filter(page)
    expected = (REASONS[found[1]], "") if isinstance(found, tuple) else ("", page.text)
    assert tfds_c4.outcome(rule(Document(text))) == expected
    return expected[0]


def _spoilers(lines: list[str]) -> tuple[Callable[[str], str], ...]:
    return (
        lambda line: lines[0],
        lambda line: f"- {line[:60]}",
        lambda line: f"{line[:60]}...",
        lambda line: line[:20],
        lambda line: "# " * 20,
        lambda line: "12 / 34 & 56 + 78 =",
        lambda line: line.replace(" ", ""),
        lambda line: "a b c d e f " * 4,
        lambda line: f"\n\n{lines[1]}\n\n",
        lambda line: "\n\n",
        lambda line: " ".join(lines[2].split()[:8]) + " " + line[:30],
    )


def _worn() -> list[str]:
    """Prose that is spoilt in many ways and degrees."""
    draw, found = random.Random(0), []
    for text in web_pages.prose(6):
        lines = [text[begin : begin + 120] for begin in range(0, 6000, 120)]
        for share, spoil in itertools.product((0.02, 0.1, 0.3, 0.6, 0.9), _spoilers(lines)):
            found.append("\n".join(spoil(line) if draw.random() < share else line for line in lines))
    return found


WORN = _worn()


@pytest.mark.parametrize(("rule", "make"), PAIRS, ids=IDS)
def test_spoilt_prose(rule, make):
    reasons = {_same(rule, make, text) for text in (*WORN, *web_pages.prose(20), *web_pages.synthetic())}
    assert len(reasons) >= 2


@pytest.mark.parametrize(("rule", "make"), PAIRS, ids=IDS)
def test_real_pages(rule, make):
    for page in web_pages.real():
        _same(rule, make, page.text)


@settings(max_examples=300, deadline=None)
@given(web_pages.pages | st.text(st.sampled_from("ab .\n-#…•1"), max_size=200))
def test_any_page(text):
    for rule, make in PAIRS:
        if text and (text.split("\n") != [""] or not isinstance(rule, LongLines)):
            _same(rule, make, text)


def test_marks_are_datatroves():
    assert characters.TERMINAL == datatrove_text.TERMINAL_PUNCTUATION
    assert characters.PUNCTUATION == datatrove_text.PUNCTUATION_SET


MAIL = ("a", "b.c", "..", ".", "@", "x@y.zz", "é", "!", " ", "\n", "-", "a@b", "@c.d", "foo", "_", "%")
IPS = ("[1.2.3.4]", "1.2.3.4", "8.8.8.8", "10.0.0.1", "256.1.1.1", "01.02.03.04", "1.1.1.1.1")
_with_addresses = st.lists(st.sampled_from((*MAIL, *IPS))).map("".join)


@settings(max_examples=1500, deadline=None)
@given(_with_addresses)
def test_addresses_are_masked_alike(text):
    assert MaskPII()(Document(text)).text == PIIFormatter().format(text)


def test_addresses_of_real_pages_are_masked_alike():
    for page in web_pages.real():
        assert MaskPII()(page).text == PIIFormatter().format(page.text)
