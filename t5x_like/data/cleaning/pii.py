"""Takes what points at persons out of a text: mail addresses and public IP addresses."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import itertools
import re
import string
from collections.abc import Iterator
from typing import ClassVar

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_LOCAL = frozenset(
    string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~.-"
)  # what may stand before an @
_HOST = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}|\[(?:{_OCTET}\.){{3}}(?:{_OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)\]")
_EDGE = re.compile(r"\b")
_IP = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskPII:
    """Replaces mail addresses and public IPv4 addresses; rejects nothing.

    Attributes:
      emails: what mail addresses are replaced by, one after another, from the first in each document; empty to leave
        them.
      ips: the same for IP addresses. Those of private networks and reserved ones stay.

    Source: datatrove/pipeline/formatters/pii.py, whose replacements (and patterns) these are. There the turn goes on
    from document to document; here it does not, so that a document's text does not hang on those before it.
    """

    name: ClassVar[str] = "mask_pii"

    emails: tuple[str, ...] = ("email@example.com", "firstname.lastname@example.org")
    ips: tuple[str, ...] = (
        "22.214.171.124",
        "126.96.36.199",
        "188.8.131.52",
        "184.108.40.206",
        "220.127.116.11",
        "18.104.22.168",
    )

    def __post_init__(self) -> None:
        if any("\n" in mask for mask in (*self.emails, *self.ips)):
            raise UserError("a replacement holds a line break", where="emails, ips")

    def __call__(self, document: Document) -> Document | Rejection:
        text = document.text
        if self.emails and "@" in text:
            text = _replaced(text, _emails(text), self.emails)
        if self.ips and text.count(".") >= 3:
            spans = (match.span() for match in _IP.finditer(text) if _is_public(match[0]))
            text = _replaced(text, spans, self.ips)
        return document if text == document.text else dataclasses.replace(document, text=text)


def _replaced(text: str, spans: Iterator[tuple[int, int]], masks: tuple[str, ...]) -> str:
    parts, place = [], 0
    for (begin, end), mask in zip(spans, itertools.cycle(masks)):
        parts += (text[place:begin], mask)
        place = end
    return "".join((*parts, text[place:]))


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Where mail addresses stand. Looked for from each `@` to both sides, so that no text takes long: a pattern that
    begins with the local part goes through a long word again from each of its letters."""
    before, at = 0, text.find("@")
    while at >= 0:
        host = _HOST.match(text, at + 1)
        if host is not None and (begin := _local(text, before, at)) >= 0:
            yield begin, host.end()
            before = host.end()
            at = text.find("@", before)
        else:
            at = text.find("@", at + 1)


def _local(text: str, least: int, at: int) -> int:
    """Where the local part before an `@` begins, not before `least`; -1 if there is none."""
    begin = at
    while begin > least and text[begin - 1] in _LOCAL:
        begin -= 1
    if begin == at or text[at - 1] == ".":
        return -1
    if (dots := text.rfind("..", begin, at)) >= 0:  # dots stand alone, and not first
        begin = dots + 2
    edges = (edge.start() for edge in _EDGE.finditer(text, begin, at))
    return next((edge for edge in edges if edge < at and text[edge] != "."), -1)


@functools.lru_cache(1 << 12)
def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # leading zeros
        return False
