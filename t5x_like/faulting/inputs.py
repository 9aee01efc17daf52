"""Faults of what is read: input text, token datasets, tokenizers, configurations, and the workers that read them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from t5x_like.data import changes, compression
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.documents import Settings
from t5x_like.data.prefetch import prefetch
from t5x_like.data.preparation import Arguments, prepare
from t5x_like.data.token_dataset import TokenDataset, from_documents
from t5x_like.errors import UserError
from t5x_like.faulting import tiny
from t5x_like.faulting.report import Outcome, judged
from t5x_like.faulting.trials import Bench

GOOD = "the whale and a ship sailed upon the great water"


def _refused(action: Callable[[], Any], *words: str) -> str:
    """What is wrong: nothing was refused, or without these words; empty where all is well."""
    try:
        action()
    except UserError as error:
        text = str(error)
        missing = [word for word in words if word not in text]
        return f"{missing[0]!r} is not in {text!r}" if missing else ""
    return f"not refused: {', '.join(words)}"


def _prepare(
    bench: Bench, name: str, files: dict[str, bytes], **read: Any
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Prepares `files`; documents and problems by kind, and the lines of rejections.jsonl."""
    folder = bench.new(name)
    (folder / "in").mkdir(parents=True)
    for file, content in files.items():
        (folder / "in" / file).write_bytes(content)
    tiny.make(bench.data)
    summary = prepare(
        Arguments(
            input=tuple(str(folder / "in" / file) for file in files),
            output=str(folder / "out"),
            tokenizer=str(bench.data / "tokenizer"),
            validation_fraction=0.0,
            read=Settings(**read),
            workers=1,
        ),
        quiet=True,
    )
    lines = (folder / "out" / "rejections.jsonl").read_text().splitlines()
    counts = Counter({kind: int(number) for kind, number in summary.problems.items()})
    counts["documents"] = summary.splits["train"]["documents"]
    return counts, [json.loads(line) for line in lines]


def _expect(counts: Counter[str], **wanted: int) -> list[str]:
    names = {
        name.replace("_skipped", " skipped").replace("_mended", " mended"): n for name, n in wanted.items()
    }
    return [f"{name}: {counts[name]} and not {n}" for name, n in names.items() if counts[name] != n]


def changed(bench: Bench) -> Outcome:
    """F19."""
    run, folder = tiny.make(bench.data), bench.new("changed")
    tokenizer = TokenDataset.open(str(bench.data)).tokenizer
    for name, count in (("a", 40), ("b", 50), ("c", 60)):
        from_documents(folder / name, tokenizer, {"train": [f"{GOOD} {i}" for i in range(count)]})

    def look(names: str) -> dict[str, Any]:
        sources = tuple(Source(path=str(folder / name)) for name in names)
        return changes.describe(Batches(Data(sources=sources), run.objective, 8, 0))

    before, failures = look("ab"), []
    cases = {"abc": "c was added", "a": "b was removed", "ba": "another order", "ac": "was edited"}
    for names, words in cases.items():
        now = look(names)
        told = changes.differences(before, now)
        if now["fingerprint"] == before["fingerprint"] or not any(words in line for line in told):
            failures.append(f"{names}: {told}")
    injected = f"{len(cases)}: a source added, removed, put in another order, edited"
    return judged(injected, "another fingerprint each time, and told in words what changed", failures)


def bad_utf8(bench: Bench) -> Outcome:
    """F24."""
    files = {"x.txt": f"{GOOD}\n\n{GOOD} ".encode() + b"\xff bad\n\n" + GOOD.encode()}
    counts, lines = _prepare(bench, "utf8", files)
    at = len(GOOD) * 2 + 3
    failures = _expect(counts, documents=2, invalid_utf8_skipped=1)
    if [(line["line"], line["byte"]) for line in lines] != [(3, at)]:
        failures.append(f"the place is {lines}, and not line 3, byte {at}")
    counts, _ = _prepare(bench, "utf8", files, bad_input="replace")
    failures += _expect(counts, documents=3, invalid_utf8_mended=1)
    told = _refused(lambda: _prepare(bench, "utf8", files, bad_input="fail"), f"x.txt:3 (byte {at})")
    return judged("a byte 0xff in a text, under each policy", "left out, mended or refused; file, line and byte told",
                  failures + [told] * bool(told))  # fmt: skip


def odd_characters(bench: Bench) -> Outcome:
    """F25."""
    text = f"\ufeff{GOOD}\r\n{GOOD}\r\r\n\r\n{GOOD}\u2028{GOOD}\n\n{GOOD}\0".encode()
    counts, _ = _prepare(bench, "odd", {"x.txt": text})
    failures = _expect(counts, documents=2, nul_skipped=1, byte_order_mark_mended=1)
    counts, _ = _prepare(bench, "odd", {"x.txt": text}, bad_input="replace")
    failures += _expect(counts, documents=3, nul_mended=1, byte_order_mark_mended=1)
    return judged("BOM, CR, CRLF, U+2028 and NUL", "BOM taken off and counted, CR made LF, U+2028 kept, NUL by policy",
                  failures)  # fmt: skip


def huge_line(bench: Bench) -> Outcome:
    """F26."""
    _prepare(bench, "huge", {"x.txt": GOOD.encode()})  # what is loaded once is loaded
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    line = b'{"text": "' + b"word " * 20_000_000 + b'"}\n'
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale  # ours, for the line itself
    counts, lines = _prepare(bench, "huge", {"x.jsonl": line + json.dumps({"text": GOOD}).encode()})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - max(held, before)
    failures = _expect(counts, documents=1, too_long_skipped=1)
    failures += [] if grown < 64 << 20 else [f"memory grew by {grown >> 20} MB"]
    return judged("a line of 100 MB", f"left out and counted; memory grew by {grown >> 20} MB", failures,
                  grown_bytes=grown, rejected=lines[:1])  # fmt: skip


def nothing_there(bench: Bench) -> Outcome:
    """F27."""
    counts, _ = _prepare(bench, "empty", {"a.txt": b"", "b.txt": GOOD.encode()})
    failures = _expect(counts, documents=1, empty_file_skipped=1)
    for files, *words in (
        ({"a.txt": b"", "b.jsonl": b""}, "no document of the input can be used"),
        ({"a.jsonl": b'{"no": 1}\n' * 5}, "5 missing field", "a.jsonl:1"),
    ):
        told = _refused(lambda files=files: _prepare(bench, "none", files), *words)
        failures += [told] * bool(told)
    return judged("an empty file; only empty files; every document refused",
                  "counted; refused with the reasons and the first place", failures)  # fmt: skip


def cut_in_use(bench: Bench) -> Outcome:
    """F28."""
    run, folder = tiny.make(bench.data), bench.new("cut")
    shutil.copytree(bench.data, folder)
    sources = (Source(path=str(folder)),)
    made = Batches(Data(sources=sources), run.objective, 8, 0)
    (shard,) = folder.glob("train-*.tokens")
    whole, failures = shard.read_bytes(), []
    os.truncate(shard, 8)
    told = _refused(lambda: made(0), "has been cut to 8 bytes", shard.name)
    failures += [told] * bool(told)
    shard.write_bytes(whole)
    made = Batches(Data(sources=sources), run.objective, 8, 0)
    shutil.rmtree(folder)
    made(3)
    outcome = "cut: an error that names the file; removed: read to the end"
    return judged("tokens cut, and removed, while they are mapped", outcome, failures)


def truncated(bench: Bench) -> Outcome:
    """F29."""
    import lzma

    import pyarrow
    import zstandard
    from pyarrow import parquet

    from t5x_like.data import text_dataset

    texts = [f"{GOOD} {i * 7919 % 1000}" for i in range(3000)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    files = {
        "x.jsonl.gz": gzip.compress(lines),
        "x.jsonl.zst": zstandard.compress(lines),
        "x.jsonl.xz": lzma.compress(lines),
    }
    assert {"." + name.rsplit(".", 1)[1] for name in files} == set(compression.SUFFIXES)
    scratch = bench.new("whole")
    scratch.mkdir()
    parquet.write_table(pyarrow.table({"text": texts}), scratch / "x.parquet", row_group_size=500)
    text_dataset.write_shard(scratch / "x.array_record", [(text, "") for text in texts])
    files |= {path.name: path.read_bytes() for path in scratch.iterdir()}
    failures, kept = [], {}
    for name, content in files.items():
        bad = {name: content[: len(content) * 2 // 3], "good.txt": GOOD.encode()}
        counts, lines_of = _prepare(bench, "truncated", bad)
        kept[name] = counts["documents"] - 1
        if not any(
            line["kind"] in ("truncated", "damaged") and line["file"].endswith(name) for line in lines_of
        ):
            failures.append(f"{name}: nothing told of it: {dict(counts)}")
        told = _refused(lambda bad=bad: _prepare(bench, "truncated", bad, bad_input="fail"), name)
        failures += [told] * bool(told)
    return judged(f"{len(files)} kinds of files cut at two thirds",
                  "told with file and place; documents in front of the cut are kept, or refused under `fail`", failures,
                  documents_kept_of_3000=kept)  # fmt: skip


def broken_json(bench: Bench) -> Outcome:
    """F30."""
    bad = ['{"text": ', '{"no": 1}', '{"text": 5}', "[1]", '{"text": "a", "text": "b"}']
    lines = [json.dumps({"text": GOOD}), *bad, json.dumps({"text": GOOD})]
    counts, listed = _prepare(bench, "json", {"x.jsonl": "\n".join(lines).encode()})
    kinds = ["broken_json", "missing_field", "field_is_no_text", "not_an_object", "duplicate_field"]
    failures = _expect(counts, documents=2)
    if [(line["kind"], line["line"]) for line in listed] != list(zip(kinds, range(2, 7), strict=True)):
        failures.append(f"listed are {[(line['kind'], line['line']) for line in listed]}")
    return judged("5 bad lines of JSON", "each listed with its kind and line; the others are read", failures)


def ids(bench: Bench) -> Outcome:
    """F31, F32, F33."""
    from t5x_like import config

    run = tiny.make(bench.data)
    failures = []
    small = dataclasses.replace(run.model, vocab_size=128)
    made = Batches(run.data, run.objective, 8, 0)
    told = _refused(lambda: run.objective.check(small, made.vocabulary), "128 rows", "500")
    failures += [told] * bool(told)
    folder = bench.new("ids")
    shutil.copytree(bench.data, folder)
    (shard,) = folder.glob("train-*.tokens")
    shard.write_bytes(b"\xff\xff" * (shard.stat().st_size // 2))
    wrong = Batches(Data(sources=(Source(path=str(folder)),)), run.objective, 8, 0)
    told = _refused(lambda: wrong(0), "a token id of 65535")
    failures += [told] * bool(told)
    told = _refused(lambda: config.load("bert/tiny", ["model.max_positions=32"]), "32 positions", "128")
    failures += [told] * bool(told)
    return judged("a table smaller than the tokenizer; ids out of range; rows longer than positions",
                  "each refused before it reaches the model, with both numbers", failures)  # fmt: skip


def killed_worker(bench: Bench) -> Outcome:
    """F37."""
    run = tiny.make(bench.data)
    with prefetch(Batches(run.data, run.objective, 64, 0), 0, 10**6, workers=1, depth=1) as stream:
        next(stream)
        os.kill(stream.processes[0].pid or 0, signal.SIGKILL)
        since = time.monotonic()
        told = _refused(lambda: [next(stream) for _ in range(10_000)], "data worker 0 of 1", "SIGKILL")
        seconds = time.monotonic() - since
    failures = [told] * bool(told) + ([] if seconds < 10 else [f"{seconds:.0f} s until it was told"])
    return judged("a data worker killed, as for lack of memory", f"named after {seconds:.1f} s", failures,
                  seconds=seconds)  # fmt: skip


ROWS = (
    ("F19", "data changed under a run", changed),
    ("F24", "invalid UTF-8", bad_utf8),
    ("F25", "BOM, CR, U+2028, NUL", odd_characters),
    ("F26", "a line of 100 MB", huge_line),
    ("F27", "empty files, nothing usable", nothing_there),
    ("F28", "tokens cut or removed in mid-epoch", cut_in_use),
    ("F29", "truncated files", truncated),
    ("F30", "broken lines of JSON", broken_json),
    ("F31", "tokenizer, ids (F32), positions (F33) that do not fit", ids),
    ("F37", "a data worker killed", killed_worker),
)
"""Number, title, what injects and judges."""
