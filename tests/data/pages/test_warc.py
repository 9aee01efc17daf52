from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest
import zstandard

from tests.data.pages.web import packed, page, read_all, record, response

PAGES = [page(number) for number in range(40)]
URLS = [f"http://example.com/{number}" for number in range(40)]
KINDS = ("", ".gz", ".zst")


def urls(pages):
    return [each.url for each in pages]


def kinds(problems):
    return [(each.kind, each.action) for each in problems]


@pytest.mark.parametrize("suffix", KINDS)
def test_pages_in_order_with_all_that_is_known(tmp_path, suffix):
    path = tmp_path / f"one.warc{suffix}"
    path.write_bytes(packed(PAGES, suffix))
    pages, documents, problems = read_all(path)
    assert urls(pages) == URLS and not documents and not problems
    assert pages[3].timestamp == "2019-04-18T12:00:00Z"
    assert pages[3].source == str(path)
    assert pages[3].html == "<html><p>Page number 3 is here.</p>"
    # The position is where the record begins in the file as stored.
    assert path.read_bytes()[pages[3].position :] == packed(PAGES[3:], suffix)


def test_what_is_no_page_is_counted(tmp_path):
    others = [
        record("warcinfo", b"software: x"),
        record("request", b"GET / HTTP/1.1\r\n\r\n"),
        record("revisit", b"HTTP/1.1 200 OK\r\n\r\n", WARC_Target_URI="http://example.com/"),
        record("metadata", b"a: b"),
        record("continuation", b"..."),
        response("http://example.com/404", b"<html>gone", status="404 Not Found"),
        response("http://example.com/x.pdf", b"%PDF", http="Content-Type: application/pdf\r\n"),
        response("dns:example.com", b"", length=None, Content_Type="text/dns"),
        record("response", b"not http", Content_Type="application/http"),
        page(1),
        record("resource", b"<html>two", Content_Type="text/html", WARC_Target_URI="<http://example.com/2>"),
        response("http://example.com/3", b"<!doctype html><p>three", http="Server: none\r\n"),
    ]
    (tmp_path / "x.warc.gz").write_bytes(packed(others, ".gz"))
    pages, _, problems = read_all(tmp_path / "x.warc.gz")
    assert urls(pages) == URLS[1:4]
    assert [each.kind for each in problems] == [
        "warcinfo_record", "request_record", "revisit_record", "metadata_record", "other_record", "http_status",
        "not_html", "not_html", "broken_http",
    ]  # fmt: skip


def test_wet(tmp_path):
    records = [
        record("warcinfo", b"x"),
        record("conversion", "One line.\nAnother – line.".encode(), WARC_Target_URI="http://example.com/1"),
        record("conversion", b"\xff\xfe bad", WARC_Target_URI="http://example.com/2"),
        record("conversion", b"", WARC_Target_URI="http://example.com/3"),
        record("conversion", b"no address"),
    ]
    path = tmp_path / "crawl-00000.warc.wet.gz"
    path.write_bytes(packed(records, ".gz"))
    _, documents, problems = read_all(path)
    assert [(d.text, d.url) for d in documents] == [
        ("One line.\nAnother – line.", "http://example.com/1"),
        ("no address", ""),
    ]
    assert documents[0].position == len(packed(records[:1], ".gz")) and documents[0].source == str(path)
    assert [each.kind for each in problems] == ["warcinfo_record", "invalid_utf8", "empty_document"]
    assert problems[1].byte == len(packed(records[:2], ".gz")) + 0


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("unit_bytes", [1, 1 << 18])
def test_slices_hold_each_record_once(tmp_path, suffix, unit_bytes):
    noise = random.Random(0)
    records = [
        response(
            f"http://example.com/{n}", b"<html>" + noise.randbytes(noise.randrange(30_000)).hex().encode()
        )
        for n in range(60)
    ]
    path = tmp_path / f"x.warc{suffix}"
    path.write_bytes(packed(records, suffix))
    assert path.stat().st_size > 6 << 16
    pages, _, problems = read_all(path, unit_bytes)
    assert urls(pages) == [f"http://example.com/{n}" for n in range(60)]
    assert not problems


def test_one_member_of_many_records(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(gzip.compress(b"".join(PAGES)))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS and not problems
    # ... and cut up without regard to records.
    data = b"".join(PAGES)
    path.write_bytes(b"".join(gzip.compress(data[i : i + 1000]) for i in range(0, len(data), 1000)))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS and not problems


def test_zstd_frames_to_be_skipped_and_padding(tmp_path):
    path = tmp_path / "x.warc.zst"
    frame = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"
    path.write_bytes(frame + packed(PAGES[:2], ".zst") + frame + packed(PAGES[2:], ".zst"))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS and not problems
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed(PAGES, ".gz") + bytes(1000))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS and not problems


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_that_ends_early_keeps_all_before(tmp_path, suffix):
    whole = packed(PAGES, suffix)
    last = len(packed(PAGES[:-1], suffix))
    path = tmp_path / f"x.warc{suffix}"
    for end in (last + 1, last + 30, last + 120, len(whole) - 12):
        path.write_bytes(whole[:end])
        pages, _, problems = read_all(path)
        assert urls(pages)[:39] == URLS[:39], end
        assert len(problems) == 1 and problems[0].kind in (
            "truncated",
            "broken_header",
            "no_record",
            "damaged",
        )
        assert last <= problems[0].byte <= end and problems[0].file == str(path)


def test_only_the_checksum_is_missing(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed(PAGES, ".gz")[:-5])
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS
    assert kinds(problems) == [("truncated", "mended")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["flip", "cut", "zeros", "junk"])
def test_damage_costs_its_record_only(tmp_path, suffix, damage):
    members = [packed([each], suffix) for each in PAGES]
    bad = bytearray(members[7])
    if damage == "flip":
        bad[len(bad) // 2] ^= 0x55
        bad[len(bad) // 2 + 1] ^= 0x55
    elif damage == "cut":  # a crawler died and went on behind what it had written
        del bad[len(bad) // 2 :]
    elif damage == "zeros":
        bad[20:60] = bytes(40)
    else:
        bad += b"junk that belongs to nobody" * 3
    members[7] = bytes(bad)
    path = tmp_path / f"x.warc{suffix}"
    path.write_bytes(b"".join(members))
    pages, _, problems = read_all(path)
    lost = [] if damage == "junk" else [7]
    assert urls(pages) == [url for number, url in enumerate(URLS) if number not in lost]
    begin = len(b"".join(members[:7]))
    assert [each.kind for each in problems] in (["damaged"], ["truncated"])
    assert problems[0].byte == (begin if lost else begin + len(packed([PAGES[7]], suffix)))
    # The same whatever the slices are.
    sliced, _, again = read_all(path, 1)
    assert (sliced, again) == (pages, problems)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("length", [0, 3, 60, 10_000, 10**12, 10**30, -5, "many", ""])
def test_a_wrong_length_costs_nothing(tmp_path, suffix, length):
    body = b"<html><p>Page number 7 is here.</p>"
    records = [*PAGES[:7], response(URLS[7], body, length=length), *PAGES[8:]]
    path = tmp_path / f"x.warc{suffix}"
    path.write_bytes(packed(records, suffix))
    pages, _, problems = read_all(path)
    long = length == 10**12  # believed to be too long to be kept, but it does not take others with it
    assert urls(pages) == [url for number, url in enumerate(URLS) if number != 7 or not long]
    assert long or pages[7].html == body.decode()
    assert kinds(problems) == [("too_long", "skipped") if long else ("content_length", "mended")]
    assert problems[0].byte == len(packed(PAGES[:7], suffix))


def test_a_page_that_quotes_a_record_is_one_page(tmp_path):
    quoting = response("http://example.com/q", b"<html><pre>\r\n\r\n" + page(99) + b"</pre>")
    for suffix in KINDS:
        path = tmp_path / f"x.warc{suffix}"
        path.write_bytes(packed([page(0), quoting, page(1)], suffix))
        pages, _, problems = read_all(path)
        assert urls(pages) == ["http://example.com/0", "http://example.com/q", "http://example.com/1"]
        assert not problems
        # ... also where it is too long to be kept.
        pages, _, problems = read_all(path, max_document_bytes=200)
        assert urls(pages) == ["http://example.com/0", "http://example.com/1"]
        assert kinds(problems) == [("too_long", "skipped")]


def test_large_pages_are_passed_over_in_little_memory(tmp_path):
    path = tmp_path / "x.warc.gz"
    with path.open("wb") as file:
        file.write(gzip.compress(PAGES[0]))
        head = response("http://example.com/large", b"<html>", length=10**8)
        packer = zlib.compressobj(0, wbits=31)
        file.write(packer.compress(head[:-4]))
        missing = 10**8 - len(head[:-4].partition(b"\r\n\r\n")[2])
        line = random.Random(0).randbytes(1 << 15).hex().encode()
        for begin in range(0, missing, len(line)):
            file.write(packer.compress(line[: missing - begin]))
        file.write(packer.compress(b"\r\n\r\n"))
        file.write(packer.flush())
        file.write(gzip.compress(PAGES[1]))
    tracemalloc.start()
    pages, _, problems = read_all(path, max_document_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert urls(pages) == URLS[:2]
    assert [each.kind for each in problems] == ["too_long"]
    assert peak < 24 << 20


def test_bombs(tmp_path):
    bomb = response("http://example.com/bomb", b"<html>" + bytes(80 << 20))
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed([PAGES[0], bomb, PAGES[1]], ".gz"))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS[:2]
    assert [each.kind for each in problems] == ["decompression_bomb"]
    inner = zlib.compressobj(wbits=31)
    body = inner.compress(b"<html>" + bytes(50 << 20)) + inner.flush()
    http = "Content-Type: text/html\r\nContent-Encoding: gzip\r\n"
    path.write_bytes(packed([response("http://example.com/b", body, http=http), PAGES[1]], ".gz"))
    pages, _, problems = read_all(path)
    assert urls(pages) == URLS[1:2]
    assert [each.kind for each in problems] == ["too_long"]


def test_encodings_of_http(tmp_path):
    brotli = pytest.importorskip("brotli")
    html = b"<html><p>" + b"Packed in one way or another. " * 40
    raw = zlib.compressobj(wbits=-15)
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(html[i : i + 99]), html[i : i + 99]) for i in range(0, 1200, 99)
    )
    bodies = {
        "Content-Encoding: gzip\r\n": gzip.compress(html),
        "Content-Encoding: x-gzip\r\n": gzip.compress(html),
        "Content-Encoding: deflate\r\n": zlib.compress(html),
        "Content-Encoding:  deflate\r\n": raw.compress(html) + raw.flush(),
        "Content-Encoding: br\r\n": brotli.compress(html),
        "Content-Encoding: zstd\r\n": zstandard.ZstdCompressor().compress(html),
        "Transfer-Encoding: chunked\r\n": chunked + b"0\r\n\r\n",
        "Transfer-Encoding:  chunked\r\n": chunked,
        "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n": b"%x;a=b\r\n%s\r\n0\r\n\r\n"
        % (len(gzip.compress(html)), gzip.compress(html)),
        # What a crawler stored decoded has the header still.
        "Content-Encoding:   gzip\r\n": html,
        "Content-Encoding:   br\r\n": html,
        "Content-Encoding: \r\n": html,
        "Transfer-Encoding:   chunked\r\n": html,
    }
    records = [
        response(f"http://example.com/{n}", body, http="Content-Type: text/html\r\n" + header)
        for n, (header, body) in enumerate(bodies.items())
    ]
    bad = [
        response(
            "http://e.com/",
            gzip.compress(html)[:-12],
            http="Content-Type: text/html\r\nContent-Encoding: gzip\r\n",
        ),
        response(
            "http://e.com/", b"\x00\x01", http="Content-Type: text/html\r\nContent-Encoding: secret\r\n"
        ),
        response("http://e.com/", b"\xff" * 90, http="Content-Type: text/html\r\nContent-Encoding: br\r\n"),
    ]
    (tmp_path / "x.warc").write_bytes(packed([*records, *bad], ""))
    pages, _, problems = read_all(tmp_path / "x.warc")
    assert [each.html for each in pages[: len(bodies)]] == [html.decode()] * len(bodies)
    # Of a packed page that ends early there is what came before.
    assert html.decode().startswith(pages[len(bodies)].html)
    assert [each.kind for each in problems] == ["content_encoding"] * 3
    assert [each.action for each in problems] == ["mended", "skipped", "skipped"]


def test_broken_encodings_are_counted(tmp_path):
    brotli = pytest.importorskip("brotli")
    html = b"<html><p>" + b"".join(b"Sentence %d of a page. " % i for i in range(500))
    chunks = [b"%x\r\n%s\r\n" % (len(html[i : i + 999]), html[i : i + 999]) for i in range(0, 4000, 999)]
    bodies = {
        "Content-Encoding: gzip": gzip.compress(html)[:-500],
        "Content-Encoding: deflate": zlib.compress(html)[:-500],
        "Content-Encoding: br": brotli.compress(html, quality=1)[:-200],
        "Transfer-Encoding: chunked": b"".join(chunks)[:-500],
        "Transfer-Encoding:  chunked": b"".join((*chunks[:2], b"no number\r\n", chunks[2])),
        "Content-Encoding: zstd": zstandard.ZstdCompressor().compress(html)[:100],
    }
    records = [
        response(f"http://e.com/{n}", body, http=f"Content-Type: text/html\r\n{header}\r\n")
        for n, (header, body) in enumerate(bodies.items())
    ]
    (tmp_path / "x.warc").write_bytes(packed(records, ""))
    pages, _, problems = read_all(tmp_path / "x.warc")
    assert [each.kind for each in problems] == ["content_encoding"] * len(bodies)
    assert [each.action for each in problems] == ["mended"] * 5 + ["skipped"]  # zstd: not one block is whole
    assert all(html.decode().startswith(each.html) for each in pages[:4])
    assert pages[4].html.startswith(html[:1998].decode()) and html[1998:2997].decode() in pages[4].html


def test_names_stay_data(tmp_path):
    urls_in = [
        "../../etc/passwd",
        "file:///etc/passwd",
        "http://x/\x1b[31m",
        "http://x/" + "a" * 5000,
        "http://x/\u202e",
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(response(url, b"<html>x") for url in urls_in))
    pages, _, problems = read_all(tmp_path / "x.warc")
    assert urls(pages) == ["../../etc/passwd", "file:///etc/passwd", "", "", ""]
    assert [(each.kind, each.action) for each in problems] == [("bad_url", "mended")] * 3
    assert [each.name for each in tmp_path.iterdir()] == ["x.warc"]


def test_random_damage_never_stops_the_reader(tmp_path):
    """Whatever happens to a file: it is read to its end, twice the same, and what is told lies in it."""
    noise = random.Random(1)
    for trial in range(150):
        suffix = KINDS[trial % 3]
        data = bytearray(packed(PAGES, suffix))
        for _ in range(noise.randrange(1, 4)):
            at, size = noise.randrange(len(data)), noise.randrange(1, 200)
            what = noise.randrange(4)
            if what == 0:
                data[at : at + size] = noise.randbytes(size)
            elif what == 1:
                del data[at : at + size]
            elif what == 2:
                data[at:at] = noise.randbytes(size)
            else:
                data[at:at] = data[at : at + size]
        path = tmp_path / f"x.warc{suffix}"
        path.write_bytes(data)
        pages, _, problems = read_all(path)
        assert len(pages) >= 28, (trial, problems)
        assert read_all(path) == (pages, [], problems)
        assert all(0 <= each.byte <= len(data) for each in problems)
