"""F07: a process that gets no further ends, and shows where it stood."""

import os
import subprocess
import sys
import time
import types

import pytest

from t5x_like.errors import Exit
from t5x_like.training import watchdog
from t5x_like.training.watchdog import Watchdog

STALL = """
import pathlib, sys, time
from t5x_like.training.watchdog import Watchdog
def hanging(): {how}
with Watchdog(0.5, pathlib.Path(sys.argv[1]), "process 1 of 2") as watchdog:
    watchdog.beat("step 12")
    hanging()
"""


def stall(how, log):
    code = STALL.format(how=how)
    return subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True, timeout=120)


def test_a_stall_is_told_with_all_stacks_and_ends(tmp_path):
    out = stall("time.sleep(600)", tmp_path / "log.txt")
    assert out.returncode == Exit.INTERRUPTED
    assert "process 1 of 2 on " in out.stderr and "has got no further" in out.stderr
    assert "in hanging" in (tmp_path / "log.txt").read_text()


def test_an_interpreter_that_is_stuck_ends_as_well(tmp_path):
    # A C call that does not let other threads run, as a deadlocked extension.
    out = stall("import ctypes; ctypes.PyDLL(None).sleep(600)", tmp_path / "log.txt")
    assert out.returncode == 1 and "Timeout" in (tmp_path / "log.txt").read_text()
    assert "in hanging" in (tmp_path / "log.txt").read_text()


def test_a_run_that_gets_on_is_left_alone(tmp_path):
    with Watchdog(2.0, tmp_path / "log.txt") as watchdog:
        for _ in range(6):
            time.sleep(0.5)
            watchdog.beat("step")
    with Watchdog(0, tmp_path / "log.txt"):
        pass
    assert (tmp_path / "log.txt").read_text() == ""


@pytest.mark.parametrize(
    ("steps", "beats", "ends"),
    [
        ([1, 1, 1, 1, 1], False, True),
        ([1, 1, 100], False, False),
        ([1, 100, 1, 1, 1, 1], False, True),
        ([1, 100, 1, 1, 1, 1], True, True),
    ],
)
def test_the_time_for_which_the_process_was_itself_stopped_does_not_count(
    steps, beats, ends, tmp_path, monkeypatch
):
    """`beats`: the main thread goes on first, and tells so."""
    now, left = [0.0], iter(steps)

    class Ticks:
        def wait(self, interval):
            assert interval == 1.0
            step = next(left, None)
            now[0] += step or 0
            if beats and step == 100:
                dog.beat("at work again")
            return step is None

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(watchdog, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(watchdog, "faulthandler", types.SimpleNamespace(
        dump_traceback_later=lambda *_, **__: None, dump_traceback=lambda **_: None))  # fmt: skip
    monkeypatch.setattr(os, "_exit", leave)
    dog = Watchdog(4.0, tmp_path / "log.txt")
    dog._stop = Ticks()
    if ends:
        with pytest.raises(SystemExit) as end:
            dog._watch()
        assert end.value.code == Exit.INTERRUPTED
    else:
        dog._watch()
    assert ("has got no further" in (tmp_path / "log.txt").read_text()) == ends
