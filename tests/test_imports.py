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


def test_nothing_is_unpickled_or_evaluated():
    """S01: no pickle, eval, exec or shell in the package."""
    import ast
    from pathlib import Path

    root = Path(t5x_like.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                named = {a.name.split(".")[0] for a in node.names} | {
                    (getattr(node, "module", "") or "").split(".")[0]
                }
                assert not named & {"pickle", "marshal", "dill", "cloudpickle", "shelve"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
                assert isinstance(node.value, ast.Constant) and node.value.value is False, (
                    f"{path}:{node.value.lineno}"
                )
