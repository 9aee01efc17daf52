from __future__ import annotations

import codecs
import gzip
import json
import os
import pickle
from datetime import UTC, datetime

import fsspec
import pytest
import zstandard
from fsspec.implementations.local import LocalFileSystem

from t5x_like.data import example_proto, sources
from t5x_like.data.documents import Document, Problem, Settings
from t5x_like.data.pages import RawPage, charsets, find, read, units
from t5x_like.errors import UserError
from tests.data.pages.web import packed, page, read_all, record, response

SETTINGS = Settings()


def test_a_folder_of_html(tmp_path):
    (tmp_path / "sub").mkdir()
    contents = {
        "a.html": b"<p>a",
        "b.htm.gz": gzip.compress(b"<p>b"),
        "sub/c.xhtml.zst": zstandard.ZstdCompressor().compress(b"<p>c"),
        "d.html": b"",
        "e.html": b" \n ",
        "f.html.gz": gzip.compress(b"<p>f")[:-9],
        "g.html": b"<p>" + bytes(range(128, 256)) * 9,
        "h.html": b"<p>h\0h",
        "i.html": b"<p>" + b"long " * 1000,
        "notes.pdf": b"%PDF",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    pages, documents, problems = read_all(tmp_path, max_document_bytes=4096)
    assert [(each.html, each.source.removeprefix(f"{tmp_path}/")) for each in pages] == [
        ("<p>a", "a.html"),
        ("<p>b", "b.htm.gz"),
        ("<p>hh", "h.html"),
        ("<p>c", "sub/c.xhtml.zst"),
    ]
    assert not documents and {each.url for each in pages} == {""}
    assert [(each.file.rpartition("/")[2], each.kind, each.action) for each in problems] == [
        ("d.html", "empty_file", "skipped"),
        ("e.html", "empty_document", "skipped"),
        ("f.html.gz", "truncated", "skipped"),
        ("g.html", "undecodable_charset", "skipped"),
        ("h.html", "nul", "mended"),
        ("i.html", "too_long", "skipped"),
    ]


def test_a_file_name_that_is_no_text(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.html")).write_bytes(b"<html><meta charset=none><p>text")
    except OSError:
        pytest.skip("the file system wants names in UTF-8")
    pages, _, problems = read_all(tmp_path)
    assert [each.source for each in pages] == [f"{tmp_path}/caf\\xe9.html"]
    assert [each.file for each in problems] == [f"{tmp_path}/caf\\xe9.html"]
    _, missing = find([str(tmp_path), os.fsdecode(b"/nowhere/\xe9.html")])
    assert [each.file for each in missing] == ["/nowhere/\\xe9.html"]


def test_a_folder_inside_that_cannot_be_listed(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.html").write_text("<html><p>text")
    whole = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files, missing = find([str(tmp_path)])
    assert [each.name for each in files] == [f"{tmp_path}/a/x.html"]
    assert [(each.kind, each.file) for each in missing] == [("unreadable_file", f"{tmp_path}/b")]
    with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
        find([str(tmp_path)], bad_input="fail")
    with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
        find([str(tmp_path / "b")])


def test_links_to_folders_are_told_and_not_followed(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "in"
    for each in (elsewhere, folder):
        each.mkdir()
        (each / "x.html").write_text("<html><p>text")
    for name in ("b", ".hidden"):
        (folder / name).symlink_to(elsewhere)
    (folder / "y.html").symlink_to(elsewhere / "x.html")  # a file is a file
    files, missing = find([str(folder)])
    assert [each.name for each in files] == [f"{folder}/x.html", f"{folder}/y.html"]
    assert [(each.kind, each.file) for each in missing] == [("link_not_followed", f"{folder}/b")]
    message = "a link to a folder is not followed"
    with pytest.raises(UserError, match=message):
        find([str(folder)], bad_input="fail")
    for name in ("x.html", "y.html"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=message):  # nothing else is there
        find([str(folder)])
    assert len(find([str(folder / "b")])[0]) == 1, "a link that was named is followed"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.html").write_text("<html><p>text")
    (tmp_path / "b.html").write_text("<html><p>text")
    whole = LocalFileSystem.open

    def opened(self, path, *args, **kwargs):
        if str(path).endswith("b.html"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(self, path, *args, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "open", opened)
    for name in ("", "/*.html"):
        files, missing = find([f"{tmp_path}{name}"])
        assert [each.name for each in files] == [f"{tmp_path}/a.html"]
        (problem,) = missing
        assert (problem.kind, problem.file) == ("unreadable_file", f"{tmp_path}/b.html")
        assert "Permission denied" in problem.detail


def test_what_a_pattern_passes_over_is_told(tmp_path, monkeypatch):
    for folder in ("in/a", "in/closed", "real"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.html").write_text("<html><p>text")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "nothing.html").symlink_to("nowhere.html")
    root = f"{tmp_path}/in"
    allowed = os.access  # who runs the tests may be root, who may read all
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and allowed(path, mode))

    def missed(pattern):
        files, missing = find([root + pattern])
        return len(files), {(each.kind, each.file.removeprefix(root)) for each in missing}

    gone = ("missing_file", "/nothing.html")
    beside = {("unreadable_file", "/closed"), ("link_not_followed", "/linked")}
    assert missed("/a/*.html") == (1, set())
    assert missed("/linked/*.html") == (1, set())  # asked for by name
    assert missed("/*/*.html") == (2, beside)
    assert missed("/**/*.html") == missed("/**") == (2, beside | {gone})
    with pytest.raises(UserError, match="a link to nothing"):
        find([f"{root}/*.html"])
    (tmp_path / "in" / "closed" / "x.html").unlink()
    with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
        find([f"{root}/closed/*"])


def test_addresses_that_are_not_kept_are_counted(tmp_path):
    long = "http://example.com/" + "x" * 2048
    (tmp_path / "a.warc").write_bytes(packed([response(long, b"<html><p>text"), page(0)], ""))
    (tmp_path / "b.wet").write_bytes(packed([record("conversion", b"text", WARC_Target_URI=long)], ""))
    values = ["http://e.com/\x1b[2J", "\ud800", 5, "", None, "http://e.com/1"]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": "t", "url": v}) + "\n" for v in values))
    pages, documents, problems = read_all(tmp_path)
    assert [each.url for each in pages] == ["", "http://example.com/0"]
    assert [each.url for each in documents] == ["", "", "", "", "", "", "http://e.com/1"]
    assert [(each.kind, each.action, each.file.rpartition("/")[2], each.line) for each in problems] == [
        ("bad_url", "mended", "a.warc", 0),
        ("bad_url", "mended", "b.wet", 0),
        ("bad_url", "mended", "c.jsonl", 1),
        ("bad_url", "mended", "c.jsonl", 2),
        ("bad_url", "mended", "c.jsonl", 3),
    ]
    assert all(each.detail.isascii() and each.detail.isprintable() for each in problems)


def test_times_that_are_not_kept_are_counted(tmp_path):
    wrong = ["yesterday", "2020-13-01", "2020-01-01T25:00:00Z", "2019-04-18T12:00:00Z\x1b[2J", 1555588800]
    right = ["2019-04-18T12:00:00Z", "2019-04-18 12:00:00.5+02:00", "2019-04", "", None]
    rows = [{"text": "t", "timestamp": value} for value in wrong + right]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.wet").write_bytes(packed([record("conversion", b"text", WARC_Date="Thursday")], ""))
    _, documents, problems = read_all(tmp_path)
    assert [each.timestamp for each in documents] == [*[""] * 5, *right[:3], "", "", ""]
    assert [(each.kind, each.action, each.line) for each in problems] == [
        *(("bad_timestamp", "mended", line) for line in (1, 2, 3, 4, 5)),
        ("bad_timestamp", "mended", 0),
    ]


def test_small_files_share_a_unit_and_units_cross_processes(tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03}.html").write_bytes(b"<p>" + b"x" * 2000)
    files, _ = find([str(tmp_path)])
    found = list(units(files, SETTINGS))
    assert [unit.number for unit in found] == [0, 1]
    assert sum(unit.consumed for unit in found) == sum(file.size for file in files)
    again = pickle.loads(pickle.dumps(found))
    assert [list(read(unit, SETTINGS)) for unit in again] == [list(read(unit, SETTINGS)) for unit in found]


def test_text_in_every_form(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "one", "url": "http://e.com/1", "timestamp": "2019-04-18T12:00:00Z"})
        + "\nbroken\n"
        + json.dumps({"text": "two", "url": "a\nb"})
    )
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three\n\nfour"))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(b'{"text": "five"}'))
    pages, documents, problems = read_all(tmp_path)
    assert not pages
    assert [(d.text, d.url, d.timestamp, d.source.rpartition("/")[2], d.position) for d in documents] == [
        ("one", "http://e.com/1", "2019-04-18T12:00:00Z", "a.jsonl", 0),
        ("two", "", "", "a.jsonl", 85),
        ("three", "", "", "b.txt.gz", 0),
        ("four", "", "", "b.txt.gz", 7),
        ("five", "", "", "c.jsonl.zst", 0),
    ]
    assert [(each.kind, each.byte) for each in problems] == [("broken_json", 78), ("bad_url", 85)]


def test_parquet_and_tfds_keep_url_and_timestamp(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    moment = datetime(2019, 4, 18, 12, tzinfo=UTC)
    parquet.write_table(pyarrow.table({"text": ["hello"], "timestamp": [moment]}), tmp_path / "w.parquet")
    assert [each.timestamp for each in read_all(tmp_path / "w.parquet")[1]] == ["2019-04-18T12:00:00Z"]
    columns = {"timestamp": ["2019"], "text": ["hello"], "url": ["http://e.com/"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    _, (document,), _ = read_all(tmp_path / "x.parquet")
    wanted = Document("hello", "http://e.com/", "2019", str(tmp_path / "x.parquet"), 1)
    assert document == wanted

    from array_record.python.array_record_module import ArrayRecordWriter

    path = tmp_path / "x.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(example_proto.write({key: values[0].encode() for key, values in columns.items()}))
    writer.close()
    _, (document,), _ = read_all(path)
    assert document == Document("hello", "http://e.com/", "2019", str(path), 1)


def test_urls_of_fsspec():
    memory = fsspec.filesystem("memory")
    memory.pipe("/crawl/one.warc.gz", packed([page(0), page(1)], ".gz"))
    memory.pipe("/crawl/two.html", b"<p>two")
    for name in ("memory://crawl", "memory://crawl/*"):
        pages, _, problems = read_all(name)
        assert [each.url for each in pages] == ["http://example.com/0", "http://example.com/1", ""]
        assert pages[0].source == "memory:///crawl/one.warc.gz" and not problems


def test_shards_that_are_not_there(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(packed([page(0)], ".gz"))
    (tmp_path / "b.warc.gz").write_bytes(b"")
    names = [str(tmp_path / name) for name in ("a.warc.gz", "b.warc.gz", "c.warc.gz")]
    files, problems = find(names)
    assert [file.name for file in files] == names[:2]
    assert [(each.kind, each.file) for each in problems] == [("missing_file", names[2])]
    with pytest.raises(UserError, match="no such file") as error:
        find(names, bad_input="fail")
    assert "did you mean" in error.value.help
    with pytest.raises(UserError, match="no such file"):
        find(names[2:])
    # A shard that goes while the others are read.
    found = list(units(files, SETTINGS))
    (tmp_path / "a.warc.gz").unlink()
    items = [item for unit in found for item in read(unit, SETTINGS)]
    assert [(each.kind, each.file) for each in items] == [
        ("unreadable_file", names[0]),
        ("empty_file", names[1]),
    ]


def test_a_name_that_looks_like_a_page_only(tmp_path):
    (tmp_path / "x.warc.gz").write_bytes(b"hello")
    (tmp_path / "y.html").write_bytes(b"<p>y")
    pages, _, problems = read_all(tmp_path)
    assert [each.html for each in pages] == ["<p>y"]
    assert [(each.kind, each.byte) for each in problems] == [("damaged", 0)]
    # `prepare` reads text and says who reads pages.
    with pytest.raises(UserError, match="unknown kind of file") as error:
        sources.find([str(tmp_path / "y.html")])
    assert "t5x_like.corpus" in error.value.help


def test_problems_name_file_and_byte(tmp_path):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(packed([page(0), response("http://e.com/", b"<p>\xff\xff" * 50), page(1)], ".gz"))
    items = [item for unit in units(find([str(path)])[0], SETTINGS) for item in read(unit, SETTINGS)]
    (problem,) = [item for item in items if isinstance(item, Problem)]
    assert len([item for item in items if isinstance(item, RawPage)]) == 3
    assert (problem.kind, problem.action) == ("wrong_charset", "mended")
    assert problem.byte == len(packed([page(0)], ".gz"))
    assert str(problem.byte) in str(problem.error()) and str(path) in str(problem.error())


RUSSIAN = "<p>Это достаточно длинный текст на русском языке, чтобы кодировку можно было угадать.</p>" * 3


@pytest.mark.parametrize(
    ("data", "declared", "text", "kinds"),
    [
        (b"plain", "", "plain", []),
        ("é".encode(), "", "é", []),
        ("é".encode("latin-1"), "ISO-8859-1", "é", []),
        (b"\x93quoted\x94", "iso-8859-1", "“quoted”", []),
        (codecs.BOM_UTF8 + "é".encode(), "iso-8859-1", "é", []),
        ("é".encode("utf-16"), "", "é", []),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "", "é", []),
        ("日本".encode("cp932"), "Shift_JIS", "日本", []),
        ("<meta charset=gb2312>中文".encode("gb18030"), "", "<meta charset=gb2312>中文", []),
        (
            "<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>да".encode("koi8-r"),
            "",
            "<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>да",
            [],
        ),
        ("<?xml version='1.0' encoding='windows-1251'?>да".encode("cp1251"), "", None, []),
        ("é".encode(), "klingon", "é", ["unknown_charset"]),
        ("é".encode(), "us-ascii", "Ã©", []),
        ("日本語".encode(), "shift_jis", "日本語", ["wrong_charset"]),
        (RUSSIAN.encode("cp1251"), "", RUSSIAN, []),
        (RUSSIAN.encode("koi8-r"), "utf-8", RUSSIAN, ["wrong_charset"]),
        ("é".encode() * 1000 + b"\xff", "utf-8", "é" * 1000 + "�", ["invalid_bytes"]),
        # Python knows these as codecs; a page may not.
        (b"\\u0041", "unicode_escape", "\\u0041", ["unknown_charset"]),
        (b"x", "zlib_codec", "x", ["unknown_charset"]),
        (b"+AEE-", "utf-7", "+AEE-", ["unknown_charset"]),
    ],
)
def test_charsets(data, declared, text, kinds):
    found = charsets.decode(data, declared)
    assert found is not None
    assert found[0] == (text if text is not None else data.decode("cp1251"))
    assert [kind for kind, _ in found[1]] == kinds


def test_bytes_that_are_no_text():
    assert charsets.decode(b"\x81\x8d\x8f\x90\x9d" * 50) is None
    assert charsets.decode(codecs.BOM_UTF16_LE + b"\x00\xd8" * 50) is None


def test_every_label_has_a_codec():
    for codec in charsets._LABELS:
        assert codecs.lookup(codec)._is_text_encoding  # pyright: ignore[reportAttributeAccessIssue]


def test_a_dataset_of_which_a_shard_is_missing(tmp_path):
    from t5x_like.data import text_dataset

    for index in range(2):
        name = text_dataset.shard_name("mine", "train", index, 2)
        text_dataset.write_shard(tmp_path / name, [(f"text {index}", "")])
    text_dataset.write_description(tmp_path, "mine", {"train": [(1, 9), (1, 9)]}, "two texts")
    gone = tmp_path / text_dataset.shard_name("mine", "train", 0, 2)
    gone.unlink()
    for name in (str(tmp_path), f"tfds:{tmp_path}"):
        _, documents, problems = read_all(name)
        assert [each.text for each in documents] == ["text 1"]
        assert [(each.kind, each.file) for each in problems] == [("missing_file", str(gone))]
        with pytest.raises(UserError, match="missing"):
            find([name], bad_input="fail")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    (tmp_path / "dataset_info.json").write_text(json.dumps({**info, "name": "../../elsewhere"}))
    with pytest.raises(UserError, match="is a path"):
        find([str(tmp_path)])


def test_names_of_no_known_kind_are_mistakes(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(packed([page(0)], ".gz"))
    (tmp_path / "b.pdf").write_bytes(b"x")
    with pytest.raises(UserError, match=r"unknown kind of file '\.pdf'"):
        find([str(tmp_path / "*")])
    with pytest.raises(UserError, match="cannot open") as error:
        find(["s3x://bucket/x"])
    assert "s3fs" in error.value.help
