from __future__ import annotations

import time

import pytest

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document
from t5x_like.data.pages import RawPage, Resiliparse, Trafilatura, VisibleText
from t5x_like.data.pages.extraction import MAX_DEPTH, _depth

pytest.importorskip("resiliparse")
pytest.importorskip("trafilatura")

EXTRACTORS = (VisibleText(), Resiliparse(), Trafilatura())
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all."
ARTICLE = f"""<!doctype html><html><head><title>Foxes</title><script>var x = "script text";</script>
<style>p {{ color: red }}</style></head><body>
<nav><ul><li><a href=/>Home</a></li><li><a href=/about>About us</a></li></ul></nav>
<article><h1>On foxes and dogs</h1>{"".join(f"<p>{SENTENCE} Paragraph {n}.</p>" for n in range(8))}</article>
<footer>Copyright of nobody</footer></body></html>"""


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda each: type(each).__name__)
def test_main_text_line_by_line(extractor):
    page = RawPage(ARTICLE, "http://e.com/", "2019-04-18T12:00:00Z", "x.warc.gz", 7)
    document = extractor(page)
    assert isinstance(document, Document)
    assert (document.url, document.timestamp, document.source, document.position) == (
        "http://e.com/", "2019-04-18T12:00:00Z", "x.warc.gz", 7,
    )  # fmt: skip
    lines = document.text.split("\n")
    assert [f"{SENTENCE} Paragraph {n}." in lines for n in range(8)] == [True] * 8
    assert "script text" not in document.text and "color" not in document.text
    everything = isinstance(extractor, VisibleText)
    assert ("About us" in document.text) is everything
    assert ("Copyright" in document.text) is everything
    assert extractor(page) == document


HOSTILE = {
    "nothing": ("", "no_text"),
    "no text": ("<html><body><img src=x><script>1</script></body></html>", "no_text"),
    "frames": ("<frameset><frame src=x></frameset>", "no_text"),
    "deep": ("<div>" * 200_000 + "x" + "</div>" * 200_000, "nested_too_deeply"),
    "deep, mixed": ("<b><i><span></span>" * 100_000, "nested_too_deeply"),
    "formatting": ("".join(f"<b id={n}><p>" for n in range(20_000)), "nested_too_deeply"),
    "one tag": (f"<div {' '.join(f'a{n}=1' for n in range(100_000))}>x</div>", "too_many_attributes"),
    "tags": ("<p>a" * 1_100_000, "too_many_elements"),
}


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pages_are_rejected_at_once(extractor, case):
    html, reason = HOSTILE[case]
    begin = time.process_time()
    found = extractor(RawPage(html))
    assert time.process_time() - begin < 5
    assert isinstance(found, Rejection) and found.rule == "extraction"
    assert found.reason == reason or found.reason == "too_many_elements"


@pytest.mark.parametrize(
    "html",
    [
        "<" * 100_000 + "hello",
        "<!--" * 100_000,
        "&amp;" * 300_000,
        "<p>" + "word " * 400_000,
        "<ul><li>" * 250 + "x",
        "</div>" * 5000 + ARTICLE,
        ARTICLE.replace("<p>", "<p \x01\x7f>\x02\x1b[31m"),
        ARTICLE[: len(ARTICLE) // 2],
        "<img src='data:image/png;base64," + "A" * 3_000_000 + "'>" + ARTICLE,
        "\ud800",
        "<?xml version='1.0' encoding='x'?>" + ARTICLE,
        "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><p>&a; &lol;",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda each: type(each).__name__)
def test_odd_pages_are_read_or_rejected(extractor, html):
    begin = time.process_time()
    found = extractor(RawPage(html))
    assert time.process_time() - begin < 10
    assert isinstance(found, (Document, Rejection))
    if isinstance(found, Document):
        assert found.text == found.text.strip() != "" and "root:" not in found.text


def test_scripts_do_not_count_as_depth():
    script = "<script>for (i = 0; i<n; i++) document.write('<div>');</script>"
    html = ARTICLE.replace("<article>", script * 1000 + "<article>")
    assert isinstance(Resiliparse()(RawPage(html)), Document)
    hidden = "<textarea><script></textarea>" + "<div>" * 5000 + "</script>" + ARTICLE
    found = Resiliparse()(RawPage(hidden))
    assert isinstance(found, Rejection) and found.reason == "nested_too_deeply"


def test_depth():
    assert _depth("<div><p>a<p>b<br><img></div><li><li>") == 1
    assert _depth("<div><div></div><b>") == 2
    assert _depth("</div></div><div><b>") == 2
    assert _depth("no tag") == 0
    assert _depth("<div>" * MAX_DEPTH + "</div>" * MAX_DEPTH) == MAX_DEPTH
