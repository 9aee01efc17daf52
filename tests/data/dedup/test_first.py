"""Which of several documents keeps what they share, against the code that made C4."""

from __future__ import annotations

import hashlib
import random

import pytest
from in_memory import compare, texts

from t5x_like.data import urls
from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts, DuplicateURLs
from t5x_like.data.documents import Document


def page(text: str, url: str = "", timestamp: str = "") -> Document:
    return Document(text, url=url, timestamp=timestamp)


def test_the_newest_page_of_an_address_stays():
    old = page("old", "http://www.a.org/x?utm_source=b", "2019-04-01T00:00:00Z")
    new = page("new", "https://a.org/x/", "2019-04-02T00:00:00Z")
    other = page("other", "https://a.org/y", "2018-01-01T00:00:00Z")
    undated = page("undated", "a.org/x")
    assert texts(DuplicateURLs(), [old, new, other, undated]) == [None, "new", "other", None]
    assert texts(DuplicateURLs(), [undated, new, old]) == [None, "new", None]
    rejected = compare(DuplicateURLs(), [old, new])[0]
    assert rejected == Rejection("duplicate_urls", "older_page", old.url)


def test_equally_new_pages_the_first_stays_and_pages_without_address_are_left_alone():
    same = [page(str(i), "http://a.org", "2019-04-01T00:00:00Z") for i in range(3)]
    assert texts(DuplicateURLs(), same) == ["0", None, None]
    assert texts(DuplicateURLs(), [page("a"), page("b"), page("c")]) == ["a", "b", "c"]


@pytest.mark.parametrize("short, long", [("2019", "2019-04"), ("", "2019"), ("2019-04", "2020")])
def test_timestamps_compare_as_text(short, long):
    pages = [page("old", "a.org", short), page("new", "a.org", long)]
    assert texts(DuplicateURLs(), pages) == [None, "new"]
    assert texts(DuplicateURLs(), pages[::-1]) == ["new", None]


def test_equal_texts_the_first_stays():
    assert texts(DuplicateTexts(), [page("a b"), page("c"), page(" a b\n"), page("a  b")]) == [
        "a b",
        "c",
        None,
        "a  b",
    ]


def test_lines_stay_on_the_page_with_the_smallest_hash():
    addresses = sorted((f"http://a.org/{i}" for i in range(5)), key=_md5)
    shared = "A line that all of them have."
    pages = [page(f"{shared}\nOnly on page {url}.", url) for url in reversed(addresses)]
    left = texts(DuplicateLines(), pages)
    assert left[-1] == pages[-1].text, "the last one has the smallest hash"
    assert left[:-1] == [f"Only on page {p.url}." for p in pages[:-1]]


def test_lines_compare_stripped_and_in_lower_case_and_repeats_go():
    assert texts(DuplicateLines(), [page("One.\n two.\nONE. \nTwo.\nthree.", "a")]) == ["One.\n two.\nthree."]


def test_a_page_without_lines_left_is_rejected():
    first, second = sorted((page("Same line.", f"u{i}") for i in range(2)), key=lambda p: _md5(p.url))
    assert compare(DuplicateLines(), [second, first]) == [Rejection("duplicate_lines", "empty"), first]


def _md5(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def reference(pages: list[Document]) -> dict[str, str | None]:
    """TFDS's own functions, grouped by dictionaries in place of Beam."""
    c4_utils = pytest.importorskip("tensorflow_datasets.text.c4_utils")
    group: dict[str, list[str]] = {}
    features = [c4_utils.PageFeatures(url=p.url, text=p.text, timestamp=p.timestamp) for p in pages]
    for feature in features:
        for line in feature.text.split("\n"):
            group.setdefault(_md5(line.strip().lower()), []).append(feature.url)
    selected = {line: min(found, key=_md5) for line, found in group.items()}
    result: dict[str, str | None] = {}
    for feature in features:
        keep = [line for line, url in selected.items() if url == feature.url]
        element = (feature.url, {"pages": [feature], "lines": keep})
        left = list(c4_utils._remove_lines_from_text(element, lambda *args: None, 0))
        result[feature.url] = left[0].text if left else None
    return result


def test_lines_as_tensorflow_datasets_removes_them(monkeypatch):
    c4_utils = pytest.importorskip("tensorflow_datasets.text.c4_utils")
    # TFDS hashes through TensorFlow's `as_text`, which leaves text as it is.
    monkeypatch.setattr(c4_utils, "_hash_text", _md5)
    drawn = random.Random(1)
    lines = [f"Line {i}." for i in range(30)] + ["", " ", "LINE 3.", " Line 4. "]
    pages = [
        page("\n".join(drawn.choices(lines, k=drawn.randint(1, 8))), f"http://a.org/{i}") for i in range(200)
    ]
    ours = texts(DuplicateLines(), pages)
    assert dict(zip([p.url for p in pages], ours, strict=True)) == reference(pages)
    assert None in ours and any(text == p.text for text, p in zip(ours, pages, strict=True))


ADDRESSES = [
    ("http://www.example.org/a/", "example.org/a"),
    ("https://example.org/a?utm_source=x&y=1", "example.org/a"),
    ("https://example.org/a?ref=1", "example.org/a"),
    ("https://example.org/?feed=rss2", "example.org"),
    ("https://example.org/a?b=1", "example.org/a?b=1"),
    ("https://example.org/go?u=https://www.other.org/", "example.org/go?u=other.org"),
    ("ftp://www.example.org//", "ftp://www.example.org"),
]


@pytest.mark.parametrize("url, expected", ADDRESSES)
def test_addresses_are_normalised_as_c4_does(url, expected):
    assert urls.normalized(url) == expected


def test_the_split_of_an_address_is_c4s():
    # By md5sum of the normalised addresses.
    assert f"{urls.hashed('https://www.example.org/a/'):032x}" == "c1f62ee44f25bb638a8cf4280d360872"
    held_out = [i for i in range(500) if urls.hashed(f"http://example.org/{i}") % 1000 == 0]
    assert held_out == [6, 430]
