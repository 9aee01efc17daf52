"""Compilers that die, and commands that are told to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t5x_like.errors import Exit, UserError
from t5x_like.planning import environment


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An interpreter that does what the test wants in place of planning."""

    def make(body):
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    before = signal.getsignal(signal.SIGTERM)
    yield make
    signal.signal(signal.SIGTERM, before)


def test_a_compiler_that_dies_ends_in_words(stand_in):
    stand_in(
        "print('*** SIGSEGV STACK OVERFLOW ***', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    with pytest.raises(UserError) as refusal:
        environment.in_child(["--config=t5/base"])
    assert "the compiler died (SIGSEGV): SIGSEGV STACK OVERFLOW" in refusal.value.what
    assert refusal.value.code == Exit.INTERNAL


def test_a_flag_that_the_compiler_does_not_know_is_told(stand_in):
    stand_in("sys.exit(\"ERROR: Unknown command line flag 'xla_no_such_flag'\")")
    with pytest.raises(UserError, match="Unknown command line flag 'xla_no_such_flag'") as refusal:
        environment.in_child([])
    assert refusal.value.where == "LIBTPU_INIT_ARGS"


def test_exit_code_words_and_arguments_pass_through(stand_in, capfd):
    stand_in(
        "print(sys.argv[1:], os.environ['T5X_LIKE_PLAN_CHILD']); print('error', file=sys.stderr); sys.exit(64)"
    )
    assert environment.in_child(["--config=a b"]) == 64
    said = capfd.readouterr()
    assert "['-m', 't5x_like.plan', '--config=a b'] 1" in said.out and said.err == "error\n"


def test_nothing_compiles_on_when_the_command_is_told_to_end(tmp_path):
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    python.chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(python)!r}\n"
        "from t5x_like.planning import environment; environment.in_child([])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    child = int(started.read_text())
    parent.terminate()
    assert parent.wait(timeout=60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
