"""Spans of three sentences, as the paper tells it."""

from __future__ import annotations

from in_memory import compare, texts

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.spans import DuplicateSpans
from t5x_like.data.documents import Document

ONE, TWO, THREE, FOUR, FIVE = (
    f"This is sentence number {n}." for n in ("one", "two", "three", "four", "five")
)


def left(*pages: str) -> list[str | None]:
    return texts(DuplicateSpans(), [Document(page) for page in pages])


def test_all_but_the_first_of_a_span_go():
    shared = f"{ONE} {TWO} {THREE}"
    assert left(shared, f"{FOUR} {shared} {FIVE}", shared) == [shared, f"{FOUR} {FIVE}", None]


def test_two_sentences_in_common_are_no_span():
    pages = f"{ONE} {TWO} {THREE}", f"{ONE} {TWO} {FOUR}"
    assert left(*pages) == list(pages)


def test_spans_overlap_and_run_over_lines_in_any_case():
    long = f"{ONE}\n{TWO} {THREE}\n{FOUR}"
    assert left(long, f"{FIVE}\n{long.upper()}") == [long, FIVE]


def test_a_span_that_comes_again_on_the_same_page_goes():
    span = f"{ONE} {TWO} {THREE}"
    assert left(f"{span}\n{FOUR}\n{span}") == [f"{span}\n{FOUR}"]


def test_short_documents_have_no_span():
    assert left(f"{ONE} {TWO}", f"{ONE} {TWO}") == [f"{ONE} {TWO}"] * 2


def test_what_is_left_of_nothing_is_rejected():
    page = Document(f"{ONE} {TWO} {THREE}")
    assert compare(DuplicateSpans(), [page, page]) == [page, Rejection("duplicate_spans", "empty")]


def test_other_lengths():
    assert texts(DuplicateSpans(sentences=1), [Document(f"{ONE} {TWO}"), Document(f"{TWO} {THREE}")]) == [
        f"{ONE} {TWO}",
        THREE,
    ]
