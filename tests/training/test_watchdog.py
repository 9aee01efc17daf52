"""F07: a process that gets no further ends, and shows where it stood."""

import subprocess
import sys
import time

from t5x_like.errors import Exit
from t5x_like.training.watchdog import Watchdog

STALL = """
import pathlib, sys, time
from t5x_like.training.watchdog import Watchdog
def hanging(): {how}
with Watchdog(0.5, pathlib.Path(sys.argv[1]), "process 1 of 2", lambda: "process 0 answers") as watchdog:
    watchdog.beat("step 12")
    hanging()
"""


def stall(how, log):
    code = STALL.format(how=how)
    return subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True, timeout=120)


def test_a_stall_is_told_with_all_stacks_and_ends(tmp_path):
    out = stall("time.sleep(600)", tmp_path / "log.txt")
    assert out.returncode == Exit.INTERRUPTED
    assert "process 1 of 2 on " in out.stderr and "step 12; process 0 answers" in out.stderr
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
