"""Several processes: how they are found, that they train as one does, and that they stop together."""

import dataclasses
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xxhash
from tiny_run import MODEL, make, one_device

from launch import common, local
from t5x_like import config
from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.training import distributed, metrics
from t5x_like.training.checkpoints import Checkpoints, Store
from t5x_like.training.loop import train
from t5x_like.training.partitioning import Mesh
from t5x_like.training.run import Evaluation

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-4]", "SLURM_NTASKS": "4", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "8",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        (SLURM, "SLURM"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a shell inside an allocation, not a step of it
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "GKE"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "GKE"),
    ],
)
def test_the_cluster_is_known_by_its_environment(environ, found, tmp_path):
    assert distributed.detect(environ, tmp_path) == found


def test_an_environment_without_sense_is_refused(tmp_path):
    with pytest.raises(UserError, match="SLURM_NTASKS is 'x'"):
        distributed.detect(SLURM | {"SLURM_NTASKS": "x"}, tmp_path)
    with pytest.raises(UserError, match="MEGASCALE_NUM_SLICES is ''"):
        distributed.detect({"MEGASCALE_NUM_SLICES": ""}, tmp_path)


@pytest.mark.parametrize("chip", ["accel0", "vfio/0"])
def test_a_tpu_vm_is_known_by_its_chips(chip, tmp_path, monkeypatch):
    (tmp_path / chip).parent.mkdir(exist_ok=True)
    (tmp_path / chip).touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "libtpu" or None)
    assert distributed.detect({}, tmp_path) == "TPU VM"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert distributed.detect({}, tmp_path) is None


def test_one_task_a_node_takes_all_its_gpus():
    assert distributed._slurm_devices(SLURM) == list(range(8))
    assert distributed._slurm_devices(SLURM | {"SLURM_NTASKS": "32"}) is None  # one a GPU: JAX's own choice


@pytest.fixture
def initialized(monkeypatch):
    """What `jax.distributed.initialize` is called with, without doing it."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(jax.config, "update", lambda *setting: None)
    return calls


def test_connecting(initialized, monkeypatch):
    assert distributed.connect() is None and not initialized
    assert distributed.connect("auto", "localhost:8476", 2, 1) == "flags"
    (call,) = initialized
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == (
        "localhost:8476",
        2,
        1,
    )
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert distributed.connect() == "SLURM"
    assert initialized[1]["coordinator_address"] is None and initialized[1]["local_device_ids"] == list(
        range(8)
    )
    assert distributed.connect("off") is None and len(initialized) == 2


def test_a_process_that_is_alone_says_so_and_can_be_ended():
    waiting = (
        "from t5x_like.training import distributed\ndistributed.QUIET_SECONDS = 0.0\n"
        f"distributed.connect('auto', 'localhost:{local.free_port()}', 2, 1)"
    )
    alone = subprocess.Popen([sys.executable, "-c", waiting], stderr=subprocess.PIPE, text=True)
    assert alone.stderr is not None
    assert any("waiting for the other processes at localhost:" in line for line in alone.stderr)
    alone.send_signal(signal.SIGINT)
    assert alone.wait(timeout=100) == -signal.SIGINT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("auto", "localhost:8476", None, 1), "missing: --num_processes"),
        (("off", "localhost:8476", 2, 1), "leave --distributed=off out"),
        (("auto", "localhost", 2, 1), "'localhost' is no host:port"),
        (("auto", "localhost:8476", 2, 2), "no process 2 among 2"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, words, initialized):
    with pytest.raises(UserError) as refusal:
        distributed.connect(*arguments)
    assert words in str(refusal.value) and not initialized


def test_one_process_agrees_with_itself():
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    assert distributed.from_first(lambda: 7) == 7
    distributed.same("configuration", "x")
    with pytest.raises(ValueError, match="mine"), distributed.together():
        raise ValueError("mine")


def test_a_wish_is_heard_two_steps_later():
    wishes, heard = distributed.Wishes(), []
    for number in (0, 0, 15, 0, 0):
        wishes.tell(number)
        heard.append(wishes.heard())
    assert heard == [0, 0, 0, 15, 0]


ABORTS = {
    "by itself": "os.abort()",
    # What lies behind the block is the size of what is left of the heap: malloc finds it wrong with its lock in hand.
    "in malloc": "[(libc.memset(libc.malloc(60000), 65, 60100), libc.malloc(70000)) for _ in range(2000)]",
}


@pytest.mark.parametrize("how", [*ABORTS] if platform.libc_ver()[0] == "glibc" else ["by itself"])
def test_an_abort_of_jax_asks_for_a_restart_and_shows_the_stacks(how):
    """F06: how its coordination service tells of the loss of another process."""
    dying = (
        "import ctypes, os, sys, threading\nfrom t5x_like.training import distributed\n"
        "libc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "libc.malloc.argtypes = [ctypes.c_size_t]\n"
        "libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]\n"
        "distributed.runtime.global_state.num_processes = int(sys.argv[1])\n"
        "distributed._tell_of_aborts()\n"
        f"def waiting(): {ABORTS[how]}\n"
        "thread = threading.Thread(target=waiting)\nthread.start()\nthread.join()"
    )
    out = subprocess.run([sys.executable, "-c", dying, "2"], capture_output=True, text=True, timeout=300)
    assert out.returncode == Exit.INTERRUPTED and "in waiting" in out.stderr
    assert "error: another process of this run is lost, or this one cannot go on" in out.stderr
    alone = subprocess.run([sys.executable, "-c", dying, "1"], capture_output=True, text=True, timeout=300)
    assert alone.returncode == -signal.SIGABRT and "is lost" not in alone.stderr


# ---- launch/local.py --------------------------------------------------------------------------------------------


def test_local_prints_what_it_would_run(capsys):
    assert (
        local.main(["--processes=2", "--devices=4", "--dry_run", "--config=t5/small:debug", "--workdir=a b"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("'--workdir=a b'" in line and "--cpu_devices=4" in line for line in lines)
    assert "--num_processes=2" in lines[0] and lines[0].endswith("--process_id=0")
    assert lines[1].endswith("--process_id=1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes=two"], "--processes=2"),
        (["--processes=²"], "--processes=2"),
        (["--processes=100000"], "from 1 to 9999"),
        (["--proceses=2"], "did you mean --processes?"),
        (["--cpu_devices=4"], "--cpu_devices is given to each process by this program: --devices=4"),
        (["--process_id=1"], "--processes=2"),
        (["--workdir="], "lack --workdir"),
    ],
)
def test_local_refuses_before_it_starts_anything(flags, words, capsys):
    assert local.main(["--config=t5/small:debug", "--workdir=a", *flags]) == Exit.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([75, 75], 75), ([0, 75], 75), ([77, -6], 77), ([-6, 65], 65), ([-9, 0], 137)],
)
def test_the_exit_code_is_the_worst(codes, code):
    assert local.worst(codes) == code


def program(text):
    return [sys.executable, "-c", text]


def test_when_one_process_dies_the_others_are_stopped(capsys, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.1)
    programs = [program("raise SystemExit(65)"), program("import time; time.sleep(600)")]
    assert local.supervise(lambda: programs, 5) == 65
    assert "process 0 has failed (65); stopping the others" in capsys.readouterr().out


def test_signals_are_passed_on(capsys, tmp_path):
    ready = tmp_path / "ready"
    waiting = (
        "import pathlib, signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print('here', flush=True); "
        f"pathlib.Path({str(ready)!r}).touch(); signal.pause()"
    )
    sending = (
        "import os, pathlib, signal, time; signal.signal(15, signal.SIG_IGN)\n"
        f"while not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.01)\n"
        "os.kill(os.getppid(), signal.SIGTERM)"
    )
    assert (
        local.supervise(lambda: [program(waiting), program(sending)], 5) == 75
    )  # told to: not started again
    assert "0| here" in capsys.readouterr().out


def test_processes_that_ask_for_it_are_started_again(capsys):
    assert set(local.HOPELESS) == set(common.HOPELESS)
    codes = [75, 137, 0, 75]
    assert local.supervise(lambda: [program(f"raise SystemExit({codes.pop(0)})")], 5) == 0
    assert capsys.readouterr().out.count("starting again") == 2 and codes == [75]
    assert local.supervise(lambda: [program("raise SystemExit(75)")], 1) == 75
    assert capsys.readouterr().out.count("starting again") == 1


# ---- training ---------------------------------------------------------------------------------------------------


def losses(workdir):
    lines = metrics.read(workdir / "metrics.jsonl")
    return {(x["kind"], x["step"]): (x["loss"], x.get("tokens_seen")) for x in lines if "loss" in x}


@pytest.mark.slow
def test_one_device_then_eight_then_two_processes_then_four(tmp_path, capsys):
    """F17, F18: examples bit for bit, losses to 2e-5. And the SIGTERM of one process of two: both stop at one step."""
    workdir, run = tmp_path / "run", make(
        tmp_path / "data", evaluation=Evaluation(every=4, batches=2), checkpoints=Checkpoints(every=4),
        model=dataclasses.replace(MODEL, scan_layers=True),
    )  # fmt: skip
    with one_device():
        assert train(dataclasses.replace(run, steps=20), str(tmp_path / "undisturbed")) == Exit.DONE
        assert train(dataclasses.replace(run, steps=4), str(workdir)) == Exit.DONE
    eight = dataclasses.replace(run, mesh=Mesh(data=2, fsdp=2, tensor=2))
    assert train(dataclasses.replace(eight, steps=8), str(workdir)) == Exit.DONE
    capsys.readouterr()

    two = dataclasses.replace(run, steps=1000, mesh=Mesh(data=-1, fsdp=2))
    (tmp_path / "two.json").write_text(config.to_json(two))
    flags = [f"--config={tmp_path / 'two.json'}", f"--workdir={workdir}"]
    programs = []
    script = str(Path(__file__).with_name("counting_train.py"))
    for number, command in enumerate(local.commands(2, 4, f"localhost:{local.free_port()}", flags)):
        module = command.index("-m")
        command[module : module + 2] = [
            script,
            str(tmp_path / f"made{number}.json"),
            "14" if number == 1 else "-1",
        ]
        programs.append(command)
    code, _ = local.run(programs)
    out = capsys.readouterr().out
    assert code == Exit.INTERRUPTED, out
    stopped = Store(workdir / "checkpoints").find("latest").step
    assert 11 <= stopped <= 16 and f"0| SIGTERM: stopped at step {stopped} of 1000" in out, out
    assert "2 processes" in out and "1| run " not in out, "the first alone speaks"

    batches = Batches(run.data, run.objective, run.batch_size, run.seed)
    made = [json.loads((tmp_path / f"made{number}.json").read_text()) for number in range(2)]
    half = run.batch_size // 2
    for number, rows in enumerate(made):
        mine = set(range(number * half, (number + 1) * half))
        assert {int(name.split(":")[1]) for name in rows} == mine, "each process makes its own rows alone"
        for name, checksum in rows.items():
            step, row = map(int, name.split(":"))
            wanted = batches(step, slice(row, row + 1))
            assert xxhash.xxh3_64_hexdigest(b"".join(x[0].tobytes() for x in wanted.values())) == checksum
        assert set(range(8, stopped)) <= {int(name.split(":")[0]) for name in rows}

    four = dataclasses.replace(run, steps=20, mesh=Mesh(data=2, tensor=2))
    build = Mesh.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mesh, "build", lambda mesh: build(mesh, jax.devices()[:4]))
        assert train(four, str(workdir)) == Exit.DONE
    found, wanted = losses(workdir), losses(tmp_path / "undisturbed")
    found.pop(("eval", stopped), None)  # saved off the beat, and measured there
    wanted = {key: wanted[key] for key in found}
    assert {step for kind, step in found if kind == "train"} == set(range(1, 21))
    for key, (loss, tokens) in found.items():
        np.testing.assert_allclose(loss, wanted[key][0], rtol=2e-5, err_msg=str(key))
        assert tokens == wanted[key][1], key
