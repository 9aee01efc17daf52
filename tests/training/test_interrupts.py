"""Told to stop, a run saves and leaves, or leaves at once. Kills are in tests/faulting."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tiny_run import make

from t5x_like import config
from t5x_like.errors import Exit


def start(run_json, workdir, cache):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(cache),
        "T5X_LIKE_NO_REEXEC": "1",
    }
    command = [sys.executable, "-m", "t5x_like.train", f"--config={run_json}", f"--workdir={workdir}"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_ctrl_c_saves_and_a_second_one_leaves_at_once(tmp_path):
    """F03, F05, and U14 of a whole run: no control character where there is no terminal."""
    run_json = tmp_path / "config.json"
    run_json.write_text(config.to_json(make(tmp_path / "data", steps=1_000_000)))
    process = start(run_json, tmp_path / "run", tmp_path)
    while lines(tmp_path / "run") < 3 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == Exit.INTERRUPTED and "SIGINT: stopped at step" in out, out
    assert not set(map(chr, range(32))) - {"\n"} & set(out)

    process = start(run_json, tmp_path / "run", tmp_path)
    while "resuming" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(timeout=60) == Exit.INTERRUPTED
    assert time.monotonic() - began < 30
