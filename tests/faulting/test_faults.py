"""A few rows of the fault battery with few trials; `python -m t5x_like.faults` runs all of them with many."""

import json
import sys

import pytest

from t5x_like import faults
from t5x_like.errors import Exit, UserError
from t5x_like.faulting import battery, damage, disks, kills
from t5x_like.faulting.report import judged
from t5x_like.faulting.trials import Bench

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills, mounts and forks as Linux has them")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults") / "bench")


def holds(outcome):
    if outcome.verdict == "skipped":
        pytest.skip(outcome.outcome)
    assert outcome.verdict == "holds", outcome.figures


@pytest.mark.slow
def test_random_kills(bench):
    """F01."""
    holds(kills.random_kills(bench, 3, seed=5, steps=30))


@pytest.mark.slow
def test_ended_at_stages_of_a_commit(bench):
    """F02, F36."""
    holds(kills.failpoints(bench, ["checkpoint.commit", "checkpoint.pruning"], visits=(2,)))


@pytest.mark.slow
def test_a_disk_that_is_full(bench):
    """F08."""
    holds(disks.full_at_save(bench))


@pytest.mark.slow
def test_bits_flipped_in_every_file(bench):
    """F12, and that what was flipped is put aside by the command."""
    holds(damage.every_file(bench, ("bits flipped",)))


def test_a_row_that_fails_is_told(monkeypatch, tmp_path, capsys):
    rows = [
        battery.Fault("F98", "good", lambda bench: judged("a", "b | c", [], count=3)),
        battery.Fault("F99", "bad", lambda bench: 1 / 0),
    ]
    monkeypatch.setattr(battery, "battery", lambda trials, processes: rows)
    faults.FLAGS(["faults", f"--output={tmp_path}"])
    assert faults.main([]) == Exit.INTERNAL
    found = json.loads((tmp_path / "faults.json").read_text())
    assert [row["verdict"] for row in found] == ["holds", "fails"] and found[0]["figures"] == {"count": 3}
    assert "ZeroDivisionError" in found[1]["outcome"]
    assert r"| F98 | good | a | b \| c | holds |" in (tmp_path / "faults.md").read_text()

    rows[1] = battery.Fault("F99", "good now", lambda bench: judged("a", "b", []))
    faults.FLAGS(["faults", f"--output={tmp_path}", "--only=F99"])
    assert faults.main([]) == Exit.DONE
    found = json.loads((tmp_path / "faults.json").read_text())
    assert [(row["id"], row["verdict"]) for row in found] == [("F98", "holds"), ("F99", "holds")]
    (tmp_path / "faults.json").write_text("[1]")
    with pytest.raises(UserError, match="no table of faults"):
        faults.main([])


def test_ids_are_unique_and_in_order():
    numbers = [fault.number for fault in battery.battery(1, 2)]
    assert numbers == sorted(set(numbers)) and len(numbers) > len(battery.battery(1, 1))
