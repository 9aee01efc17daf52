"""The page of a race, from plain data."""

from __future__ import annotations

from typing import Any

import pytest

from t5x_like import race_report


def result(
    contestant: str, step: int, value: float, seed: int = 0, method: str = "finetune"
) -> dict[str, Any]:
    return {
        "contestant": contestant, "pretraining_seed": 0, "step": step, "point": step, "flops": step * 10.0,
        "tokens": step * 8, "task": "t", "method": method, "seed": seed, "metric": "accuracy", "value": value,
        "seconds": 1.0,
    }  # fmt: skip


def race(results: list[dict[str, Any]]) -> dict[str, Any]:
    share = {
        "steps": 4, "formula_flops": 10.0, "compiled_flops": 12.0, "step_seconds": None, "tokens": 8,
        "parameters": 5, "encoder_parameters": 4, "model": "Encoder", "objective": "<masks>", "config": "a = 1",
    }  # fmt: skip
    curves = [
        {"contestant": name, "pretraining_seed": 0, "flops": 10.0 * s, "kind": kind, "step": s, "loss": 5.0 - s}
        for name in ("slow", "fast") for s in (1, 2) for kind in ("train", "eval")
    ]  # fmt: skip
    return {
        "name": "a <b> race", "budget": 40.0, "count": "formula", "points": 4, "tasks": ["t"], "finetune": {},
        "contestants": {"slow": {**share, "differs": ""}, "fast": {**share, "differs": "lr: 1 -> 2"}},
        "results": results, "curves": curves,
    }  # fmt: skip


RESULTS = [
    *(result("slow", s, 0.5 + 0.1 * s / 4) for s in (0, 2, 4)),
    *(result("fast", s, 0.5 + 0.2 * s / 4) for s in (0, 2, 4)),
    result("fast", 4, 0.9, seed=1),
    result("fast", 4, 0.6, seed=2),
]


def test_a_band_is_the_median_and_the_range_over_seeds() -> None:
    found = race_report.chosen(race(RESULTS), contestant="fast")
    places, middle, low, high = race_report.band(found, "flops")
    assert places == [0.0, 20.0, 40.0]
    assert (middle[-1], low[-1], high[-1]) == (0.7, 0.6, 0.9)
    assert middle[1] == low[1] == high[1] == 0.6


def test_the_share_of_compute_is_read_off_the_curves() -> None:
    data = race(RESULTS)
    assert race_report.share_of_compute(data, "slow", "fast", "t", "finetune") == pytest.approx(0.5)
    assert race_report.share_of_compute(data, "fast", "slow", "t", "finetune") is None
    assert race_report.share_of_compute(data, "slow", "fast", "t", "probe") is None
    # between two points: 0.575 lies three quarters of the way from 0.5 (at 0) to 0.6 (at half of the budget)
    lower = [r for r in RESULTS if r["contestant"] == "fast" or r["step"] < 4] + [result("slow", 4, 0.575)]
    share = race_report.share_of_compute(race(lower), "slow", "fast", "t", "finetune")
    assert share == pytest.approx(0.375)


def test_the_summary_shows_median_range_and_number() -> None:
    rows = race_report.summary(race(RESULTS))
    assert rows[0][-2:] == ("slow", "fast")
    assert rows[1][:4] == ("t", "fine-tuned", "accuracy", "4 of 4")
    assert rows[1][-1] == "0.700 [0.600 to 0.900] n=3"
    assert len(rows) == 2  # nothing was probed
    assert race_report.spread([]) == "-"
    assert race_report.spread([0.5, None]) == "0.500 [0.500 to 0.500] n=1, 1 diverged"


def test_an_unfinished_race_compares_what_all_have_reached() -> None:
    late = [r for r in RESULTS if r["contestant"] == "slow" or r["step"] <= 2]
    rows = race_report.summary(race_report.comparable(race(late)))
    assert rows[1][3:] == ("2 of 4", "0.550 [0.550 to 0.550] n=1", "0.600 [0.600 to 0.600] n=1")
    alone = [r for r in RESULTS if r["contestant"] == "slow"]
    assert race_report.comparable(race(alone))["results"] == []


def test_the_page_is_whole_and_escaped() -> None:
    page = race_report.page(race(RESULTS), {"slow": "<iframe></iframe>"}, "It <was>\n\nclose.")
    assert page.startswith("<!doctype html>")
    assert "a &lt;b&gt; race" in page and "<p>It &lt;was&gt;</p><p>close.</p>" in page
    assert page.count("<svg") == 3  # fine-tuned over FLOPs and over tokens, and pretraining
    assert "lr: 1 -&gt; 2" in page and "<iframe></iframe>" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_a_race_that_has_not_begun_has_a_page_too() -> None:
    data = race([]) | {"curves": []}
    assert "At the last point" in race_report.page(data, {})
