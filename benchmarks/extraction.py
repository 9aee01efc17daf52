"""How well, and how fast, main text is found: libraries side by side on pages whose main text is known.

  python -m benchmarks.extraction                       prints the table of docs/corpus.md
  python -m benchmarks.extraction --pages=DIR --json=extraction.json

A page's score is precision, recall and F1 of the words found, as a multiset (a character of Chinese, Japanese, Korean
and Thai counts as a word); the table has means over the pages of a source. Pages of `readability` are the test cases of
one of the algorithms here, so its own score there says little. Speed is of one core (process time), parsing included.
Libraries that are not installed are skipped with a word: pip install readability-lxml justext.
"""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import web_pages
from t5x_like import cli
from t5x_like.data.documents import Document
from t5x_like.data.pages import RawPage, Resiliparse, Trafilatura, VisibleText

FLAGS = flags.FlagValues()
_CACHE = flags.DEFINE_string("cache", str(web_pages.CACHE), "where packages are kept", flag_values=FLAGS)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "the fastest counts", lower_bound=1, flag_values=FLAGS)
_JSON = flags.DEFINE_string("json", None, "file for all figures", flag_values=FLAGS)
_WORD = re.compile(r"[฀-๿぀-ヿ㐀-鿿가-힯]|[^\W_]+")


def words(text: str) -> Counter[str]:
    """The words of a text, in lower case, with how often they come."""
    return Counter(_WORD.findall(text.lower()))


def score(found: str, gold: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the words of `found`."""
    ours, theirs = words(found), words(gold)
    common = (ours & theirs).total()
    precision, recall = common / max(ours.total(), 1), common / max(theirs.total(), 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


def _ours(extractor: Any) -> Callable[[str], str]:
    def text(html: str) -> str:
        found = extractor(RawPage(html))
        return found.text if isinstance(found, Document) else ""

    return text


def _readability(html: str) -> str:
    from readability import Document as Readable

    return web_pages.text(Readable(html).summary().encode())


def _justext(html: str) -> str:
    import justext

    paragraphs = justext.justext(html, justext.get_stoplist("English"))
    return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


LIBRARIES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("visible text (resiliparse)", "resiliparse", _ours(VisibleText())),
    ("resiliparse, main content", "resiliparse", _ours(Resiliparse())),
    ("trafilatura, neither favoured", "trafilatura", _ours(Trafilatura(favor="neither"))),
    ("trafilatura, recall favoured", "trafilatura", _ours(Trafilatura(favor="recall"))),
    ("trafilatura, precision favoured", "trafilatura", _ours(Trafilatura())),
    ("readability-lxml", "readability", _readability),
    ("jusText, English", "justext", _justext),
)


def measure(text_of: Callable[[str], str], pages: Sequence[web_pages.Page], rounds: int) -> dict[str, Any]:
    """Scores by source, pages and megabytes a second of one core."""
    scores: dict[str, list[tuple[float, float, float]]] = {}
    seconds = []
    text_of(pages[0].html)  # what is loaded at the first page is not counted
    for number in range(rounds):
        begin = time.process_time()
        texts = [text_of(page.html) for page in pages]
        seconds.append(time.process_time() - begin)
        if number == 0:
            for page, found in zip(pages, texts, strict=True):
                scores.setdefault(page.source, []).append(score(found, page.gold))
    size = sum(len(page.html.encode()) for page in pages)
    every = [each for some in scores.values() for each in some]
    return {
        "scores": {
            source: [sum(column) / len(some) for column in zip(*some, strict=True)]
            for source, some in (*scores.items(), ("all", every))
        },
        "pages_per_second": len(pages) / min(seconds),
        "mb_per_second": size / min(seconds) / 1e6,
    }


def main(argv: list[str]) -> int:
    del argv
    pages = [page for page in web_pages.pages(Path(_CACHE.value)) if page.gold]
    found: dict[str, Any] = {}
    sources = [*dict.fromkeys(page.source for page in pages), "all"]
    counts = Counter(page.source for page in pages)
    counts["all"] = len(pages)
    heads = "".join(f"{f'{source} ({counts[source]})':^21}" for source in sources)
    print(f"{'':33}{heads}   one core")
    print(f"{'':33}{'   P      R      F1  ' * len(sources)}  pages/s   MB/s")
    for name, package, text_of in LIBRARIES:
        if importlib.util.find_spec(package) is None:
            print(f"{name:33}skipped: not installed")
            continue
        result = found[name] = measure(text_of, pages, _ROUNDS.value)
        cells = "".join("".join(f"{value:7.3f}" for value in result["scores"][source]) for source in sources)
        print(f"{name:33}{cells}{result['pages_per_second']:9.0f}{result['mb_per_second']:7.1f}", flush=True)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
