"""The report: complete, self-contained, small, and safe against what stands in the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t5x_like import config, reporting
from t5x_like.errors import UserError

HOSTILE = "<script>alert(1)</script> \x1b[31mred\x1b[0m & <extra_id_0> end"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(config.to_json(config.load("t5/tiny")))
    lines = [
        {"step": s, "kind": "train", "loss": 6 - s / 100, "cross_entropy": 6 - s / 100, "tokens_per_second": 1000.0 + s,
         "tokens_seen": 100 * s} for s in range(10, 110, 10)
    ]  # fmt: skip
    lines += [
        {"step": s, "kind": "eval", "loss": 6 - s / 110, "cross_entropy": 6 - s / 110} for s in (50, 100)
    ]
    lines += [
        {**lines[3], "loss": 1.0, "cross_entropy": 1.0}
    ]  # written again after a kill: the last one counts
    text = "\n".join(json.dumps(x) for x in lines) + '\n{"step": 110, "kind": "tra'  # and a torn last line
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "evaluation.json").write_text(
        json.dumps({"loss": 5.01, "cross_entropy": 5.0, "unigram_entropy": 6.25, "accuracy": 0.25})
    )
    (tmp_path / "samples.jsonl").write_text(
        json.dumps({"inputs": HOSTILE, "spans": ["<b>x</b>"], "originals": ["\x1b[2Jy"]}) + "\n"
    )
    return tmp_path


def test_report(run_dir: Path) -> None:
    figures = reporting.write(run_dir, run_dir / "report.html", run_dir / "curve.png")
    assert figures["gain"] == pytest.approx(1.25) and figures["loss"] == 5.0
    page = (run_dir / "report.html").read_text()
    assert "better than unigram by" in page and "1.250 nats" in page and "6.250" in page
    assert "<svg" in page and len(page) < 2_000_000
    assert "<script" not in page and "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page and "<mark>&lt;b&gt;x&lt;/b&gt;</mark>" in page
    for outside in ("<link", "<img", "url(http", "src="):
        assert outside not in page, "the page must open offline"
    assert (run_dir / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_repeated_step_counts_once_and_a_torn_line_is_passed_over(run_dir: Path) -> None:
    metrics = reporting.read_metrics(run_dir)
    assert [r["step"] for r in metrics["train"]] == list(range(10, 110, 10))
    assert metrics["train"][3]["loss"] == 1.0


def test_a_run_that_has_only_begun(run_dir: Path) -> None:
    for name in ("evaluation.json", "samples.jsonl"):
        (run_dir / name).unlink()
    (run_dir / "metrics.jsonl").write_text("")
    figures = reporting.write(run_dir, run_dir / "report.html")
    assert figures["loss"] is None and figures["gain"] is None


def test_what_cannot_be_reported(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        (run_dir / "metrics.jsonl").unlink()
        reporting.write(run_dir, run_dir / "report.html")


def test_a_discriminators_report(run_dir: Path) -> None:
    lines = [
        {"step": s, "kind": kind, "loss": 20.0, "cross_entropy": 6.0, "detection": 0.3, "detection_precision": 0.5,
         "detection_recall": 0.25, "replaced": 0.1} for s in (10, 20) for kind in ("train", "eval")
    ]  # fmt: skip
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_dir / "evaluation.json").write_text(json.dumps({**lines[-1], "unigram_entropy": 6.5}))
    words = [
        {"text": t, "probability": p} for t, p in (("<b>a", 0.9), ("ship", 0.8), ("of", 0.1), ("rain", 0.2))
    ]
    sample = {"inputs": "<b>a ship of rain", "swapped": {"1": "mast", "3": "<i>sun"}, "words": words}
    (run_dir / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    figures = reporting.write(run_dir, run_dir / "report.html")
    assert (figures["swapped"], figures["found"], figures["chance"]) == (2, 1, 1.0)
    headline = reporting.headline(figures)
    assert "0.500 nats better" in headline and "25.0% found, 50.0% of the alarms right" in headline
    assert "of 2 swapped words 1 are among the most suspected (1.0 by chance)" in headline
    page = (run_dir / "report.html").read_text()
    assert '<mark title="80%">ship</mark>' in page and '<u title="20%">rain</u>' in page
    assert '<mark class=wrong title="90%">&lt;b&gt;a</mark>' in page
    assert "rain for &lt;i&gt;sun" in page and "<b>" not in page and "<i>" not in page
    for drawn in ("detection precision", "nats per token", "25.0%"):
        assert drawn in page


def test_masks_are_filled_with_their_candidates(run_dir: Path) -> None:
    blanks = [[{"text": t, "probability": p} for t, p in (("mast", 0.5), ("sea", 0.25))]] * 2
    sample = {"inputs": "the [MASK] of a <mask>", "blanks": blanks, "originals": ["sun", "ship"]}
    (run_dir / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    reporting.write(run_dir, run_dir / "report.html")
    page = (run_dir / "report.html").read_text()
    assert page.count('<mark title="mast 50%, sea 25%">mast</mark>') == 2
    assert "the <mark>sun</mark> of a <mark>ship</mark>" in page


def test_torn_samples_are_named(run_dir: Path) -> None:
    (run_dir / "samples.jsonl").write_text('{"inputs": ')
    with pytest.raises(UserError, match=r"cannot read samples\.jsonl"):
        reporting.write(run_dir, run_dir / "report.html")
