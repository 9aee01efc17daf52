"""Page by page, the rules of C4 do what tensorflow-datasets' functions do: the same text or the same reason."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import tfds_c4
import web_pages
from hypothesis import given, settings

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.cleaning.c4 import C4Clean, LongLines, MaxLength, MinSentences
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

GOOD = "\n".join(web_pages.GOOD)


def _same_cleaning(document: Document) -> str:
    expected = tfds_c4.clean(document)
    assert tfds_c4.outcome(C4Clean()(document)) == expected
    return expected[0]


def test_every_branch_cleans_as_the_reference_does():
    reasons = {_same_cleaning(Document(text)) for text in web_pages.synthetic()}
    assert reasons == {"", "lorem_ipsum", "curly_bracket", "too_few_sentences"}


@settings(max_examples=200, deadline=None)
@given(web_pages.pages)
def test_any_page_is_cleaned_as_the_reference_does(text):
    _same_cleaning(Document(text))


def test_prose_is_cleaned_as_the_reference_does():
    assert {_same_cleaning(Document(text)) for text in web_pages.prose(40)} >= {""}


def test_real_pages_are_cleaned_as_the_reference_does():
    reasons = [_same_cleaning(page) for page in web_pages.real()]
    assert reasons.count("") > 20 and reasons.count("too_few_sentences") > 10


def _sentences_after_lines(document: Document) -> tuple[str, str]:
    """(reason, text) of `_remove_lines_from_text` where every line may stay."""
    with tfds_c4.reference() as counted:
        lines = [line for line, _ in tfds_c4.c4_utils._emit_url_to_lines(tfds_c4.page(document))]
        joined = (document.url, {"pages": [tfds_c4.page(document)], "lines": lines})
        pages = list(tfds_c4.c4_utils._remove_lines_from_text(joined, counted.append, 3))
    return ("", pages[0].text) if pages else (tfds_c4.REASONS[counted[-1]], "")


@settings(max_examples=200, deadline=None)
@given(web_pages.pages)
def test_three_sentences_after_deduplication_as_the_reference_counts_them(text):
    text = "\n".join(dict.fromkeys(line for line in text.split("\n") if line.strip())).casefold() or "x"
    if len(set(map(str.lower, map(str.strip, text.split("\n"))))) == text.count("\n") + 1:
        assert tfds_c4.outcome(MinSentences()(Document(text))) == _sentences_after_lines(Document(text))


@settings(max_examples=300, deadline=None)
@given(web_pages.pages)
def test_long_lines_as_the_reference_has_them(text):
    for document in (
        Document(text),
        Document(text * 40),
        Document(f"{text}\n{'x' * 200}\n{'y' * 199}\n" + text * 9),
    ):
        with tfds_c4.reference():
            kept = tfds_c4.c4_utils.paragraph_filter(tfds_c4.page(document))
        assert isinstance(LongLines()(document), Document) == kept


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([200, 200, 200], True),
        ([200, 200, 199], False),
        ([900, 900], False),
        ([200, 1, 200, 2, 200], True),
        ([], False),
    ],
)
def test_it_is_the_third_longest_line_that_counts(lines, kept):
    document = Document("\n".join("x" * length for length in lines))
    with tfds_c4.reference():
        assert tfds_c4.c4_utils.paragraph_filter(tfds_c4.page(document)) == kept
    assert (LongLines()(document) == document) == kept


def test_pages_are_too_long_where_the_reference_says_so():
    for length in (189_999, 190_000, 190_001):
        document = Document("x" * length)
        with tfds_c4.reference():
            kept = tfds_c4.c4_utils.is_valid_length(tfds_c4.page(document))
        assert isinstance(MaxLength()(document), Document) == kept


def test_the_papers_rules_are_options():
    brace_in_menu = Document(GOOD + "\nMenu {x}")
    assert C4Clean()(brace_in_menu).text == GOOD
    assert C4Clean(whole_page=True)(brace_in_menu) == Rejection("c4_clean", "curly_bracket")
    lorem_in_menu = Document(GOOD + "\nLorem Ipsum")
    assert C4Clean()(lorem_in_menu).text == GOOD
    assert C4Clean(whole_page=True)(lorem_in_menu) == Rejection("c4_clean", "lorem_ipsum")
    trailing = Document(GOOD + "\nThis one goes on and on and on...")
    assert C4Clean()(trailing).text == GOOD
    assert C4Clean(ellipsis=True)(trailing) is trailing
    quoted = Document(GOOD + "\n“This one has a typographic end.”")
    assert C4Clean()(quoted).text == GOOD
    assert C4Clean(end_marks=(".", "?", "!", '"', "”"))(quoted) is quoted


def test_a_page_that_needs_no_change_is_handed_on_itself():
    document = Document(GOOD, "https://example.org/", language="en")
    assert C4Clean()(document) is document
    assert C4Clean()(dataclasses.replace(document, text=GOOD + "\n")).url == document.url


def test_rules_can_be_sent_to_other_processes():
    rule = C4Clean(min_words=3)
    again = pickle.loads(pickle.dumps(rule))
    assert again == rule and hash(again) == hash(rule)


def test_values_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="min_words of c4_clean is 0, expected at least 1"):
        C4Clean(min_words=0)
    with pytest.raises(UserError, match="characters of max_length"):
        MaxLength(characters=0)
