"""Addresses of pages, as C4 compares them."""

from __future__ import annotations

import hashlib
import re

_SCHEME = re.compile(r"https?:\/\/(www\.)?")
_TAIL = re.compile(r"\?(utm_|ref|feed).*")


def normalized(url: str) -> str:
    """The address without what does not tell pages apart.

    Source: tensorflow_datasets/text/c4_utils.py, `normalize_url`; what it does is kept, a scheme in the middle of an
    address goes too.
    """
    return _TAIL.sub("", _SCHEME.sub("", url)).rstrip("/")


def hashed(url: str) -> int:
    """128 bits of the normalised address; C4 holds out those that 1000 divides.

    Source: tensorflow_datasets/text/c4_utils.py, `get_hashed_url_filter_fn`.
    """
    return int.from_bytes(hashlib.md5(normalized(url).encode(), usedforsecurity=False).digest(), "big")
