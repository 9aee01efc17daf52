"""Programs that stand in for gcloud, sbatch and their kin: each writes down its arguments and acts a little.

A folder with them goes on the PATH. `fates` says how each start of training ends; the stand-in for training itself
gets one step further each time, in the real run directory, unless its fate is to get nowhere.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_LOGGED = """#!{python}
import json, os, subprocess, sys
from pathlib import Path
here = Path({here!r})
name = Path(sys.argv[0]).name
with (here / "calls.jsonl").open("a") as f:
    f.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
def take(file):
    lines = (here / file).read_text().splitlines() if (here / file).exists() else []
    (here / file).write_text("".join(line + "\\n" for line in lines[1:]))
    return lines[0] if lines else None
"""

_GCLOUD = """
arguments = sys.argv[1:]
verb = next(a for a in arguments if a in ("create", "describe", "delete", "ssh", "scp"))
state, home = here / "state", here / "home"
if verb == "create":
    if state.exists():
        sys.exit("it exists already")
    state.write_text("WAITING_FOR_RESOURCES")
elif verb == "describe":
    if not state.exists():
        sys.exit(1)
    print(state.read_text())
    if state.read_text() == "WAITING_FOR_RESOURCES":
        state.write_text("ACTIVE")
elif verb == "delete":
    state.unlink()
    subprocess.run(["rm", "-rf", str(home)], check=True)
else:
    if not state.exists() or state.read_text() != "ACTIVE":
        sys.exit("no such machine")
    home.mkdir(exist_ok=True)
    if verb == "scp":
        source, target = [a for a in arguments[arguments.index("scp") + 1 :] if not a.startswith("--")]
        if ":" in source:
            source = home / source.partition(":")[2]
        else:
            target = home / (target.partition(":")[2] or Path(source).name)
        sys.exit(subprocess.run(["cp", str(source), str(target)]).returncode)
    command = next(a for a in arguments if a.startswith("--command=")).partition("=")[2]
    code = subprocess.run(["bash", "-c", command], cwd=home).returncode
    sys.exit(1 if code and "--worker=all" in arguments else code)  # of several workers gcloud tells no code
"""

_PYTHON = """
arguments = sys.argv[1:]
if arguments[:2] == ["-m", "venv"]:
    if (here / "broken").exists():
        sys.exit("no module named venv")
    bin = Path(arguments[2]) / "bin"
    bin.mkdir(parents=True)
    (bin / "python").symlink_to(sys.argv[0])
elif arguments[:2] == ["-m", "t5x_like.train"]:
    fate = take("fates") or "done"
    workdir = Path(next(a for a in arguments if a.startswith("--workdir=")).partition("=")[2])
    workdir.mkdir(parents=True, exist_ok=True)
    metrics = workdir / "metrics.jsonl"
    step = json.loads(metrics.read_text().splitlines()[-1])["step"] if metrics.exists() else 0
    if not fate.endswith("nowhere"):
        with metrics.open("a") as f:
            f.write(json.dumps({{"kind": "train", "step": step + 100}}) + "\\n")
    print("training went from step", step, "and was", fate, flush=True)
    if fate.startswith("preempted"):
        (here / "state").write_text("SUSPENDED")
        sys.exit(143)
    sys.exit(0 if fate == "done" else int(fate.split()[0]))
"""

_SRUN = """
arguments = sys.argv[1:]
command = arguments[next(i for i, a in enumerate(arguments) if not a.startswith("--")) :]
sys.exit(subprocess.run(command).returncode)
"""


def make(folder: Path, fates: list[str]) -> dict[str, str]:
    """The programs in `folder`; returns the environment that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fates").write_text("".join(f"{fate}\n" for fate in fates))
    values = {"python": sys.executable, "here": str(folder)}
    head = _LOGGED.format(**values)
    programs = {
        "gcloud": _GCLOUD,
        "python3.11": _PYTHON.format(**values),
        "srun": _SRUN,
        "sbatch": "",
        "scontrol": "",
        "kubectl": "",
    }
    for name, body in programs.items():
        (folder / name).write_text(head + body)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def calls(folder: Path, program: str) -> list[list[str]]:
    """The arguments of each call of a program, in order."""
    log = folder / "calls.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [arguments for name, *arguments in map(json.loads, lines) if name == program]


def launch(module: str, *arguments: str, environment: dict[str, str], cwd: Path | str = ROOT):
    """Runs `python -m launch.MODULE`; returns the finished process."""
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
