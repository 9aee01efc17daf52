"""F37: a worker of `prepare` that is killed, as for lack of memory, is named at once and never waited for."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from t5x_like.data.prepare_report import Progress
from t5x_like.data.workers import Piece, Pool
from t5x_like.errors import Exit, UserError


def work_for_long(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)


def test_a_killed_worker_is_told_of_at_once(tmp_path):
    path, killed = tmp_path / "pid", []

    def kill() -> None:
        while not (path.exists() and (text := path.read_text())):
            time.sleep(0.01)
        killed.append(time.monotonic())
        os.kill(int(text), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    pieces = [Piece((str(path),), 1), Piece((str(tmp_path / "other"),), 1)]
    with pytest.raises(UserError, match="a worker process died") as caught, Pool(2) as pool:
        pool.run(work_for_long, pieces, Progress(2, quiet=True))
    assert time.monotonic() - killed[0] < 10
    assert caught.value.code == Exit.IO_ERROR and "continues where it stopped" in str(caught.value)
