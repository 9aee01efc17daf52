"""S03, S04: every JSON that is read is data. What was written comes back; what somebody changed is read or refused in
words, executes nothing, and never ends in a traceback."""

import copy
import json
import shutil

import jax
import pytest
import tiny_dataset
import tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import RUN

from t5x_like import config, race_plan, reporting, typed
from t5x_like.data import text_dataset
from t5x_like.data.byte_bpe import ByteBPETraining
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.errors import UserError
from t5x_like.hub.pretrained import load_pretrained
from t5x_like.hub.t5 import export_t5
from t5x_like.tasks import definitions, formats, results
from t5x_like.training import goodput, records
from t5x_like.training.run_dir import RunDir

HOSTILE = (
    None, True, -1, 0, 2**63, 1e308, "", "os.system", "__import__('os').system('touch pwned')", "../../x",
    "/etc/passwd", "a\x00b", "\x1b[31m", "\ud800", "x" * 5_000, [], {}, [[]], {"type": "os.system"},
    {"type": "Run"}, {"__class__": "x"}, [None], ["../x"], {"a": {"b": []}},
)  # fmt: skip
RAW = (
    b"", b"null", b"[]", b"7", b'"x"', b"{", b"{}{}", b"\xff\xfe{}", b"\x00", b"[" * 100_000, b'{"a":' * 50_000,
    b'{"step": ' + b"9" * 5000 + b"}", b'{"a": NaN}', b'{"a": 1, "a": 2}',
)  # fmt: skip


def places(value, path=()):
    """Every path into a JSON value, its root included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def changed(value, path, new):
    """A copy with what is at `path` replaced; `...`: taken out."""
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One of each file that is read as JSON: reader name -> (file, function that reads it)."""
    root = tmp_path_factory.mktemp("json")
    run = tiny_model.run_directory(root / "run")
    directory = RunDir(run)
    directory.event("clock", **goodput.Goodput(goodput.Ledger(), [], 0).line(0))
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "kind": "train", "loss": 2.0, "tokens_per_second": 9.0}\n'
    )
    (run / "evaluation.json").write_text(
        '{"loss": 1.0, "cross_entropy": 1.0, "unigram_entropy": 2.0, "accuracy": 0.5}'
    )
    samples = {"inputs": "a <x>", "originals": ["b"], "spans": ["c"]}
    (run / "samples.jsonl").write_text(json.dumps(samples) + "\n")
    tiny_dataset.dataset(root / "tokens")
    export_t5(RUN.model, RUN.model.init(jax.random.key(0)), root / "hf", tiny_dataset.tokenizer())
    texts = tiny_dataset.documents(200)
    WordPieceTraining(vocab_size=80).train(texts).save(root / "wordpiece")
    ByteBPETraining(vocab_size=300).train(texts).save(root / "bpe")
    (root / "text").mkdir()
    text_dataset.write_shard(root / "text" / text_dataset.shard_name("text", "train", 0, 1), [("a", "")])
    text_dataset.write_description(root / "text", "text", {"train": [(1, 1)]}, "texts")
    results.agree(root, {"task": "x", "seeds": 2})
    results.finish(
        root,
        results.SeedResult(
            seed=0, validation={"accuracy": 0.5}, test=None, step=3, seconds=1.0, curve=({"accuracy": 0.1},)
        ),
    )
    (root / "plan.json").write_text(json.dumps({"rules": {}, "configs": {}, "shares": {}, "tasks": {}}))
    task = definitions.TASKS[0]
    (root / "task.json").write_text(json.dumps(typed.to_data(task)))
    record = next((run / "checkpoints").rglob("*.json"), None)
    found = {
        "config.json": (run / "config.json", lambda: config.load(str(run))),
        "env.json": (run / "env.json", lambda: reporting.write(run, root / "report.html")),
        "evaluation.json": (run / "evaluation.json", lambda: reporting.write(run, root / "report.html")),
        "samples.jsonl": (run / "samples.jsonl", lambda: reporting.write(run, root / "report.html")),
        "metrics.jsonl": (run / "metrics.jsonl", lambda: reporting.write(run, root / "report.html")),
        "events.jsonl": (run / "events.jsonl", lambda: goodput.account(RunDir(run).events())),
        "manifest.json": (root / "tokens" / "manifest.json", lambda: TokenDataset.open(str(root / "tokens"))),
        "hf/config.json": (root / "hf" / "config.json", lambda: load_pretrained(root / "hf")),
        "dataset_info.json": (
            root / "text" / "dataset_info.json", lambda: text_dataset.folder_shards(root / "text", None, "text")
        ),
        "features.json": (
            root / "text" / "features.json", lambda: text_dataset.folder_shards(root / "text", None, "text")
        ),
        "tfds_splits": (root / "text" / "dataset_info.json", lambda: formats.tfds_splits(root / "text")),
        "finetune.json": (root / "finetune.json", lambda: results.agree(root, {"task": "x", "seeds": 2})),
        "seeds/0.json": (root / "seeds" / "0.json", lambda: results.finished(root)),
        "plan.json": (root / "plan.json", lambda: race_plan.read_plan(root / "plan.json")),
        "task.json": (root / "task.json", lambda: definitions.find(str(root / "task.json"))),
    }  # fmt: skip
    if record is not None:
        found["record"] = (record, lambda: records.read(record))
    for folder in ("wordpiece", "bpe"):
        for path in (root / folder).glob("*.json"):
            found[f"{folder}/{path.name}"] = (path, lambda folder=folder: load_tokenizer(root / folder))
    for path in (root / "tokens" / "tokenizer").glob("*.json"):
        found[f"tokens/{path.name}"] = (path, lambda: load_tokenizer(root / "tokens" / "tokenizer"))
    return found


NAMES = (
    "config.json", "env.json", "evaluation.json", "samples.jsonl", "metrics.jsonl", "events.jsonl", "manifest.json",
    "hf/config.json", "dataset_info.json", "features.json", "tfds_splits", "finetune.json", "plan.json", "task.json",
    "seeds/0.json", "record", "wordpiece/tokenizer.json", "wordpiece/tokenizer_config.json",
)  # fmt: skip


def test_every_reader_is_there(made):
    assert set(NAMES) <= made.keys(), set(NAMES) - made.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_changed_is_read_or_refused(made, name, tmp_path, monkeypatch):
    path, read = made[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reporting, "curves", lambda *_: None)  # drawing is slow, and gets numbers only
    monkeypatch.setattr(reporting, "svg", lambda _: "")
    original = path.read_bytes()
    read()
    value = json.loads(original.splitlines()[0] if path.suffix == ".jsonl" else original)
    spots = list(places(value))

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read()
        except UserError as error:
            assert str(error).startswith("error: ") and "\x1b" not in str(error) and len(str(error)) < 4000
        except ValueError as error:
            assert name == "record" and str(path) in str(error), repr(error)

    @settings(max_examples=30, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
    @given(st.sampled_from(spots), st.sampled_from((*HOSTILE, ...)))
    def fuzz(spot, new):
        if spot or new is not ...:
            attempt(json.dumps(changed(value, spot, new)).encode())

    try:
        fuzz()
        for content in (*RAW, original[: len(original) // 2], original[:-2]):
            attempt(content)
    finally:
        path.write_bytes(original)
    read()
    assert not list(tmp_path.iterdir()), "nothing was executed"


text_fields = (
    "name",
    "data.train_split",
    "init_from",
    "model.dtype",
    "objective",
    "optimizer",
    "data.sources",
)


@pytest.mark.parametrize(
    "value", ["os.system", "__import__('os').system('id')", "../../x", "$HOME", "a\x00b", "x" * 2**20]
)
def test_a_hostile_text_in_a_configuration_stays_text(value, monkeypatch):
    """S03."""
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("executed"))
    for field in text_fields:
        data = typed.to_data(RUN)
        holder, (*path, last) = data, field.split(".")
        for key in path:
            holder = holder[key]
        for new in (value, {"type": value}, [value], {"type": "Source", "path": value}):
            holder[last] = new
            try:
                run = config.from_json(json.dumps(data))
            except UserError:
                continue
            assert value in json.dumps(typed.to_data(run)) or "\\u0000" in json.dumps(typed.to_data(run))


def test_round_trips(made, tmp_path):
    """What was written comes back."""
    path, _ = made["config.json"]
    assert config.from_json(path.read_text()) == RUN
    record = records.read(made["record"][0])
    (tmp_path / made["record"][0].parent.name).mkdir()
    records.write(tmp_path / made["record"][0].name, record)
    assert records.read(tmp_path / made["record"][0].name) == record
    assert results.finished(made["finetune.json"][0].parent)[0].validation == {"accuracy": 0.5}
    for folder in ("wordpiece", "bpe"):
        source = made["finetune.json"][0].parent / folder
        shutil.copytree(source, tmp_path / folder)
        assert load_tokenizer(tmp_path / folder).fingerprint == load_tokenizer(source).fingerprint


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda s: "\0" not in s and "/" not in s and s not in (".", "..")
)


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        records.Record,
        step=st.integers(0, 2**53),
        saved=st.floats(0, 2**36),
        tokens=st.integers(0, 2**60),
        validation_loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        config=st.text(),
        arrays=st.dictionaries(st.text(), st.text(), max_size=4),
        files=st.dictionaries(names, st.tuples(st.integers(0, 2**53), st.text()), min_size=1, max_size=4),
        skips=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 99)), max_size=3).map(tuple),
    )
)
def test_any_record_comes_back(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("record") / f"{record.step}.json"
    records.write(path, record)
    assert records.read(path) == record
