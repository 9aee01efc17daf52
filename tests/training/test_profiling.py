"""A profile on request, and the account of time of a real run: in events, metrics, the last words and the report."""

import gzip
import json
import signal

import jax
import pytest
from tiny_run import compiled_programs, make, one_device

from t5x_like import reporting
from t5x_like.errors import Exit, UserError
from t5x_like.training import metrics, profiling
from t5x_like.training.goodput import account
from t5x_like.training.loop import train
from t5x_like.training.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 12 steps in two processes' worth of calls, the second one profiled; and what was printed."""
    folder = tmp_path_factory.mktemp("profiled")
    with one_device(), compiled_programs(folder / "compiled"):
        data = folder / "data"
        assert train(make(data, steps=6), str(folder / "run")) == Exit.DONE
        with pytest.raises(UserError, match="steps 3 to 4 are not done: the run goes from 6 to 12"):
            train(make(data), str(folder / "run"), profile=range(3, 5))
        assert train(make(data), str(folder / "run"), profile=range(8, 10)) == Exit.DONE
    return folder / "run"


def test_the_trace_is_of_the_steps_that_were_asked_for(run):
    (trace,) = (run / "profile").rglob("*.trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "train" in names
    (planes,) = (run / "profile").rglob("*.xplane.pb")
    steps = []
    for plane in jax.profiler.ProfileData.from_file(str(planes)).planes:
        for line in plane.lines:
            steps += [dict(e.stats)["step_num"] for e in line.events if e.name == "train"]
    assert sorted(map(int, steps)) == [8, 9]


def test_every_second_is_accounted_for(run):
    events = RunDir(run).events()
    clocks = [event for event in events if event["event"] == "clock"]
    found = account(events)
    last = clocks[-1]
    assert found.processes == 2 and found.seconds["lost"] == 0
    assert found.wall == pytest.approx(last["began"] + sum(last["seconds"].values()) - clocks[0]["began"])
    for kind in ("train", "start", "compile", "checkpoint", "evaluation"):
        assert found.seconds[kind] > 0, kind
    lines = [line for line in metrics.read(run / "metrics.jsonl") if line["kind"] == "time"]
    assert lines[-1]["goodput"] == pytest.approx(found.goodput, abs=0.01)
    assert lines[-1]["wall_seconds"] == pytest.approx(found.wall, rel=0.05)


def test_the_report_says_where_the_time_went(run):
    reporting.write(run, run / "report.html")
    page = (run / "report.html").read_text()
    assert "Where the time went" in page and "work done again after a restart" in page


def test_the_last_words(run, tmp_path, capsys):
    with one_device(), compiled_programs(run.parent / "compiled"):
        train(make(run.parent / "data", steps=6), str(tmp_path / "run"), profile=range(4, 100))
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("time ")]
    assert "train" in line and "%" in line and "compile" in line
    assert "profile of the steps from 4 on: tensorboard --logdir=" in out, "the end of the run ends the trace"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    "text, steps", [("100-110", range(100, 111)), (" 7 ", range(7, 8)), (None, range(0))]
)
def test_steps_as_they_are_written(text, steps):
    assert profiling.parse(text) == steps


@pytest.mark.parametrize("text", ["", "a", "10-5", "-3", "1-2-3", "0-5000", "1.5"])
def test_what_is_no_range_of_steps(text):
    with pytest.raises(UserError, match="such as 100-110"):
        profiling.parse(text)
