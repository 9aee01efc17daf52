"""Bad input: every kind is found, counted and placed; every good document survives."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import random
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data import compression, sources
from t5x_like.data.documents import Document, Problem, Settings
from t5x_like.data.reading import blocks, parse
from t5x_like.errors import UserError


def read(*paths, target=1 << 20, **options):
    found = sources.find([str(path) for path in paths])
    chosen = Settings(**options)
    items = [i for block in blocks(found, chosen, target) for i in parse(block, found[block.file], chosen)]
    return [i.text for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, Problem)]


def places(problems):
    return [(p.kind, p.line, p.byte, p.action) for p in problems]


# ---- good input


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz"])
@pytest.mark.parametrize("target", [1, 50, 1 << 20])
def test_every_compression_and_any_size_of_block(tmp_path, suffix, target):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress}[suffix]
    texts = [f"document {i}\nsecond line é" for i in range(40)]
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack("\n\n".join(texts).encode()))
    assert read(path, target=target) == (texts, [])
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(pack("\n".join(json.dumps({"text": text}) for text in texts).encode()))
    assert read(path, target=target) == (texts, [])


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_streams_end_to_end_in_one_file(tmp_path, suffix):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack(b"one\n\ntw") + pack(b"o\n\nthree") + b"\0" * 16)
    assert read(path) == (["one", "two", "three"], [])


def test_what_ends_a_document(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\nb\n\n \t\r\n\nc\r\nd\n  \ne")
    assert read(path)[0] == ["a\nb", "c\nd", "e"]
    assert read(path, documents="line")[0] == ["a", "b", "c", "d", "e"]
    assert read(path, documents="file")[0] == ["a\nb\n\n \t\n\nc\nd\n  \ne"]


word = st.text(st.sampled_from("ab é漢\u2028\x85"), min_size=1, max_size=6).filter(str.strip)
text = st.lists(word, min_size=1, max_size=5).map("\n".join).map(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(text, max_size=12), st.integers(1, 60))
def test_documents_survive_writing_and_reading(tmp_path_factory, texts, target):
    folder = tmp_path_factory.mktemp("x")
    lines = folder / "x.jsonl"
    lines.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts) or "\n")
    assert read(lines, target=target) == (texts, [])
    blank = folder / "x.txt"
    blank.write_bytes("\n\n".join(t for t in texts).encode() or b"\n")
    assert read(blank, target=target) == (texts, [])


# ---- the catalogue

JSONL = [
    (b'{"text": "good 1"}', None),
    (b'{"text": "bad \xff byte"}', ("invalid_utf8", 14)),
    (b'{"text": "cut', ("broken_json", 0)),
    (b"", None),
    (b'{"txt": "x"}', ("missing_field", 0)),
    (b'{"text": null}', ("missing_field", 0)),
    (b'{"text": 3}', ("field_is_no_text", 0)),
    (b'["text"]', ("not_an_object", 0)),
    (b'{"text": "a\\u0000b"}', ("nul", 0)),
    (b'{"text": "a\\ud800b"}', ("lone_surrogate", 0)),
    (b'{"text": "  "}', ("empty_document", 0)),
    (b'{"text": "' + b"x" * 200 + b'"}', ("too_long", 0)),
    (b"[" * 100, ("broken_json", 0)),
    (b'{"text": ' + b"9" * 90 + b"}", ("field_is_no_text", 0)),
    (b'{"text": "good 2", "url": "u"}', None),
]


@pytest.mark.parametrize("target", [1, 100, 1 << 20])
def test_bad_lines_of_json(tmp_path, target):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in JSONL))
    good, problems = read(path, target=target, max_document_bytes=150)
    assert good == ["good 1", "good 2"]
    expected, byte = [], 0
    for number, (line, problem) in enumerate(JSONL, 1):
        if problem:
            expected.append((problem[0], number, byte + problem[1], "skipped"))
        byte += len(line) + 1
    assert places(problems) == expected
    assert {p.file for p in problems} == {str(path)}


def test_mending_json(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in JSONL))
    good, problems = read(path, max_document_bytes=150, bad_input="replace")
    assert good == ["good 1", "bad \ufffd byte", "ab", "a\ufffdb", "good 2"]
    mended = [p.kind for p in problems if p.action == "mended"]
    assert mended == ["invalid_utf8", "nul", "lone_surrogate"]


def test_a_field_that_is_there_twice(tmp_path):
    """F30: which of the two is meant nobody can tell."""
    path = tmp_path / "x.jsonl"
    lines = [
        '{"text": "one", "text": "two"}',
        '{"text": "the word \\"text\\" \\"text\\""}',
        '{"meta": {"text": "a", "text": "b"}, "text": "three"}',
        '{"meta": [{"text": 1}], "text": "four"}',
        '{"url": "http://a.org/1", "text": "five", "url": "http://a.org/2"}',
    ]
    path.write_text("\n".join(lines) + "\n")
    good, problems = read(path)
    assert good == ['the word "text" "text"', "three", "four"]
    assert [(p.kind, p.line) for p in problems] == [
        ("duplicate_field", 1),
        ("duplicate_field", 5),
    ]


def test_a_field_of_another_name_is_suggested(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"txt": "a", "n": 1}')
    assert read(path)[1][0].detail == "did you mean --text_field=txt?"


def test_a_json_array_says_how_to_convert_it(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[\n{"text": "a"}\n]')
    assert "jq -c" in read(path)[1][0].detail


TEXT = b"good 1\n\nbad \xe9 byte\n\nNUL \0 here\n\n" + b"long words " * 20 + b"\n\ngood 2\n\n\xef\xbf\xbe"


@pytest.mark.parametrize("target", [1, 100, 1 << 20])
def test_bad_text(tmp_path, target):
    path = tmp_path / "x.txt"
    path.write_bytes(TEXT)
    good, problems = read(path, target=target, max_document_bytes=100)
    assert good == ["good 1", "good 2", "\ufffe"]
    assert places(problems) == [
        ("invalid_utf8", 3, 12, "skipped"),
        ("nul", 5, 20, "skipped"),
        ("too_long", 7, 32, "skipped"),
    ]
    good, problems = read(path, target=target, max_document_bytes=100, bad_input="replace")
    assert good[1:3] == ["bad \ufffd byte", "NUL  here"]
    assert " ".join(good[3:-2]) == (b"long words " * 20).decode().strip()
    assert all(len(piece) <= 100 for piece in good[3:-2])
    assert {p.kind for p in problems} == {"invalid_utf8", "nul", "too_long"}
    assert {p.action for p in problems} == {"mended"}


def test_failing_names_file_line_and_byte(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"good\n\nbad \xe9 byte\x1b[31m")
    error = read(path)[1][0].error()
    assert error.where == f"{path}:3 (byte 10)"
    assert "\x1b" not in str(error), "what stands in a file never reaches the terminal raw"
    assert "--bad_input=skip" in str(error)


def test_byte_order_marks(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "good"}\n{')
    good, problems = read(path)
    assert good == ["good"]
    assert places(problems) == [("byte_order_mark", 1, 0, "mended"), ("broken_json", 2, 20, "skipped")]
    for codec in ("utf-16", "utf-16-be", "utf-32"):
        path.write_bytes("\ufeff".encode(codec) + '{"text": "good"}'.encode(codec))
        good, problems = read(path)
        assert good == []
        assert problems[0].kind in ("utf16", "broken_json")


def test_empty_files(tmp_path):
    for name in ("a.txt", "b.jsonl", "c.txt.gz", "d.parquet", "e.array_record"):
        (tmp_path / name).write_bytes(b"")
    good, problems = read(tmp_path)
    assert good == []
    assert [p.kind for p in problems] == ["empty_file"] * 5


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_truncated_streams_keep_their_whole_documents(tmp_path, suffix, kind):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress}[suffix]
    texts = [os.urandom(30).hex() for _ in range(20_000)]
    raw = "".join(json.dumps({"text": t}) + "\n" if kind == "jsonl" else t + "\n\n" for t in texts).encode()
    path = tmp_path / f"x.{kind}{suffix}"
    whole = pack(raw)
    path.write_bytes(whole[: 2 * len(whole) // 3])
    good, problems = read(path)
    assert len(good) > 5000
    assert good == texts[: len(good)]
    (problem,) = problems
    assert problem.kind == "truncated"
    assert problem.line > len(good)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_damaged_streams(tmp_path, suffix):
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(b"this is not compressed at all, whatever its name")
    good, problems = read(path)
    assert good == []
    assert [p.kind for p in problems] == ["damaged"]


@pytest.mark.parametrize(
    ("cut", "members"), [(200, 1), (200, 3), (3000, 1), (3000, 3), (4096, 1), (5000, 3), (1_100_000, 3)]
)
def test_gzip_keeps_every_byte_before_the_damage(cut, members):
    """Of the step with the damage in it zlib alone would give nothing."""
    words, number = random.Random(0), 2 * cut // members
    data = b"".join(
        gzip.compress(b" ".join(b"%d" % words.randrange(10**6) for _ in range(number)))
        for _ in range(members)
    )
    readable, rest = bytearray(), data[:cut]
    while rest:  # whole members, and what zlib makes of a part
        decoder = zlib.decompressobj(wbits=31)
        readable += decoder.decompress(rest)
        rest = decoder.unused_data
    found = bytearray()
    with pytest.raises(compression.Damaged, match="damaged"):
        for chunk in compression.chunks(io.BytesIO(data[:cut] + words.randbytes(10_000)), "gzip"):
            found += chunk
    assert found.startswith(readable) and len(readable) > cut // 2


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_bombs_stop_early(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_FLOOR", 1 << 20)
    pack = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack(b"good\n\n" + b"a" * (40 << 20)))
    tracemalloc.start()
    good, problems = read(path, max_document_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert good == ["good"]
    assert "decompression_bomb" in [p.kind for p in problems]
    assert peak < 100 << 20


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
@pytest.mark.parametrize("target", [1 << 16, 3 << 20])
def test_a_huge_line_is_never_held(tmp_path, kind, target):
    path = tmp_path / f"x.{kind}"
    with path.open("wb") as file:
        file.write(b'{"text": "good"}\n\n')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'\n\n{"text": "good"}\n')
    tracemalloc.start()
    good, problems = read(path, target=target, max_document_bytes=2 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(good) == 2
    assert [(p.kind, p.line, p.byte) for p in problems] == [("too_long", 3, 18)]
    assert peak < 24 << 20


def test_a_huge_text_is_cut_when_mending(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"good\n\n" + "é漢 ".encode() * 400_000 + b"\n\ngood")
    good, problems = read(path, target=1 << 18, max_document_bytes=1 << 19, bad_input="replace")
    assert good[0] == good[-1] == "good"
    assert " ".join(good[1:-1]) == ("é漢 " * 400_000).strip()
    assert all(len(g.encode()) <= 1 << 19 for g in good)
    assert {p.kind for p in problems} == {"too_long"}


def test_a_missing_folder_in_mid_run_is_an_error_of_the_user(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = sources.find([str(tmp_path)])
    stream = blocks(found, Settings(), 1)
    next(stream)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match="cannot read this file"):
        list(stream)
