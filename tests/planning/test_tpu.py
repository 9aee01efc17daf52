"""The TPU's own compiler, where it is installed: a tiny run on a slice that is not there."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from launch import xla_flags

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed (make test-tpu installs it)",
    ),
]


def plan(*flags, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "t5x_like.plan", *flags, "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_tiny_run_is_compiled_for_two_slices():
    tpu = [f for s in xla_flags.SETS.values() if s.variable == "LIBTPU_INIT_ARGS" for f in s.flags]
    flags = ["--config=t5/small:debug", "--topology=v5e:2x2*2", "--set=mesh.fsdp=2"]
    found = plan(*flags, LIBTPU_INIT_ARGS=" ".join(tpu))  # which also shows that libtpu knows them
    (stage,) = found["stages"]
    assert stage["how"] == "compiled" and stage["compiler"].startswith("libtpu") and stage["fits"]
    assert found["devices"] == 8
    assert stage["flops"] * 8 == pytest.approx(stage["model_flops"], rel=0.05)
    assert stage["times"]["network"] > 0 and stage["unknown_loops"] == 0


def test_a_run_that_does_not_fit_is_refused_by_the_compiler_itself():
    found = plan("--config=t5/base", "--topology=v5e:2x2", "--set=model.attention=einsum")
    (stage,) = found["stages"]
    assert not stage["fits"] and stage["needed"] > stage["available"]
