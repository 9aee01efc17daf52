"""What importing the package brings along: never TensorFlow, never torch."""

import pkgutil
import subprocess
import sys

import t5x_like

HEAVY = "sorted({'tensorflow', 'torch', 'transformers'} & set(sys.modules))"


def modules():
    return sorted(m.name for m in pkgutil.walk_packages(t5x_like.__path__, "t5x_like.") if not m.ispkg)


def imported(names):
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint({HEAVY})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_no_module_imports_tensorflow_or_torch():
    names = modules()
    assert "t5x_like.train" in names and "t5x_like.training.loop" in names and len(names) > 40
    assert imported(["t5x_like", *names]) == "[]"


def test_the_test_notices():
    assert imported(["t5x_like"]) == "[]"
    code = f"import sys; sys.modules['torch'] = sys; print({HEAVY})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "['torch']"
    )
