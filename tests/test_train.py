"""`python -m t5x_like.train` from outside: what it refuses, prints and ends with."""

import json
import os
import subprocess
import sys
import time

import pytest
import tiny_dataset

from t5x_like.errors import Exit

SETTINGS = ["model.d_model=16", "model.d_kv=8", "model.num_heads=2", "model.d_ff=32", "model.num_layers=1",
            "model.num_decoder_layers=1", "model.vocab_size=256", "objective.inputs_length=16", "batch_size=4",
            "evaluation.every=0"]  # fmt: skip


def train(*arguments, cache, **environment):
    variables = os.environ | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)} | environment
    command = [sys.executable, "-m", "t5x_like.train", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    tiny_dataset.dataset(path / "data")
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config=t5/tiny"),
        (["--config=t5/tinny"], "did you mean t5/tiny?"),
        (["--config=t5/tiny:debug", "--set=model.d_modle=64"], "did you mean model.d_model?"),
        (["--config=t5/tiny:debug", "--set=steps=many"], "steps wants a whole number, not 'many'"),
        (["--config=t5/tiny:debug"], "--workdir=runs/NAME"),
        (["--config=t5/tiny:debug", "--workdir=RUN"], "the run names no token dataset"),
        (["--config=t5/tiny:debug", "--workdir=RUN", "--data=nowhere"], "no token dataset here"),
        (["--config=t5/tiny:debug", "--workdir=RUN", "--data=DATA", "--cpu_devices=3"], "not divide over 3 devices"),
        (["--config=t5/tiny:debug", "--workdir=RUN", "--data=DATA", "--set=mesh.tensor=5"], "does not fit 1 device"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_a_sentence(folder, arguments, words):
    """U3, U4: before anything is compiled, without a traceback."""
    names = {"DATA": str(folder / "data"), "RUN": str(folder / "refused")}
    for short, path in names.items():
        arguments = [a.replace(f"={short}", f"={path}") for a in arguments]
    began = time.process_time()
    out = train(*arguments, cache=folder, T5X_LIKE_NO_REEXEC="1")
    assert words in out.stderr and "Traceback" not in out.stderr, out.stderr
    assert out.stderr.startswith("error: ") and len(out.stderr.splitlines()) <= 4
    assert out.returncode in (Exit.USAGE, Exit.BAD_DATA), time.process_time() - began


def test_print_config_prints_every_value(folder):
    out = train("--config=t5/tiny:debug", "--steps=7", "--print_config", cache=folder)
    assert out.returncode == 0 and "steps = 7" in out.stdout and "optimizer = Adafactor" in out.stdout


@pytest.mark.slow
def test_the_same_command_twice(folder):
    """U2, U14; the second time it says that it is done. On two simulated devices, with huge pages."""
    arguments = ["--config=t5/tiny:debug", f"--data={folder / 'data'}", f"--workdir={folder / 'run'}", "--steps=3",
                 "--cpu_devices=2", *(f"--set={s}" for s in SETTINGS)]  # fmt: skip
    first = train(*arguments, cache=folder)
    assert first.returncode == Exit.DONE, first.stderr
    assert "data 2; 2 x cpu" in first.stdout and "step 3/3" in first.stdout and first.stderr == ""
    table = (folder / "run" / "parameters.txt").read_text()  # shown where there are several devices
    assert table in first.stdout and table.count("\n") > 20
    assert len(first.stdout.replace(table, "").splitlines()) <= 25 and "\x1b" not in first.stdout
    environment = json.loads((folder / "run" / "env.json").read_text())["environment"]
    assert sys.platform != "linux" or "hugetlb" in environment["GLIBC_TUNABLES"]
    assert any((folder / "t5x_like" / "compiled").iterdir()), "compiled programs are kept"
    second = train(*arguments, cache=folder)
    assert second.returncode == Exit.DONE and "already done: step 3 of 3" in second.stdout
    again = train(
        f"--config={folder / 'run'}",
        f"--workdir={folder / 'run'}",
        "--steps=5",
        "--cpu_devices=2",
        cache=folder,
    )
    assert again.returncode == Exit.DONE and "resuming step 3 of 5" in again.stdout, again.stderr
