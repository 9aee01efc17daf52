"""TPU VMs: what a dry run prints, and the whole way with a stand-in for gcloud that runs the commands it is sent."""

import shlex
import subprocess
import sys
import threading

import pytest
import stand_ins

from launch import tpu_vm
from t5x_like.errors import UserError
from t5x_like.planning import topologies

AWKWARD = '--set=name=it\'s a "run"; $(touch hacked) `id` \\ & é'


@pytest.fixture
def cloud(tmp_path):
    def begin(fates, *flags, train=()):
        folder, workdir = tmp_path / "bin", tmp_path / "share" / "run"
        environment = stand_ins.make(folder, fates)
        done = stand_ins.launch(
            "tpu_vm", "--action=keep", "--name=a", "--zone=us-west4-a", "--topology=v5e:4x4", "--spot", "--poll=0",
            f"--logs={tmp_path / 'logs'}", *flags, "--", "--config=t5/base", f"--workdir={workdir}", *train,
            environment=environment,
        )  # fmt: skip
        return done, folder, workdir

    return begin


def verbs(folder):
    return [
        next(a for a in arguments if a in ("create", "describe", "delete", "ssh", "scp"))
        for arguments in stand_ins.calls(folder, "gcloud")
    ]


def test_a_preempted_run_goes_on_in_the_same_directory_on_a_new_slice(cloud, tmp_path):
    done, folder, workdir = cloud(["preempted", "75", "done"], train=[AWKWARD])
    assert done.returncode == 0, done.stderr
    # The first slice was lost and deleted, the second was kept over the restart, and deleted at the end.
    assert verbs(folder).count("create") == 2
    assert verbs(folder).count("delete") == 2
    setups = [c for c in stand_ins.calls(folder, "python3.11") if c[:2] == ["-m", "venv"]]
    assert len(setups) == 2
    trained = [c for c in stand_ins.calls(folder, "python") if c[:2] == ["-m", "t5x_like.train"]]
    assert trained == [["-m", "t5x_like.train", "--config=t5/base", f"--workdir={workdir}", AWKWARD]] * 3
    assert not list(tmp_path.rglob("hacked"))
    said = [line for line in done.stdout.splitlines() if line.startswith("training went")]
    assert [line.split()[4] for line in said] == ["0", "100", "200"]
    assert "restart 2 of at most 100" in done.stdout
    # What was logged on the slice that lived: the two later turns.
    log = (tmp_path / "logs" / "a-0-0.log").read_text()
    assert "from step 100 and was 75" in log and "from step 200 and was done" in log


def test_a_run_that_would_stop_again_is_not_begun_again(cloud):
    done, folder, _ = cloud(["65"])
    assert done.returncode == 65
    assert verbs(folder).count("create") == 1 and verbs(folder)[-1] == "delete"


def test_a_run_that_training_refuses_to_begin_again_is_stopped(cloud):
    done, folder, _ = cloud(["134 nowhere", "1 nowhere", "70 nowhere", "done"])
    assert done.returncode == 70
    trained = [c for c in stand_ins.calls(folder, "python") if c[:2] == ["-m", "t5x_like.train"]]
    assert len(trained) == 3  # crashes are begun again, a refusal is not
    assert verbs(folder).count("create") == 1


def test_restarts_are_bounded(cloud):
    done, folder, _ = cloud(["preempted"] * 10, "--restarts=1")
    assert done.returncode == 75
    assert verbs(folder).count("create") == 2
    assert "given up after 1 restarts" in done.stdout


@pytest.mark.parametrize("word", ["t5x_like.train", "of another program"])
def test_a_training_that_was_left_behind_saves_before_the_next_begins(cloud, tmp_path, word):
    """The connection to a worker broke: its process is still at work, and holds the run directory."""
    saving = (
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print(flush=True); signal.pause()"
    )
    left = subprocess.Popen([sys.executable, "-c", saving, word], stdout=subprocess.PIPE)
    try:
        assert left.stdout is not None and left.stdout.readline()
        reaper = threading.Thread(target=left.wait)  # else it would stay, dead, in the table of processes
        reaper.start()
        (tmp_path / "bin" / "home").mkdir(parents=True)
        (tmp_path / "bin" / "home" / "train.pid").write_text(f"{left.pid}\n")
        done, _, _ = cloud(["done"])
        assert done.returncode == 0, done.stderr
        assert left.returncode == (75 if word == "t5x_like.train" else None)
    finally:
        left.kill()


def test_a_slice_that_cannot_be_set_up_is_given_back(cloud, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "broken").touch()
    done, folder, _ = cloud(["done"])
    assert done.returncode == 74
    assert verbs(folder).count("create") == 1 and verbs(folder)[-1] == "delete"
    setups = [c for c in stand_ins.calls(folder, "gcloud") if "-m venv" in c[-1]]
    assert len(setups) == tpu_vm.SETUPS


def test_logs_that_cannot_be_had_are_told(tmp_path):
    environment = stand_ins.make(tmp_path / "bin", [])
    flags = ["--action=logs", "--name=a", "--zone=z", "--topology=v5e:4x4", f"--logs={tmp_path / 'logs'}"]
    done = stand_ins.launch("tpu_vm", *flags, environment=environment)
    assert done.returncode == 74 and "the logs of 4 of 4 workers could not be fetched" in done.stderr


def test_nothing_is_rented_where_there_is_nothing_to_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", stand_ins.make(tmp_path / "bin", [])["PATH"])
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)  # no repository
    where = tpu_vm.Slice(name="a", topology=topologies.parse("v5e:2x2"), zone="z")
    with pytest.raises(UserError, match="git failed"):
        tpu_vm.keep(
            where, ["--config=t5/base", "--workdir=/a"], tpu_vm.Shell(dry_run=False),
            variables={}, restarts=1, folder=tmp_path, poll=0,
        )  # fmt: skip
    assert stand_ins.calls(tmp_path / "bin", "gcloud") == []


def test_a_slice_that_stays_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", stand_ins.make(tmp_path / "bin", [])["PATH"])
    where = tpu_vm.Slice(name="a", topology=topologies.parse("v5e:2x2"), zone="z")
    assert tpu_vm._finish(where, tpu_vm.Shell(dry_run=False), tmp_path, 0) == 0  # there is none to delete
    assert "a has not been given back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "code"),
    [("65", 65), ("0\n75\n64\n", 64), ("139\n0\n", 139), ("", 1), (None, 1), ("²", 1)],
)
def test_of_several_slices_a_hopeless_code_counts_first(told, code, monkeypatch):
    shell = tpu_vm.Shell(dry_run=False)
    monkeypatch.setattr(shell, "run", lambda command: 1)
    monkeypatch.setattr(shell, "ask", lambda command: told)
    where = tpu_vm.Slice(name="a", topology=topologies.parse("v5e:4x4*2"), zone="z")
    assert tpu_vm._train_once(where, ["--config=t5/base", "--workdir=/a"], shell, {}) == code


def test_a_dry_run_prints_what_would_run_and_runs_nothing(tmp_path):
    environment = stand_ins.make(tmp_path / "bin", [])
    done = stand_ins.launch(
        "tpu_vm", "--action=keep", "--name=a", "--zone=z", "--topology=v5p:2x2x4*2", "--nfs=10.0.0.2:/s:/mnt/s",
        "--xla_flags=tpu-data", "--dry_run", "--", "--config=t5/base", "--workdir=/mnt/s/r", AWKWARD,
        environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert stand_ins.calls(tmp_path / "bin", "gcloud") == []
    commands = [shlex.split(line.removeprefix("$ ")) for line in done.stdout.splitlines()]
    assert all(c[0] in ("gcloud", "git") for c in commands)
    create = next(c for c in commands if "create" in c)
    assert {"--accelerator-type=v5p-32", "--node-count=2", "--node-prefix=a"} <= set(create)
    train = next(c[-1] for c in commands if "t5x_like.train" in c[-1])
    inner = shlex.split(train.partition("{ ")[2].partition(" 2>&1")[0])
    assert inner[:4] == ["sh", "-c", 'echo $$ > ../train.pid; exec "$@"', "train"]
    assert inner[4:6] == [
        "env",
        "LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true "
        "--xla_tpu_data_parallel_opt_different_sized_ops=true",
    ]
    assert inner[-1] == AWKWARD
    assert any("sudo mount -t nfs -o rw,hard 10.0.0.2:/s /mnt/s" in c[-1] for c in commands)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--action=keeep"], "did you mean keep?"),
        (["--name=My_Run"], "--name=my-run"),
        (["--topology=h100:8"], "is no TPU"),
        (["--topology=v5e:4x5"], "v5e:4x4"),
        (["--nfs=somewhere"], "HOST:/SHARE:/MOUNTPOINT"),
        (["--nfs=h:/s h:/mnt"], "cannot be the nfs"),
        (["--nfs=::/"], "cannot be the nfs"),
        (["--xla_flags=tpu-datas"], "did you mean tpu-data?"),
        (["--python=python3; id"], "'python3; id' cannot be the python"),
        (["--zone=us west"], "cannot be the zone"),
        (["--spot", "--reserved"], "not both"),
        (["--poll=nan"], "--poll=30"),
        (["--topology=v5e:16x16*2"], "64 workers of several slices at a time, and v5e:16x16*2 has 128"),
    ],
)
def test_mistakes_are_told(flags, complaint):
    given = ["--action=queue", "--name=a", "--zone=z", "--topology=v5e:4x4", "--dry_run", *flags]
    tpu_vm.FLAGS.unparse_flags()
    tpu_vm.FLAGS(["x", *given])
    with pytest.raises(UserError) as refusal:
        tpu_vm.main([])
    assert complaint in str(refusal.value)
    for name in tpu_vm.FLAGS:
        tpu_vm.FLAGS[name].unparse()
