"""F01: killed at any moment, a run resumes to the same losses, bit for bit. Each trial is a process of its own."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tiny_run import make

from t5x_like import config
from t5x_like.errors import Exit
from t5x_like.training import metrics, restore

TIMES = ("step_seconds", "tokens_per_second", "model_flops_per_second", "data_wait")
KILLS = 3


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
def test_killed_at_random_moments(tmp_path):
    run_json = tmp_path / "config.json"
    run_json.write_text(config.to_json(make(tmp_path / "data", steps=60)))
    reference = start(run_json, tmp_path / "reference", tmp_path)
    assert reference.wait(timeout=300) == Exit.DONE, reference.stdout.read()

    workdir, rng = tmp_path / "killed", random.Random(7)
    for _ in range(KILLS):
        process, before = start(run_json, workdir, tmp_path), lines(workdir)
        deadline = time.monotonic() + 120
        while lines(workdir) < before + 8 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start(run_json, workdir, tmp_path)
    out = last.communicate(timeout=300)[0]
    assert last.returncode == Exit.DONE and "resuming step" in out, out

    kept = [
        [
            {k: v for k, v in line.items() if k not in TIMES}
            for line in metrics.read(tmp_path / name / "metrics.jsonl")
            if line["kind"] != "time"
        ]
        for name in ("killed", "reference")
    ]
    assert kept[0] == kept[1]
    both = [restore.restore_params(tmp_path / name)[1] for name in ("killed", "reference")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    events = [json.loads(line)["event"] for line in (workdir / "events.jsonl").read_text().splitlines()]
    events = [event for event in events if event != "clock"]
    assert events.count("resumed") >= 1 and events[-1] == "done"


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
