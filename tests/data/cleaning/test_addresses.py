"""Pages are chosen by their address as the reference chooses them."""

from __future__ import annotations

import json

import pytest
import tfds_c4
from hypothesis import given
from hypothesis import strategies as st

from t5x_like.data import urls
from t5x_like.data.cleaning.addresses import BlockedURLs, ListedURLs, RealNewsDomains, _extractor
from t5x_like.data.documents import Document
from t5x_like.errors import Exit, UserError

URLS = (
    "http://www.bbc.co.uk/news/world-1",
    "https://news.bbc.co.uk/1/hi",
    "https://blogs.bbc.co.uk/",
    "https://example.com/?utm_source=x",
    "https://a.b.example.com/page?ref=1&x=2",
    "http://sub.example.com/feed?feed=rss",
    "https://example.co.jp/",
    "http://192.168.0.1/x",
    "localhost/page",
    "",
    "https://www.com/",
    "ftp://example.com/a",
)
DOMAINS = {"bbc.co.uk": ["news", ""], "example.com": True, "example.co.jp": ["www"]}


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> str:
    name = tmp_path_factory.mktemp("domains") / "domains.json"
    name.write_text(json.dumps(DOMAINS))
    return str(name)


@pytest.mark.parametrize("url", URLS)
def test_news_domains(url, domains, monkeypatch):
    tldextract = pytest.importorskip("tldextract")
    monkeypatch.setattr(tldextract, "extract", _extractor())  # the reference would download the suffix list
    document = Document("text", url)
    with tfds_c4.reference() as counted:
        kept = tfds_c4.c4_utils.is_realnews_domain(tfds_c4.page(document), DOMAINS)
    found = RealNewsDomains(domains=domains)(document)
    assert tfds_c4.outcome(found) == (("", "text") if kept else (tfds_c4.REASONS[counted[-1]], ""))


@pytest.mark.parametrize("url", URLS)
def test_listed_addresses(url, tmp_path):
    listed = ["http://bbc.co.uk/news/world-1/", "example.com", "", "https://a.b.example.com/page"]
    (tmp_path / "1.txt").write_text("\n".join(listed[:2]))
    (tmp_path / "2.txt").write_text("\n".join(listed[2:]))
    document = Document("text", url)
    with tfds_c4.reference():
        page = tfds_c4.page(document)
        known = {tfds_c4.c4_utils.normalize_url(line) for line in listed if line}
        joined = {"pages": [page], "webtextlike_urls": [1] * (page.normalized_url in known)}
        kept = bool(list(tfds_c4.c4_utils.filter_by_webtextlike((url, joined))))
    assert (ListedURLs(addresses=str(tmp_path))(document) == document) == kept
    assert (ListedURLs(addresses=str(tmp_path / "*.txt"))(document) == document) == kept


def test_a_list_that_is_not_there_is_told(tmp_path):
    pytest.importorskip("tldextract")
    for rule, field in (
        (ListedURLs(addresses=str(tmp_path / "no*.txt")), "addresses"),
        (RealNewsDomains(domains=str(tmp_path / "no.json")), "domains"),
    ):
        with pytest.raises(UserError, match="no such file") as error:
            rule(Document("text", "a"))
        assert error.value.code == Exit.BAD_DATA and f"--set=steps.N.{field}=" in error.value.help


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://good.org/about", ""),
        ("https://www.bad.org/about", "domain"),
        ("https://ads.fine.org/x", "subdomain"),
        ("https://fine.org/x", ""),
        ("https://fine.org/casino-tips", "word"),
        ("https://fine.org/casinos", ""),
        ("https://fine.org/hot/cams", "soft_words"),
        ("https://fine.org/hot", ""),
        ("https://fine.org/xX-xvideo", "part"),
    ],
)
def test_blocked_addresses(url, reason, tmp_path):
    for name, lines in {
        "domains": "# a comment\nbad.org\nads.fine.org",
        "words": "casino",
        "soft_words": "hot\ncams",
        "parts": "xxxvideo",
    }.items():
        (tmp_path / name).write_text(lines)
    rule = BlockedURLs(**{name: str(tmp_path / name) for name in ("domains", "words", "soft_words", "parts")})
    assert tfds_c4.outcome(rule(Document("text", url)))[0] == reason


_parts = st.sampled_from(
    ["http://", "https://", "www.", "?utm_a=b", "?ref", "?feed=1", "/", "a.b", "x", "\n", "é", "?"]
)


@given(st.lists(_parts).map("".join) | st.text())
def test_addresses_are_normalised_and_split_as_the_reference_does(url):
    with tfds_c4.reference():
        page = tfds_c4.page(Document("", url))
        held_out = tfds_c4.c4_utils.get_hashed_url_filter_fn(lambda number: number % 1000 == 0)(page)
    assert urls.normalized(url) == page.normalized_url
    assert (urls.hashed(url) % 1000 == 0) == held_out
