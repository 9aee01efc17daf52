"""From markup to text: `RawPage -> Document | Rejection`, by libraries that are kept for it.

An extractor is a step of a recipe like a rule: a frozen dataclass that is called, never raises because of a page, and
gives the same on every machine. So its limits are sizes and numbers of elements, never seconds: parsers of HTML take
quadratic time and memory for markup that nests without end.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable
from typing import ClassVar, Literal

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document
from t5x_like.data.pages.base import RawPage
from t5x_like.errors import UserError

NAME = "extraction"
MAX_DEPTH = 512
"""Elements inside each other; browsers stop here too (Chromium: kMaximumHTMLParserDOMTreeDepth)."""
MAX_SEEMING_DEPTH = 4096
"""The same with what scripts hold, which looks like elements; a page could hide depth behind the word script."""
MAX_TAG_WORDS = 10_000
"""Attributes of one tag."""
_FEW_TAGS = 2048
_LONG_TAG = 1 << 15
# Elements that hold nothing, or that the next of their kind ends: they do not nest by being left open.
_FLAT = (
    "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
    "|p|li|dt|dd|option|tr|td|th|thead|tbody|tfoot"
)
_NESTING = re.compile(rf"<(/?)(?!(?:{_FLAT})\b)[a-zA-Z]")

_SCRIPT = re.compile(r"<script\b.*?</script\b", re.DOTALL | re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisibleText:
    """All that a reader sees: menus, footers and all. What Common Crawl's WET files, and so C4, begin with.

    Library: resiliparse (Bevendorff et al., ECIR 2018).

    Attributes:
      max_elements: pages with more tags are left out.
    """

    name: ClassVar[str] = NAME
    max_elements: int = 1_000_000

    def __call__(self, page: RawPage, /) -> Document | Rejection:
        return _extracted(page, self.max_elements, _resiliparse(False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resiliparse:
    """Main text by the rules of resiliparse, without menus, footers, comments and side bars: fast.

    Attributes:
      max_elements: pages with more tags are left out.
    """

    name: ClassVar[str] = NAME
    max_elements: int = 1_000_000

    def __call__(self, page: RawPage, /) -> Document | Rejection:
        return _extracted(page, self.max_elements, _resiliparse(True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trafilatura:
    """Main text by trafilatura (Barbaresi, ACL 2021), which RefinedWeb and FineWeb use: precise, and slow.

    Attributes:
      favor: what it leans to where it is in doubt, `precision` as FineWeb has it.
      max_elements: pages with more tags are left out; its time grows with their square.
    """

    name: ClassVar[str] = NAME
    favor: Literal["precision", "recall", "neither"] = "precision"
    max_elements: int = 20_000

    def __call__(self, page: RawPage, /) -> Document | Rejection:
        return _extracted(page, self.max_elements, _trafilatura(self.favor))


Extractor = Resiliparse | Trafilatura | VisibleText


def _extracted(page: RawPage, max_elements: int, text_of: Callable[[str], str]) -> Document | Rejection:
    reason, detail = _too_much(page.html, max_elements)
    if reason:
        return Rejection(NAME, reason, detail)
    try:
        text = text_of(page.html).strip()
    except UserError:
        raise
    except Exception as error:  # whatever a parser makes of a page, the next page is read
        return Rejection(NAME, "failed", f"{type(error).__name__}: {error}"[:200])
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        return Rejection(NAME, "no_text")
    return Document(text, page.url, page.timestamp, page.source, page.position)


def _too_much(html: str, max_elements: int) -> tuple[str, str]:
    """Why parsing this page could take too long: a reason and what was seen; empty where nothing speaks against it."""
    tags = html.count("<")
    if tags > max_elements:
        return "too_many_elements", f"{tags}, limit {max_elements}"
    if tags > _FEW_TAGS and (depth := _depth(html)) > MAX_DEPTH:
        if depth <= MAX_SEEMING_DEPTH:
            depth = _depth(_SCRIPT.sub("", html))
        if depth > MAX_DEPTH:
            return "nested_too_deeply", f"{depth}, limit {MAX_DEPTH}"
    if len(html) > _LONG_TAG:
        for piece in html.split(">"):
            if len(piece) > _LONG_TAG and (words := len(piece[piece.rfind("<") :].split())) > MAX_TAG_WORDS:
                return "too_many_attributes", f"{words}, limit {MAX_TAG_WORDS}"
    return "", ""


def _depth(html: str) -> int:
    """How many elements are open at once, at most; rather too many than too few."""
    steps = (-1 if slash else 1 for slash in _NESTING.findall(html))
    depths = list(itertools.accumulate(steps, initial=0))
    # An end without a beginning is passed over by parsers.
    return max(map(int.__sub__, depths, itertools.accumulate(depths, min)))


def _resiliparse(main_content: bool) -> Callable[[str], str]:
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        raise _missing("resiliparse") from None
    return functools.partial(
        extract_plain_text, main_content=main_content, alt_texts=False, list_bullets=False
    )


def _trafilatura(favor: str) -> Callable[[str], str]:
    try:
        from trafilatura import extract
    except ImportError:
        raise _missing("trafilatura") from None
    precision, recall = favor == "precision", favor == "recall"

    def text_of(html: str) -> str:
        return extract(html, include_comments=False, favor_precision=precision, favor_recall=recall) or ""

    return text_of


def _missing(package: str) -> UserError:
    return UserError(
        f"extracting the text of pages needs the package {package}", help="pip install '.[corpus]'"
    )
