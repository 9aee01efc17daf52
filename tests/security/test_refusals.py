"""S01, S02, S05 to S10: no code from data, files that lie about themselves, links, bombs, hostile text, no network,
no secrets. (S03, S04: test_json_readers.py; S11 to S14: tests/release.)"""

import ast
import json
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny_dataset
import tiny_model

import t5x_like
from t5x_like import infer, reporting
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.errors import Exit, UserError, printable
from t5x_like.hub.pretrained import load_pretrained
from t5x_like.hub.safetensors import Weights
from t5x_like.training import metrics, progress
from t5x_like.training.checkpoints import Store

PACKAGE = Path(t5x_like.__file__).parent
FORBIDDEN_IMPORTS = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "dill",
    "cloudpickle",
    "shelve",
    "joblib",
    "tarfile",
}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "torch.load", "np.load", "numpy.load", "pickle.load", "pickle.loads", "subprocess.getoutput",
    "subprocess.getstatusoutput", "os.execl", "os.spawnl", "zipfile.ZipFile.extractall", "shutil.unpack_archive",
}  # fmt: skip


def offences(source: str) -> list[str]:
    """What in a module could run code out of data, or leave the words of a command to a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = {a.name.split(".")[0] for a in node.names} | {
                (getattr(node, "module", "") or "").split(".")[0]
            }
            found += [f"{line}: import {name}" for name in named & FORBIDDEN_IMPORTS]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.endswith((".extractall", ".extract")):
                found.append(f"{line}: {name}()")
            if (
                name.startswith("subprocess.")
                and node.args
                and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
            ):
                found.append(f"{line}: {name} of a string")
            found += [
                f"{line}: {keyword.arg}"
                for keyword in node.keywords
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code", "weights_only")
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            ]
    return found


def test_the_package_runs_nothing_out_of_data():
    """S01."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "launch").rglob("*.py")]
    assert len(files) > 100
    assert {str(path): found for path in files if (found := offences(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from marshal import loads", "import dill as d", "eval('1')", "exec(x)", "os.system('id')",
        "yaml.load(f)", "subprocess.run(x, shell=True)", "subprocess.run('ls -l')", "np.load(f, allow_pickle=True)",
        "torch.load(f)", "tar.extractall()", "__import__(name)", "subprocess.run(f'ls {x}')", "import tarfile",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_gate_sees(source):
    assert len(offences(source)) >= 1


# ---- files that lie about themselves


def lying(header: object, payload: bytes = b"\0" * 64, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + payload


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "overlap": lying({"a": entry(0, 64, [16]), "b": entry(32, 64, [8])}),
    "hole": lying({"a": entry(0, 16, [4]), "b": entry(32, 64, [8])}),
    "negative": lying({"a": entry(-64, 0, [16])}),
    "backwards": lying({"a": entry(64, 0, [16])}),
    "behind the end": lying({"a": entry(0, 1 << 40, [1 << 38])}),
    "shape is not size": lying({"a": entry(0, 64, [17])}),
    "shape overflows": lying({"a": entry(0, 64, [1 << 62, 1 << 62])}),
    "unknown type": lying({"a": entry(0, 64, [16], "PICKLE")}),
    "huge header": lying(b"{}", size=1 << 62),
    "header of 200 MB": lying(b"{}", size=200 << 20),
    "header is no JSON": lying(b"\x80\x04\x95"),
    "header is not UTF-8": lying(b'{"\xff": {}}'),
    "header is an array": lying([]),
    "names twice": lying(
        b'{"a": '
        + json.dumps(entry(0, 32, [8])).encode()
        + b', "a": '
        + json.dumps(entry(32, 64, [8])).encode()
        + b"}"
    ),
    "tail": lying({"a": entry(0, 32, [8])}),
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_that_lie_are_refused(tmp_path, lie):
    """S02."""
    (tmp_path / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(UserError) as caught:
        weights = Weights(tmp_path)
        for name in weights.names():
            weights.read(name)
    assert caught.value.code in (Exit.CORRUPT, Exit.BAD_DATA) and "model.safetensors" in str(caught.value)


def test_what_does_not_lie_is_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(lying({"a": entry(0, 64, [16])}))
    assert Weights(tmp_path).read("a").shape == (16,)


PICKLES = (
    "pytorch_model.bin", "model.pt", "model.pth", "weights.npz", "weights.npy", "model.ckpt", "model.pkl",
    "flax_model.msgpack", "tf_model.h5",
)  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_and_what_may_hold_them_are_refused_in_words(tmp_path, name):
    """Also where config.json is right; and nothing in them is run."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "t5", "auto_map": {"AutoModel": "evil.Model"}})
    )
    marker = tmp_path / "pwned"
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(UserError) as caught:
        load_pretrained(tmp_path)
    assert name in str(caught.value) and "safetensors" in str(caught.value) and not marker.exists()


def test_code_beside_the_weights_is_never_imported(tmp_path):
    """`auto_map`, `trust_remote_code` and the like in config.json are data that nobody reads."""
    from t5x_like.hub.t5 import export_t5

    model = tiny_model.RUN.model
    import jax

    export_t5(model, model.init(jax.random.key(0)), tmp_path / "hf", tiny_dataset.tokenizer())
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    marker = tmp_path / "pwned"
    config |= {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation_internal": "evil/kernel",
               "trust_remote_code": True, "_name_or_path": "../../etc", "torch_dtype": "__import__('os')"}  # fmt: skip
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    (tmp_path / "hf" / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    loaded, _ = load_pretrained(tmp_path / "hf")
    assert loaded.vocab_size == model.vocab_size and not marker.exists() and "evil" not in sys.modules


# ---- names and links that leave their folder


def test_a_manifest_names_nothing_outside(tmp_path):
    """S05."""
    tiny_dataset.dataset(tmp_path / "data")
    path = tmp_path / "data" / "manifest.json"
    text = path.read_text()
    for name in ("../secret", "/etc/passwd", "a/../../b", "..", "a\\u0000b", "tokenizer/../../x"):
        path.write_text(text.replace('"train.documents"', f'"{name}"'))
        with pytest.raises(UserError):
            TokenDataset.open(str(tmp_path / "data"))


def test_a_step_that_is_a_link_is_no_checkpoint(tmp_path):
    """S06."""
    run = tiny_model.run_directory(tmp_path / "run")
    (run / "checkpoints" / "2").rename(tmp_path / "elsewhere")
    (run / "checkpoints" / "2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        Store(run / "checkpoints").find(2)


# ---- hostile text


HOSTILE = (
    "<script>alert(1)</script>\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe <img src=x onerror=alert(1)> & ' \""
)


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "img", "iframe", "object", "link") or any(
            name.startswith("on") for name, _ in attrs
        ):
            self.found.append(tag)


def test_the_report_shows_hostile_text_as_text(tmp_path):
    """S08. inspect: tests/test_inspect.py; the first screen of a run: tests/training/test_loop.py."""
    run = tiny_model.run_directory(tmp_path / "run")
    sample = {"inputs": f"{HOSTILE} <extra_id_0>", "spans": [HOSTILE], "originals": [HOSTILE]}
    words = [{"text": HOSTILE, "probability": 0.5}, {"text": "b", "probability": 0.1}]
    lines = [sample, {"swapped": {"0": HOSTILE}, "words": words}]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "env.json").write_text(json.dumps({"platform": HOSTILE}))
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "kind": "train", "loss": 1.0, HOSTILE: 2.0}) + "\n"
    )
    reporting.write(run, run / "report.html")
    page = (run / "report.html").read_text()
    assert "alert(1)" in page and Page(page).found == []
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)


def test_infer_writes_hostile_text_as_json(tmp_path, capsys):
    """S08."""
    run = tiny_model.run_directory(tmp_path / "run")
    (tmp_path / "in.txt").write_text("\x1b]0;owned\x07 <script> <extra_id_0>\n")
    infer.FLAGS.unparse_flags()
    infer.FLAGS(["infer", f"--workdir={run}", f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'out.jsonl'}",
                 "--max_length=2", "--beams=1", "--batch_size=1"])  # fmt: skip
    assert infer.main([]) == Exit.DONE
    written = (tmp_path / "out.jsonl").read_bytes() + capsys.readouterr().out.encode()
    assert b"owned" in written and not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", written)


def test_messages_show_hostile_text_and_do_not_obey_it(tmp_path, capsys):
    """S08: errors, and the log lines of a run."""
    told = str(UserError(f"no such {HOSTILE}", where=HOSTILE, help="x" * 10_000))
    assert (
        "owned" in told
        and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told)
        and len(told) < 3500
    )
    assert printable("plain text, häufig 日本") == "plain text, häufig 日本"
    shown = progress.Progress(0, 10)
    shown.say(printable(HOSTILE))
    assert "\x1b" not in capsys.readouterr().out
    path = tmp_path / "metrics.jsonl"
    metrics.JsonLines(path).write(1, HOSTILE, {HOSTILE: 1.0})
    assert b"\x1b" not in path.read_bytes() and b"\x07" not in path.read_bytes()


# ---- network and secrets


def test_importing_and_helping_open_no_socket():
    """S09: every module, with sockets forbidden."""
    code = """
import importlib, pkgutil, socket, sys
def no(*a, **k): raise AssertionError("a socket")
for name in ("socket", "create_connection", "create_server", "getaddrinfo"):
    if name == "socket":
        class Forbidden(socket.socket):
            def __init__(self, *a, **k): no()
        socket.socket = Forbidden
    else:
        setattr(socket, name, no)
import t5x_like
names = [m.name for m in pkgutil.walk_packages(t5x_like.__path__, "t5x_like.") if not m.ispkg]
from t5x_like.errors import UserError
for name in names:
    try: importlib.import_module(name)
    except UserError as error: assert "pip install" in error.help  # of an extra that is not there
try: socket.socket()
except AssertionError: print(len(names), "imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 90


def test_no_secret_of_the_environment_is_written_into_a_run(tmp_path, monkeypatch):
    """S10: every file of a run directory, however it is encoded."""
    secret = "canary7f3a9c"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_PASSWORD"):
        monkeypatch.setenv(name, secret)
    run = tiny_model.run_directory(tmp_path / "run")
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert not any(
        np.frombuffer(path.read_bytes(), np.uint8).size == 0 and path.name == "config.json" for path in files
    )


def test_saved_weights_hold_no_metadata_but_their_format(tmp_path):
    from t5x_like.hub import safetensors as ours

    ours.write(tmp_path, {"a": np.zeros(4, np.float32)})
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
