"""Pages for comparisons: one for every branch of the rules, and a strategy that mixes what the rules look at."""

from __future__ import annotations

import itertools
import json
import lzma
import os
import random
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import strategies as st

from t5x_like.data.documents import Document

GOOD = (
    "The quick brown fox jumps over the lazy dog.",
    "She asked whether anybody had seen it before?",
    'He said that it was "quite good enough for now."',
    "What a beautiful morning it has been!",
    "Dr. Smith of the U.S. Navy went home at 5 p.m. on Monday. He was tired.",
)
LINES = (
    *GOOD,
    "Home | About | Contact",
    "",
    "   ",
    "Too short.",
    "Five words exactly in here.",
    "Only four words here.",
    "This line trails off into nothing at all...",
    "A typographic ending is no end mark, they say.”",
    "Please turn on JavaScript to see this page in full.",
    "This site uses cookies, as all the others do too.",
    "Read our Terms of Use before you go any further.",
    "See the Privacy Policy, or the COOKIE POLICY, for more.",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
    "Lorem ipsum without any mark at the end",
    "function f() { return one two three four; }",
    "In this sentence there is a { that kills the page.",
    "The tower was built in 1884 and burnt in 1901.[1]",
    "The tower was built in 1884 and burnt in 1901. [2]",
    "Java[1]script is written with a mark in the middle of it.",
    "Lorem[citation needed] ipsum dolor sit amet in the middle here.",
    "History[edit] of the tower and of those who built it.[12][13]",
    "[1] [2] [3] [4] words.",
    "A wo" + "o" * 1000 + "rd that is far too long for this.",
    "A wo" + "o" * 996 + "rd that is not too long for this.",
    "One. Two. Three. Four. Five are many sentences in a line.",
    "Javascript and Lorem ipsum and { in one line of a page.",
    "Uses cookies and a { in one line of the very same page.",
    "İstanbul javascrİpt ſhould ſurvive the lower casing of TERMS OF UſE.",
    "mixed\tspaces \xa0and\u3000ideographic ones are still five words.",
)
PIECES = (
    *(
        "the",
        "Fox",
        "jumps",
        "over",
        "lazy",
        "dog",
        "a",
        "U.S",
        "Mr",
        "1984",
        "J",
        "etc",
        "ÉTÉ",
        "日本語",
        "{",
        "}",
    ),
    *(
        "lorem",
        "ipsum",
        "Lorem ipsum",
        "javascript",
        "JavaScript",
        "cookies",
        "uses cookies",
        "Terms of Use",
        "[1]",
    ),
    *(
        "[edit]",
        "[citation needed]",
        "[]",
        "[١]",
        "use",
        "cookie policy",
        "o" * 1001,
        "o" * 1000,
        "java",
        "script",
    ),
)
ENDS = (
    ".",
    "!",
    "?",
    '"',
    "...",
    "”",
    "…",
    ":",
    "",
    ".)",
    ". ",
    '."',
    "!!!",
    " .",
    "[3]",
    ".[4]",
    ". [5]",
    "'",
)
BREAKS = ("\n", "\n\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", " \n ", "\t\n")

_line = st.builds(
    lambda words, end: " ".join(words) + end,
    st.lists(st.sampled_from(PIECES), max_size=9),
    st.sampled_from(ENDS),
)
_any_line = st.sampled_from(LINES) | _line | st.text(max_size=40)
pages = st.lists(st.tuples(_any_line, st.sampled_from(BREAKS)), max_size=9).map(
    lambda lines: "".join(itertools.chain.from_iterable(lines))
)


def synthetic(count: int = 400) -> list[str]:
    """Every line alone, among good ones before and behind, and mixtures of lines; the same on every machine."""
    draw = random.Random(0)
    alone = [
        "\n".join((*before, line, *after))
        for line in LINES
        for before, after in (((), ()), (GOOD, ()), ((), GOOD))
    ]
    mixed = ["\n".join(draw.choices(LINES, k=draw.randrange(1, 8))) for _ in range(count)]
    broken = [
        "".join(line + draw.choice(BREAKS) for line in draw.choices(LINES, k=5)) for _ in range(count // 4)
    ]
    return [*alone, *mixed, *broken]


def prose(count: int) -> list[str]:
    """Documents of the embedded corpus, cut short."""
    packed = (
        resources.files("t5x_like") / "data" / "corpora" / "public_domain_english.jsonl.xz"
    ).read_bytes()
    lines = lzma.decompress(packed).decode().splitlines()
    return [json.loads(line)["text"][:20_000] for line in lines[:: len(lines) // count]]


class _Visible(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")
        if tag in ("p", "div", "li", "br", "h1", "h2", "h3", "h4", "tr", "blockquote", "pre", "td"):
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style") and self.hidden > 0

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def real() -> list[Document]:
    """Real pages, all their visible text, where the environment variable `WEB_PAGES` names a file of them: JSON
    lines with `url` and `html`."""
    if not (name := os.environ.get("WEB_PAGES")):
        pytest.skip("WEB_PAGES names no file of real pages")
    found = []
    for line in Path(name).read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        parser = _Visible()
        parser.feed(row["html"])
        found.append(Document("".join(parser.parts), row["url"]))
    return found
