"""SLURM and GKE: the text that is written, and what happens to a job that is to make room."""

import os
import subprocess
import sys

import pytest
import stand_ins
import yaml

from launch import common, gke, slurm, xla_flags
from t5x_like.errors import UserError
from t5x_like.planning import topologies

TRAIN = ["--config=t5/3b", "--workdir=/share/runs/a", "--set=name=a b$(touch hacked)'"]


def test_a_job_that_saved_goes_back_into_the_queue_and_on(tmp_path):
    folder, workdir = tmp_path / "bin", tmp_path / "run"
    environment = stand_ins.make(folder, ["75", "done"]) | {"SLURM_JOB_ID": "17"}
    flags = [f"--python={folder / 'python3.11'}", f"--script={tmp_path / 'a.sbatch'}", "--nodes=2"]
    train = ["--config=t5/3b", f"--workdir={workdir}", TRAIN[-1]]
    done = stand_ins.launch("slurm", *flags, "--", *train, environment=environment)
    assert done.returncode == 0, done.stderr
    assert stand_ins.calls(folder, "sbatch") == [[str(tmp_path / "a.sbatch")]]

    def turn():  # as SLURM runs it
        return subprocess.run(
            ["bash", str(tmp_path / "a.sbatch")], env=environment, cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    first = turn()
    assert first.returncode == 75, first.stderr
    assert stand_ins.calls(folder, "scontrol") == [["requeue", "17"]]
    second = turn()
    assert second.returncode == 0, second.stderr
    assert "from step 100" in second.stdout
    assert len(stand_ins.calls(folder, "scontrol")) == 1
    trained = [c for c in stand_ins.calls(folder, "python3.11") if c[:2] == ["-m", "t5x_like.train"]]
    assert trained == [["-m", "t5x_like.train", *train]] * 2
    assert not (tmp_path / "hacked").exists()


def test_only_a_saved_job_goes_back_and_not_for_ever(tmp_path):
    folder = tmp_path / "bin"
    environment = stand_ins.make(folder, ["70", "75", "75"]) | {"SLURM_JOB_ID": "17"}
    text = slurm.batch_script(
        name="a", nodes=1, gpus=8, time="1:00:00", grace=120, python=str(folder / "python3.11"), restarts=2,
        train=["--config=t5/3b", f"--workdir={tmp_path / 'run'}"],
    )  # fmt: skip
    for restarted, code, requeued in (("0", 70, 0), ("1", 75, 1), ("2", 75, 1)):
        done = subprocess.run(
            ["bash", "-c", text],
            env=environment | {"SLURM_RESTART_COUNT": restarted},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
        assert len(stand_ins.calls(folder, "scontrol")) == requeued


def test_the_script_asks_for_warning_and_nodes():
    text = slurm.batch_script(
        name="a", nodes=4, gpus=8, time="24:00:00", grace=120, train=TRAIN, options=["--partition=gpu"],
        variables=xla_flags.environment("gpu-overlap"),
    )  # fmt: skip
    for line in ("--signal=TERM@120", "--requeue", "--nodes=4", "--ntasks-per-node=1", "--partition=gpu"):
        assert f"#SBATCH {line}\n" in text
    assert "\nsrun --kill-on-bad-exit=0 --wait=120 " in text
    assert "env 'XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_dry_runs_write_and_submit_nothing(tmp_path):
    environment = stand_ins.make(tmp_path / "bin", [])
    for module, flags in (
        ("slurm", []),
        ("gke", ["--topology=v5e:4x4", "--image=i"]),
    ):
        done = stand_ins.launch(
            module, *flags, "--dry_run", "--", *TRAIN, environment=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bin"]
    assert not (tmp_path / "bin" / "calls.jsonl").exists()


def test_a_manifest_of_two_slices(tmp_path):
    environment = stand_ins.make(tmp_path / "bin", [])
    flags = ["--name=a", "--topology=v5e:4x8*2", "--image=i", "--claim=fs:/share", "--spot"]
    done = stand_ins.launch("gke", *flags, "--", *TRAIN, environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert stand_ins.calls(tmp_path / "bin", "kubectl") == [["apply", "-f", "a.yaml"]]
    found = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert found == gke.manifest(
        name="a", topology=topologies.parse("v5e:4x8*2"), image="i", train=TRAIN, claim="fs:/share", spot=True,
        variables=xla_flags.environment("tpu-stack"),
    )  # fmt: skip
    (job,) = found["spec"]["replicatedJobs"]
    assert job["replicas"] == 2 and job["template"]["spec"]["parallelism"] == 8
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["template"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [
        64, 65, 70, 73, 76, 77,
    ]  # fmt: skip


def test_the_container_keeps_its_arguments_and_its_exit_code(tmp_path):
    folder = tmp_path / "bin"
    environment = stand_ins.make(folder, ["75", "done"])
    (folder / "python3").symlink_to(folder / "python3.11")
    train = ["--config=t5/3b", f"--workdir={tmp_path / 'run'}", TRAIN[-1]]
    made = gke.manifest(name="a", topology=topologies.parse("h100:8*2"), image="i", train=train)
    (job,) = made["spec"]["replicatedJobs"]
    assert (job["replicas"], job["template"]["spec"]["completions"]) == (1, 2)
    command = job["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
    for index in ("0", "1"):
        done = subprocess.run(
            command,
            env=environment | {"JOB_INDEX": "0", "JOB_COMPLETION_INDEX": index},
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == (75 if index == "0" else 0)
        (trained,) = [c for c in stand_ins.calls(folder, "python3") if c[:2] == ["-m", "t5x_like.train"]][-1:]
        assert trained[2:5] == train
        assert trained[5:] == [
            "--coordinator_address=a-slice-0-0.a:55527", "--num_processes=2", f"--process_id={index}",
        ]  # fmt: skip


@pytest.mark.parametrize("module", [slurm, gke])
def test_training_without_a_run_directory_is_refused(module):
    with pytest.raises(UserError, match="lack --workdir"):
        if module is slurm:
            slurm.batch_script(name="a", nodes=1, gpus=8, time="1", grace=60, train=["--config=t5/3b"])
        else:
            gke.manifest(name="a", topology=topologies.parse("v5e:4x4"), image="i", train=["--config=t5/3b"])


@pytest.mark.parametrize(
    ("flags", "what", "help"),
    [
        (["--confg=a"], "unknown flag --confg", "did you mean --config?"),
        (["--nodse=2"], "unknown flag --nodse", "did you mean --nodes?"),
        (["--steps=many"], "--steps=many", "--help"),
        (["--config=", "--workdir=/a"], "lack --config", "t5/base"),
        (["--config", "--workdir=/a"], "lack --workdir", "--workdir="),
        (["--config=a", "--workdir=/a", "word"], "unexpected word 'word'", "--name=value"),
    ],
)
def test_the_flags_of_training_are_read_before_anything_is_rented(flags, what, help):
    with pytest.raises(UserError) as refusal:
        common.train_command(flags, others=["nodes"])
    assert what in refusal.value.what and help in (refusal.value.help or "")
    assert refusal.value.where == "flags of training"


def test_a_program_that_does_not_start_is_told(tmp_path, monkeypatch):
    (tmp_path / "gcloud").write_bytes(b"\x7fnot a program")
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="gcloud does not start"):
        common.Shell(dry_run=False).run(["gcloud"])
    with pytest.raises(UserError, match="sbatch is not installed"):
        common.Shell(dry_run=False).ask(["sbatch"])


def test_xla_takes_the_flags_of_gpus():
    """XLA ends a program whose XLA_FLAGS it does not know, whatever it runs on."""
    look = [sys.executable, "-c", "import jax; jax.devices()"]
    known = xla_flags.environment("gpu-overlap")
    unknown = {"XLA_FLAGS": known["XLA_FLAGS"] + " --xla_gpu_no_such_flag=true"}
    codes = [
        subprocess.run(
            look, env=os.environ | {"JAX_PLATFORMS": "cpu", **flags}, capture_output=True
        ).returncode
        for flags in (known, unknown)
    ]
    assert codes[0] == 0 and codes[1] != 0


def test_sets_of_flags_are_joined_and_misspelled_ones_refused():
    joined = xla_flags.environment("tpu-stack,tpu-vmem")
    assert list(joined) == ["LIBTPU_INIT_ARGS"] and len(joined["LIBTPU_INIT_ARGS"].split()) == 2
    assert xla_flags.environment("") == {}
    with pytest.raises(UserError, match="two platforms"):
        xla_flags.environment("tpu-vmem,gpu-overlap")
    with pytest.raises(UserError) as refusal:
        xla_flags.environment("tpu-vmen")
    assert refusal.value.help == "did you mean tpu-vmem?"


def test_yaml_of_awkward_text():
    value = {
        "a": ["x: y", "- z", "#", "", "é\n"],
        "b/c": {"d": [], "e": {}},
        "f": [{"g": 1, "h": [None, True]}],
    }
    assert yaml.safe_load(gke.to_yaml(value)) == value
