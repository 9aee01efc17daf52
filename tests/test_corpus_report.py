"""The report of a corpus and its samples: complete, the same every time, and safe whatever pages say."""

from __future__ import annotations

import io
import json
import random
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from t5x_like import corpus_report, corpus_samples, inspect, report
from t5x_like.data.cleaning.c4 import C4Clean
from t5x_like.data.corpus.making import Arguments, make
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.corpus.tally import SHOWN
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.pages import VisibleText
from t5x_like.errors import UserError
from tests.data.pages.web import packed, record, response

pytest.importorskip("resiliparse")

HOSTILE = "<script>alert(1)</script>"
URL = "http://example.com/<img src=x onerror=alert(2)>"


def body(number: int, extra: str = "") -> bytes:
    draw = random.Random(number)  # digits and places would not make pages differ: they count as alike
    lines = [" ".join("".join(draw.choices("aeioklmnst", k=5)) for _ in range(9)) + "." for _ in range(9)]
    return ("<html>" + "".join(f"<p>{line}</p>" for line in lines) + extra).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of pages that are kept, changed, rejected, alike, and of input that is damaged."""
    home = tmp_path_factory.mktemp("corpus")
    escaped = "<p>&lt;script&gt;alert(1)&lt;/script&gt; &#27;[2J is part of this \u202e sentence \u2028with \u0085.</p>"
    alike = body(99)
    records = [
        record("request", b"GET / HTTP/1.1\r\n\r\n"),
        *(response(f"http://example.com/{n}", body(n, "<p>Menu</p>")) for n in range(6)),
        response(URL, body(7, escaped)),
        response("http://example.com/few", b"<html><p>&lt;b&gt;Too little.</p>"),
        response("http://example.com/none", b"<html><img src=x>"),
        response("http://example.com/a", alike),
        response("http://example.com/b", alike + b"<p>Another short line is here.</p>"),
    ]
    data = packed(records, ".gz")
    (home / "x.warc.gz").write_bytes(data + packed([response("http://example.com/c", alike)], ".gz")[:-40])
    recipe = Corpus(name="tiny", extractor=VisibleText(), steps=(C4Clean(), NearDuplicates()))
    output = home / "out"
    make(
        Arguments(input=(str(home / "x.warc.gz"),), output=str(output), recipe=recipe, workers=1), quiet=True
    )
    return output


@pytest.fixture(scope="module")
def page(folder):
    corpus_report.write(folder, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def test_the_page_has_all_parts(page, folder):
    text = Tags(page).text
    for part in (
        "The funnel",
        "Lengths",
        "Languages",
        "Near-duplicates",
        "could not be read",
        "Speed",
        "Samples",
    ):
        assert part in text
    assert "8 of 11 read" in text
    assert "too few sentences" in text and "no text" in text and "near duplicate" in text
    assert "2 documents in 1 cluster; one of each is kept" in text
    assert "truncated" in text and "1 × request record" in text
    assert "Menu" in text  # a line that a rule took out


def test_the_page_stands_alone_and_runs_nothing(page):
    found = Tags(page)
    assert not found.tags & {"script", "img", "iframe", "link", "a", "object", "b"}
    assert not {name for name in found.attributes if name.startswith("on")} | found.attributes & {
        "src",
        "href",
    }
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)" in page  # as text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_figures_are_those_of_the_corpus(folder, page):
    found = json.loads((folder / "report.json").read_text())
    corpus = json.loads((folder / "corpus.json").read_text())
    assert found["corpus"] == corpus
    assert found["documents"] == sum(split["documents"] for split in corpus["splits"].values())
    extract = found["speed"][0]
    seconds = found["seconds"]["steps"]["extract"]
    assert extract["documents_per_second"] == pytest.approx(corpus["funnel"][0]["in"]["documents"] / seconds)


def test_what_is_said_of_near_duplicates_is_what_was_done(folder, page):
    found = json.loads((folder / "report.json").read_text())
    step = found["corpus"]["funnel"][-1]
    assert step["step"] == "02 near_duplicates" and step["rejected"]
    step["rejected"] = {}
    assert "2 documents in 1 cluster; all are kept, and marked" in corpus_report.page(found, (), ())
    del found["corpus"]["funnel"][-1]
    found["corpus"]["clusters"] = {"clusters": 0, "documents": 0, "sizes": {}}
    assert "Not looked for" in corpus_report.page(found, (), ())


def test_the_same_samples_every_time(folder, capsys):
    inspect.FLAGS(
        ["inspect", f"--corpus={folder}", "--rows=2", "--json", f"--html={folder / 'samples.html'}"]
    )
    assert inspect.main([]) == 0
    first = capsys.readouterr().out
    assert inspect.main([]) == 0
    assert capsys.readouterr().out == first
    groups = json.loads(first)
    assert [group["kind"] for group in groups] == ["kept", "changed", *["rejected"] * 3, "cluster"]
    assert all(len(group["samples"]) <= 2 for group in groups)
    changed = next(group for group in groups if group["kind"] == "changed")
    assert (
        any(["removed", "Menu"] in sample["lines"] for sample in changed["samples"])
        or "c4" in changed["title"]
    )
    page = (folder / "samples.html").read_text()
    assert "<p class=removed>" in page and "<script>" not in page
    inspect.FLAGS.unparse_flags()


def test_a_terminal_gets_no_controls(folder):
    records = corpus_samples.read(folder)
    records[0]["text"] = "a\x1b[31mb\x07\r\u202ec\ud800"
    out = io.StringIO()
    corpus_samples.to_terminal(corpus_samples.groups(records, 20), "x\x1b]0;y", Console(file=out, width=80))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", out.getvalue())
    assert "- Menu" in out.getvalue()


def test_lines_that_a_rule_took_out():
    found = list(corpus_samples.removed("one\nmenu\ntwo [1] end\nthree", "one\ntwo  end\nthree"))
    assert found == [
        ("kept", "one"),
        ("removed", "menu"),
        ("removed", "two [1] end"),
        ("new", "two  end"),
        ("kept", "three"),
    ]


def test_what_a_cut_took_is_not_told_as_removed():
    lines = [f"line {number} is this one and no other" for number in range(400)]
    before, after = "\n".join(lines), "\n".join(line for line in lines if "7" not in line)
    found = list(corpus_samples.removed(before[:SHOWN], after[:SHOWN]))
    assert {line for fate, line in found if fate == "new"} == set()
    assert all("7" in line for fate, line in found if fate == "removed")
    assert len(found) > 90


def test_refusals(tmp_path, folder):
    with pytest.raises(UserError, match=r"corpus\.json") as error:
        corpus_report.write(tmp_path, tmp_path / "report.html")
    assert "t5x_like.corpus made" in error.value.help and "--overwrite" not in error.value.help
    with pytest.raises(UserError, match=r"samples\.jsonl"):
        corpus_samples.read(tmp_path)
    for samples in ("5\n", "{}\n", '{"kind": "x"}\n', '{"kind": "kept"}\n'):
        (tmp_path / "samples.jsonl").write_text(samples)
        with pytest.raises(UserError, match=r"samples\.jsonl"):
            corpus_samples.read(tmp_path)
    for name in ("corpus.json", "throughput.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name, content in (("corpus.json", '{"format": "t5x_like corpus"}'), ("throughput.json", "{}")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match="cannot be read"):
            corpus_report.write(tmp_path, tmp_path / "report.html")
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="cannot write"):
        corpus_report.write(folder, tmp_path / "no" / "report.html")
    report.FLAGS(["report", "--workdir=a", "--corpus=b"])
    with pytest.raises(UserError, match="exclude each other"):
        report.main([])
    report.FLAGS.unparse_flags()
