"""Prefetching: the same batches for any number of workers; failures are told; nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import Echo, Failing, dataset

from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.prefetch import WorkerError, prefetch
from t5x_like.errors import Exit, UserError


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Data:
    path = tmp_path_factory.mktemp("data") / "a"
    dataset(path)
    return Data(sources=(Source(path=str(path)),))


def test_the_same_batches_for_any_number_of_workers(settings):
    batches = Batches(settings, Echo(), 8, 0)
    rows = slice(2, 7)
    for workers in (0, 1, 3):
        with prefetch(batches, 5, 13, rows, workers=workers) as stream:
            steps = []
            for step, batch in stream:
                steps.append(step)
                expected = batches(step, rows)
                assert batch.keys() == expected.keys()
                for name, values in expected.items():
                    assert batch[name].dtype == values.dtype
                    np.testing.assert_array_equal(batch[name], values)
                    assert batch[name].flags.writeable
            assert steps == list(range(5, 13))
        assert not any(p.is_alive() for p in stream.processes)


def test_no_steps_and_reading_on_after_the_end(settings):
    batches = Batches(settings, Echo(), 8, 0)
    with prefetch(batches, 3, 3) as stream:
        assert list(stream) == []
        assert list(stream) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_through(settings, workers):
    with pytest.raises((WorkerError, RuntimeError), match="the objective fell over"):
        list(prefetch(Batches(settings, Failing(), 8, 0), 0, 4, workers=workers))
    with pytest.raises(UserError, match="no such thing") as caught:
        list(prefetch(Batches(settings, Failing(how="user"), 8, 0), 0, 4, workers=workers))
    assert (caught.value.where, caught.value.help, caught.value.code) == ("here", "try that", Exit.BAD_DATA)


def test_a_killed_worker_is_named_at_once(settings):
    batches = Batches(settings, Echo(), 8, 0)
    with prefetch(batches, 0, 10**6, workers=2, depth=1) as stream:
        for _ in range(4):
            next(stream)
        killed = stream.processes[1]
        os.kill(killed.pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"data worker 1 of 2 \(process {killed.pid}\).*SIGKILL"):
            for _ in range(1000):  # what the pipe still holds (64 KB) is read first
                next(stream)
        assert time.monotonic() - start < 5
        assert not any(p.is_alive() for p in stream.processes)


def test_it_runs_ahead_no_further_than_its_depth(settings):
    made = []

    class Counting(Batches):
        def __call__(self, step, rows=None):
            made.append(step)
            return super().__call__(step, rows)

    with prefetch(Counting(settings, Echo(), 8, 0), 0, 100, depth=3) as stream:
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert made == [0, 1, 2, 3]  # three in the queue and one in hand
        next(stream)
    assert threading.active_count() < 10 and not [t for t in threading.enumerate() if t.name == "prefetch"]


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, "forgotten"])
def test_no_process_outlives_the_trainer(settings, how, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        from t5x_like.data.batches import Batches, Data, Source
        from t5x_like.data.prefetch import prefetch
        from tiny_dataset import Echo

        def main():
            batches = Batches(Data(sources=(Source(path=sys.argv[1]),)), Echo(), 8, 0)
            stream = prefetch(batches, 0, 10**9, workers=2)
            next(stream)
            print(*[p.pid for p in stream.processes], flush=True)
            if sys.argv[2] != "forgotten":
                with stream:
                    for _ in stream:
                        time.sleep(0.01)

        if __name__ == "__main__":
            main()
        """)
    )
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        [sys.executable, str(program), settings.sources[0].path, str(how)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": f"{root}:{root.parent}"},
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(p) for p in process.stdout.readline().split()]
    assert len(pids) == 2
    if how != "forgotten":
        assert all(map(_alive, pids))
    if how == signal.SIGINT:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    elif how == signal.SIGKILL:
        process.kill()
    _, errors = process.communicate(timeout=20)
    assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0), errors  # of the trainer alone
    deadline = time.monotonic() + 10
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, pids))
