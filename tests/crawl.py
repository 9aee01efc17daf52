"""A crawl of a thousand pages, made up so that every rule of C4 has something to do, and how often is known.

`python tests/crawl.py FOLDER` writes it. Pages come in kinds; what becomes of each kind follows from how
it is made, so the expected counts below are of the construction, and not of what some program said.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

NOUNS = (
    "river garden teacher window letter mountain kitchen story village engine market doctor winter bridge paper forest "
    "captain island library farmer evening country neighbour question castle harbour journey painter summer"
)
VERBS = "watched carried described followed remembered crossed repaired visited painted finished"
PLACES = (
    "behind the old church",
    "near the harbour",
    "in the early morning",
    "before the long winter",
    "after the meeting",
)


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: kind, address, date, text as WET has it."""

    kind: str
    url: str
    date: str
    text: str


KINDS = {
    "good": 560,
    "menu": 100,  # lines without end marks, cookies, javascript and few words beside good ones: all removed
    "citations": 20,
    "too_long": 10,
    "older": 50,  # of an address that a good page has, with an earlier date
    "lorem_ipsum": 40,
    "curly_bracket": 40,
    "braces_in_menu": 20,  # in a line without end mark: stays
    "few_sentences": 60,
    "all_copied": 30,  # every line is on another page as well
    "mostly_copied": 30,  # two lines are left
    "german": 20,
    "bad_word": 20,
}
REJECTED = {
    ("max_length", "too_long"): KINDS["too_long"],
    ("duplicate_urls", "older_page"): KINDS["older"],
    ("c4_clean", "lorem_ipsum"): KINDS["lorem_ipsum"],
    ("c4_clean", "curly_bracket"): KINDS["curly_bracket"],
    ("c4_clean", "too_few_sentences"): KINDS["few_sentences"],
    ("duplicate_lines", "empty"): KINDS["all_copied"],
    ("min_sentences", "too_few_sentences"): KINDS["mostly_copied"],
    ("language", "other_language"): KINDS["german"],
    ("bad_words", "bad_word"): KINDS["bad_word"],
}
"""(rule, reason) -> documents, by the recipe c4."""
KEPT = KINDS["good"] + KINDS["menu"] + KINDS["citations"] + KINDS["braces_in_menu"]
CHANGED = {
    "c4_clean": KINDS["menu"] + KINDS["citations"] + KINDS["braces_in_menu"],
    "duplicate_lines": KINDS["mostly_copied"],
}
"""Rule -> documents that it changes and keeps."""


def sentences(seed: int) -> Iterator[str]:
    """Sentences, each the only one of its kind."""
    drawn = random.Random(seed)
    for number in itertools.count():
        a, b, c = drawn.sample(NOUNS.split(), 3)
        text = f"The {a} of the {b} {drawn.choice(VERBS.split())} the {c} {drawn.choice(PLACES)}"
        yield f"{text} for {number} days and nobody asked why."


def pages() -> list[Page]:
    """The crawl, in order."""
    drawn = random.Random(0)
    made: list[Page] = []
    numbers = itertools.count()
    told = sentences(1)

    def sentence() -> str:
        return next(told)

    def lines(count: int) -> list[str]:
        return [" ".join(sentence() for _ in range(drawn.randint(1, 3))) for _ in range(count)]

    def text(kind: str, original: Page) -> str:
        good = lines(drawn.randint(3, 8))
        copied = original.text.split("\n")
        match kind:
            case "menu":
                bad = [
                    "Home | About | Contact",
                    "Short line here.",
                    "Please enable JavaScript to see all the comments on this page.",
                    "We use cookies to make this page better for all our visitors.",
                    "A line that trails off without saying what it means to say...",
                ]
                good = [bad[0], *good, *bad[1:]]
            case "citations":
                good[0] = good[0][:-1] + ".[1][citation needed]"
            case "too_long":
                good = lines(1300)
            case "lorem_ipsum":
                good[-1] = "Here is Lorem Ipsum in the middle of a line that counts."
            case "curly_bracket":
                good[-1] = "The function begins with { and ends with its brother."
            case "braces_in_menu":
                good.insert(1, "var menu = {}")
            case "few_sentences":
                good = [sentence(), sentence()]
            case "all_copied":
                good = copied
            case "mostly_copied":
                good = [*copied, sentence(), sentence()]
            case "german":
                good = [
                    f"Der Garten hinter dem Haus war im Sommer immer voller Blumen, und {next(numbers)} Kinder"
                    " spielten dort jeden Nachmittag."
                    for _ in range(4)
                ]
            case "bad_word":
                good[1] = f"Nobody had said bullshit aloud in that house for {next(numbers)} years."
        return "\n".join(good)

    good_pages: list[Page] = []
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    first, *others = kinds
    drawn.shuffle(others)
    for place, kind in enumerate([first, *others]):
        url, date = f"https://www.example.org/{place}/", f"2019-04-{drawn.randint(10, 28)}T12:00:00Z"
        original = good_pages[drawn.randrange(len(good_pages))] if good_pages else Page("", "", "", "")
        if kind == "older":
            # The same page for C4, which cuts schemes, www, tracking and slashes off.
            url = f"http://example.org/{original.url.rstrip('/').rpartition('/')[2]}?utm_source=x{place}"
            date = f"2019-03-{drawn.randint(10, 28)}T12:00:00Z"
        while "copied" in kind and _md5(url) < _md5(original.url):  # so that the original keeps the lines
            url += "again/"
        page = Page(kind, url, date, text(kind, original))
        if kind == "good":
            good_pages.append(page)
        made.append(page)
    return made


def _md5(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def record(page: Page) -> bytes:
    """A conversion record of WET."""
    body = page.text.encode()
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\n"
        f"WARC-Target-URI: {page.url}\r\nWARC-Date: {page.date}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(page: Page) -> bytes:
    """The page as a response record of WARC, in HTML."""
    paragraphs = "".join(f"<p>{line.replace('{', '&#123;')}</p>\n" for line in page.text.split("\n"))
    html = f"<html><head><title>Page</title></head><body><main>{paragraphs}</main></body></html>".encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Target-URI: {page.url}\r\nWARC-Date: {page.date}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def write(folder: Path, crawl: list[Page] | None = None, *, form=record, files: int = 3) -> list[Path]:
    """The crawl, or other pages, in a few files, a gzip member for each record."""
    folder.mkdir(parents=True, exist_ok=True)
    crawl = pages() if crawl is None else crawl
    step = -(-len(crawl) // files)
    suffix = "wet" if form is record else "warc"
    paths = []
    for index in range(files):
        path = folder / f"crawl-{index:05d}.{suffix}.gz"
        members = (gzip.compress(form(page), mtime=0) for page in crawl[index * step : (index + 1) * step])
        path.write_bytes(b"".join(members))
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written)
