"""Rules that judge a page by its address: the domains of RealNews, the addresses of WebText, blocked ones."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import xxhash
from jaxtyping import UInt64

from t5x_like.data import urls
from t5x_like.data.cleaning import files
from t5x_like.data.cleaning.base import Rejection, at_least
from t5x_like.data.documents import Document
from t5x_like.errors import Exit, UserError

_NO_LETTER = re.compile(r"[^a-zA-Z0-9]+")
_DOMAINS_HELP = (
    "--set=steps.N.domains=FILE (N from 0: 1 in c4:realnewslike); C4 takes "
    "realnews/domain_to_allowed_subdomains.json of github.com/rowanz/grover"
)
_ADDRESSES_HELP = (
    "--set=steps.N.addresses=FILES (N from 0: 2 in c4:webtextlike); C4 takes "
    "'OpenWebText/Version 1/URLs/*.txt', gathered by github.com/jcpeterson/openwebtext"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealNewsDomains:
    """Keeps pages of the news domains that RealNews was made of (C4's `realnewslike`).

    Attributes:
      domains: JSON file: domain -> list of the subdomains that are allowed, or true for all of them. C4 takes
        `realnews/domain_to_allowed_subdomains.json` of github.com/rowanz/grover at commit 38f7184b.

    Reasons: `bad_domain`, `bad_subdomain`. Source: tensorflow_datasets/text/c4_utils.py, `is_realnews_domain`. What
    is a domain is read off the public suffix list that the package tldextract brings; nothing is downloaded.
    """

    name: ClassVar[str] = "realnews_domains"

    domains: str

    def files_read(self) -> Iterable[str]:
        return files.names(self.domains, "domains", _DOMAINS_HELP)

    def __call__(self, document: Document) -> Document | Rejection:
        subdomain, domain = _domain(urls.normalized(document.url))
        allowed = _domains(self.domains).get(domain)
        if allowed is None:
            return Rejection(self.name, "bad_domain", domain)
        if isinstance(allowed, list) and subdomain not in allowed:
            return Rejection(self.name, "bad_subdomain", f"{subdomain}.{domain}")
        return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedURLs:
    """Keeps pages whose normalised address is in a list (C4's `webtextlike`).

    Memory: 8 bytes an address, in each process.

    Attributes:
      addresses: file with one address a line, a folder of such files, or a name with wildcards; plain or compressed.
        C4 takes `OpenWebText/Version 1/URLs/*.txt`, gathered by github.com/jcpeterson/openwebtext.

    Reason: `not_listed`. Source: tensorflow_datasets/text/c4_utils.py, `filter_by_webtextlike`.
    """

    name: ClassVar[str] = "listed_urls"

    addresses: str

    def files_read(self) -> Iterable[str]:
        return files.names(self.addresses, "addresses", _ADDRESSES_HELP)

    def __call__(self, document: Document) -> Document | Rejection:
        known, wanted = _addresses(self.addresses), _hash(document.url)
        place = int(np.searchsorted(known, wanted))
        if place == len(known) or known[place] != wanted:
            return Rejection(self.name, "not_listed", document.url)
        return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockedURLs:
    """Rejects pages by their address, as RefinedWeb and FineWeb do (Penedo et al. 2023, section G.1).

    Attributes:
      domains: file of domains, and hosts, whose pages go; empty for none. The papers take the UT1 blocklist.
      words: file of words; a page goes if one stands in its address between characters that are no letter or digit.
      soft_words: file of words of which `soft_limit` must stand there.
      parts: file of strings that may stand nowhere in the address, letters and digits of it alone.
      soft_limit: see `soft_words`.

    Reasons: `domain`, `subdomain`, `word`, `soft_words`, `part`. Source: datatrove/pipeline/filters/url_filter.py.
    """

    name: ClassVar[str] = "blocked_urls"

    domains: str = ""
    words: str = ""
    soft_words: str = ""
    parts: str = ""
    soft_limit: int = 2

    def __post_init__(self) -> None:
        at_least(self, "soft_limit", 1)

    def files_read(self) -> Iterable[str]:
        given = [*filter(None, (self.domains, self.words, self.soft_words, self.parts))]
        if not given:
            raise UserError(
                "a rule that blocks addresses has no list of them",
                where=self.name,
                help="""--set='steps.N={"type": "BlockedURLs", "domains": "FILE"}' (N from 0)""",
            )
        return [name for file in given for name in files.names(file, self.name)]

    def __call__(self, document: Document) -> Document | Rejection:
        subdomain, domain = _domain(document.url)
        blocked = _words(self.domains, False)
        if domain in blocked:
            return Rejection(self.name, "domain", domain)
        if f"{subdomain}.{domain}" in blocked:
            return Rejection(self.name, "subdomain", f"{subdomain}.{domain}")
        in_address = set(_NO_LETTER.split(document.url))
        if found := in_address & _words(self.words, True):
            return Rejection(self.name, "word", min(found))
        if len(found := in_address & _words(self.soft_words, True)) >= self.soft_limit:
            return Rejection(self.name, "soft_words", " ".join(sorted(found)))
        letters = _NO_LETTER.sub("", document.url).lower()
        if part := next((part for part in sorted(_words(self.parts, True)) if part in letters), ""):
            return Rejection(self.name, "part", part)
        return document


@functools.cache
def _extractor():
    try:
        import tldextract
    except ImportError:
        raise UserError(
            "domains of addresses need the package tldextract", help="pip install '.[corpus]'"
        ) from None
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@functools.lru_cache(1 << 16)
def _domain(url: str) -> tuple[str, str]:
    """(subdomain, domain with suffix) of an address."""
    found = _extractor()(url)
    return found.subdomain, f"{found.domain}.{found.suffix}"


@functools.cache
def _domains(name: str) -> dict[str, object]:
    found = files.read_json(name, "domains", _DOMAINS_HELP)
    if not isinstance(found, dict):
        raise UserError(
            "expected an object of domain -> subdomains", where=f"domains: {name}", code=Exit.BAD_DATA
        )
    return found


@functools.cache
def _addresses(pattern: str) -> UInt64[np.ndarray, "N"]:
    hashes = (
        _hash(line)
        for name in files.names(pattern, "addresses", _ADDRESSES_HELP)
        for line in files.lines(name, "addresses")
    )
    return np.unique(np.fromiter(hashes, np.uint64))


def _hash(url: str) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(urls.normalized(url).encode()))


@functools.cache
def _words(name: str, letters_only: bool) -> frozenset[str]:
    if not name:
        return frozenset()
    lines = (line for line in files.lines(name, name) if not line.startswith("#"))
    return frozenset(_NO_LETTER.sub("", line).lower() if letters_only else line for line in lines)
