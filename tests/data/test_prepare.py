from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_corpus as corpus

from t5x_like.data import partial, preparation, sources, token_writer, units
from t5x_like.data.byte_bpe import ByteBPETraining
from t5x_like.data.documents import Settings
from t5x_like.data.preparation import Arguments, prepare
from t5x_like.data.sampling import tokenizer_sample
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.errors import Exit, UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Three files: JSONL with bad lines and duplicates, text, an empty one."""
    folder = tmp_path_factory.mktemp("source")
    lines = [json.dumps({"text": text, "url": "u"}) for text in (*corpus.texts(), *corpus.texts()[:3])]
    lines[10:10] = ["{broken", '{"no": 1}']
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.txt").write_text("\n\n".join(corpus.texts(90, 1500)))
    (folder / "c.txt").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer().save(folder)
    return str(folder)


def arguments(source, output, **changes) -> Arguments:
    defaults = {"validation_fraction": 0.2, "unit_bytes": 20_000, "workers": 1}
    return Arguments(input=(str(source),), output=str(output), **defaults | changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def reference(source, model, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("reference") / "out"
    prepare(arguments(source, output, tokenizer=model), quiet=True)
    return output


def decoded(dataset: TokenDataset, name: str) -> list[str]:
    split = dataset.split(name)
    ids = split.gather(np.array([0]), split.num_tokens)[0]
    offsets = split.document_offsets
    return [dataset.tokenizer.decode(ids[a:b]) for a, b in itertools.pairwise(offsets)]


# ---- what comes out


def test_every_good_document_is_there_in_order(reference):
    dataset = TokenDataset.open(str(reference))
    dataset.verify()
    texts = [*corpus.texts(), *corpus.texts()[:3]]
    texts += [p for d in corpus.texts(90, 1500) for p in d.split("\n\n")]
    texts = [" ".join(text.split()) for text in texts]
    train, validation = decoded(dataset, "train"), decoded(dataset, "validation")
    assert sorted(train + validation) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert 0.1 < len(validation) / len(texts) < 0.35
    assert not set(train) & set(validation), "a document in both splits"


def test_the_tokens_are_those_of_the_tokenizer(reference):
    dataset = TokenDataset.open(str(reference))
    for name in ("train", "validation"):
        split = dataset.split(name)
        encoded = corpus.tokenizer().encode_documents(decoded(dataset, name))
        assert split.gather(np.array([0]), split.num_tokens)[0].tolist() == encoded.ids.tolist()
        assert split.document_offsets[:-1].tolist() == encoded.documents.tolist()
        assert split.sentence_offsets is not None
        assert set(encoded.sentences) <= set(split.sentence_offsets.tolist())


def test_rejections_and_provenance(reference, source):
    rejections = [json.loads(line) for line in (reference / "rejections.jsonl").read_text().splitlines()]
    assert [(Path(r["file"]).name, r["line"], r["kind"]) for r in rejections] == [
        ("a.jsonl", 11, "broken_json"),
        ("a.jsonl", 12, "missing_field"),
        ("c.txt", 0, "empty_file"),
    ]
    provenance = TokenDataset.open(str(reference)).manifest["provenance"]
    assert provenance["problems"] == {
        "broken_json skipped": 1,
        "empty_file skipped": 1,
        "missing_field skipped": 1,
    }
    assert [Path(entry["name"]).name for entry in provenance["input"]] == ["a.jsonl", "b.txt", "c.txt"]
    assert provenance["input_bytes"] == sum(p.stat().st_size for p in source.iterdir())


def test_the_summary(source, model, tmp_path):
    summary = prepare(arguments(source, tmp_path / "out", tokenizer=model), quiet=True)
    dataset = TokenDataset.open(str(tmp_path / "out"))
    assert summary.total["documents"] == sum(dataset.split(s).num_documents for s in dataset.splits)
    assert summary.total["tokens"] == sum(dataset.split(s).num_tokens for s in dataset.splits)
    assert summary.fingerprint == dataset.fingerprint
    text = str(summary)
    for part in (
        "bytes a token",
        "unknown",
        "validation",
        "broken json, skipped",
        "next: python -m t5x_like.train",
    ):
        assert part in text


# ---- the same bytes however it ran


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(source, model, reference, tmp_path):
    prepare(arguments(source, tmp_path / "out", tokenizer=model, workers=2), quiet=True)
    assert contents(tmp_path / "out") == contents(reference)


def test_the_size_of_units_does_not_matter(source, model, reference, tmp_path):
    prepare(arguments(source, tmp_path / "out", tokenizer=model, unit_bytes=1 << 20), quiet=True)
    assert contents(tmp_path / "out") == contents(reference)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.mark.parametrize("moment", ["units", "tokenizer", "assembling", "renaming", "cleaning"])
def test_stopped_and_started_again(source, reference, model, tmp_path, monkeypatch, moment):
    output = tmp_path / "out"
    wanted = arguments(source, output, tokenizer=model, write_text_dataset=str(tmp_path / "text"))
    calls = 0

    def dies_at(call: int, function):
        def dying(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return function(*args, **kwargs)

        return dying

    target, name, call = {
        "units": (units, "_encode_unit", 4),
        "tokenizer": (type(corpus.tokenizer()), "save", 1),
        "assembling": (token_writer.TokenDatasetWriter, "append", 5),
        "renaming": (preparation, "replace", 2),
        "cleaning": (preparation.shutil, "rmtree", 3),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, dies_at(call, getattr(target, name)))
        with pytest.raises(Killed):
            prepare(wanted, quiet=True)
    if moment == "units":
        assert len(list((tmp_path / "out.partial" / "units").glob("*.safetensors"))) == 3
    assert moment == "cleaning" or not output.exists(), "half a dataset must not look like a whole one"
    prepare(wanted, quiet=True)
    assert contents(output) == contents(reference)
    assert (tmp_path / "text" / "dataset_info.json").is_file()


@pytest.mark.slow
def test_killed_for_real(source, tmp_path):
    command = [
        sys.executable,
        "-m",
        "t5x_like.prepare",
        "--input=embedded",
        "--vocab_size=500",
        "--workers=2",
    ]
    command += ["--tokenizer_sample_bytes=200000"]
    root = Path(__file__).parents[2]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen([*command, f"--output={killed}"], cwd=root, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "killed.partial").glob("units/*.safetensors"))) < 3:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, f"--output={killed}"], cwd=root, check=True, capture_output=True)
    subprocess.run([*command, f"--output={whole}"], cwd=root, check=True, capture_output=True)
    assert contents(killed) == contents(whole)


def test_training_the_tokenizer_is_repeatable(source, tmp_path):
    some = {"training": Training(vocab_size=400), "tokenizer_sample_bytes": 60_000}
    for name in ("a", "b"):
        prepare(arguments(source, tmp_path / name, **some), quiet=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    dataset = TokenDataset.open(str(tmp_path / "a"))
    assert dataset.vocabulary.size == 400
    assert dataset.tokenizer.fingerprint == dataset.tokenizer_fingerprint


@pytest.mark.parametrize(
    "training",
    [WordPieceTraining(vocab_size=600, lowercase=True), ByteBPETraining(vocab_size=600)],
    ids=["wordpiece", "bytebpe"],
)
def test_tokenizers_of_encoders(source, tmp_path, training):
    some = {"training": training, "tokenizer_sample_bytes": 60_000}
    prepare(arguments(source, tmp_path / "one", **some), quiet=True)
    prepare(arguments(source, tmp_path / "two", workers=2, **some), quiet=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    dataset = TokenDataset.open(str(tmp_path / "one"))
    dataset.verify()
    assert dataset.vocabulary == dataset.tokenizer.vocabulary
    assert dataset.vocabulary.mask is not None and dataset.vocabulary.size == 600
    split = dataset.split("train")
    assert split.sentence_offsets is not None
    assert len(split.sentence_offsets) > 3 * split.num_documents
    for text in decoded(dataset, "train"):
        assert dataset.tokenizer.decode(dataset.tokenizer.encode(text)) == text
    assert prepare(arguments(source, tmp_path / "one", **some), quiet=True).made_before


def test_the_sample_leaves_validation_out_and_has_its_size(source):
    sample = tokenizer_sample(sources.find([str(source)]), Settings(), 30_000, 0.3)
    assert 30_000 <= sum(len(text.encode()) for text in sample) < 34_000
    assert not any(units.is_validation(units.text_hash(text), 0.3) for text in sample)


# ---- given again


def test_given_again_it_says_so(source, model, reference):
    before = contents(reference)
    summary = prepare(arguments(source, reference, tokenizer=model), quiet=True)
    assert summary.made_before
    assert "nothing to do" in str(summary)
    assert contents(reference) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"validation_fraction": 0.1}, "validation_fraction was 0.2 and is 0.1 now"),
        ({"read": Settings(bad_input="replace")}, "read.bad_input was 'skip' and is 'replace' now"),
        ({"tokenizer": None}, "tokenizer"),
    ],
)
def test_other_arguments_are_refused(source, model, reference, change, says):
    with pytest.raises(UserError) as error:
        prepare(arguments(source, reference, **{"tokenizer": model} | change), quiet=True)
    assert says in error.value.what
    assert "--overwrite" in str(error.value.help)


def test_other_input_is_refused_and_overwrite_replaces(source, model, tmp_path):
    first = arguments(source / "a.jsonl", tmp_path / "out", tokenizer=model)
    prepare(first, quiet=True)
    other = arguments(source / "b.txt", tmp_path / "out", tokenizer=model)
    with pytest.raises(UserError, match=r"the input differs\n  .* was (edited|added|removed)"):
        prepare(other, quiet=True)
    summary = prepare(
        arguments(source / "b.txt", tmp_path / "out", tokenizer=model, overwrite=True), quiet=True
    )
    assert not summary.made_before
    assert prepare(other, quiet=True).made_before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_unfinished_work_is_not_mixed_with_other_arguments(source, model, tmp_path, monkeypatch):
    wanted = arguments(source, tmp_path / "out", tokenizer=model)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_assemble", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare(wanted, quiet=True)
    other = arguments(source, tmp_path / "out", tokenizer=model, validation_fraction=0.5)
    with pytest.raises(UserError, match="unfinished preparation"):
        prepare(other, quiet=True)
    prepare(
        arguments(source, tmp_path / "out", tokenizer=model, validation_fraction=0.5, overwrite=True),
        quiet=True,
    )
    assert prepare(other, quiet=True).made_before


def test_a_mistake_before_the_first_unit_can_be_mended_at_once(source, tmp_path):
    with pytest.raises(UserError, match="too small for a vocabulary"):
        prepare(arguments(source, tmp_path / "out", training=Training(vocab_size=90_000)), quiet=True)
    prepare(arguments(source, tmp_path / "out", training=Training(vocab_size=500)), quiet=True)


def test_two_at_once(source, model, tmp_path):
    with (
        partial.held(tmp_path / "out.partial"),
        pytest.raises(UserError, match="another process makes the same output") as error,
    ):
        prepare(arguments(source, tmp_path / "out", tokenizer=model), quiet=True)
    assert error.value.code == Exit.LOCKED


def test_a_foreign_folder_is_never_touched(source, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a token dataset") as error:
        prepare(arguments(source, tmp_path / "out", tokenizer=model, overwrite=True), quiet=True)
    assert error.value.code == Exit.CANNOT_WRITE
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


# ---- mistakes


def test_failing_at_the_first_bad_document(source, model, tmp_path):
    wanted = arguments(source, tmp_path / "out", tokenizer=model, read=Settings(bad_input="fail"))
    with pytest.raises(UserError, match="broken json") as error:
        prepare(wanted, quiet=True)
    assert str(error.value.where).startswith(f"{source / 'a.jsonl'}:11 (byte ")


@pytest.mark.slow
def test_workers_fail_at_the_same_document(source, model, tmp_path):
    wanted = arguments(source, tmp_path / "out", tokenizer=model, read=Settings(bad_input="fail"), workers=2)
    with pytest.raises(UserError, match="broken json") as error:
        prepare(wanted, quiet=True)
    assert str(error.value.where).startswith(f"{source / 'a.jsonl'}:11 (byte ")
    assert error.value.code == Exit.BAD_DATA


def test_nothing_usable(tmp_path, model):
    (tmp_path / "x.jsonl").write_text("{broken\n{too")
    with pytest.raises(UserError, match="no document of the input can be used: 2 broken json") as error:
        prepare(arguments(tmp_path / "x.jsonl", tmp_path / "out", tokenizer=model), quiet=True)
    assert error.value.where == f"{tmp_path / 'x.jsonl'}:1 (byte 0)"
    (tmp_path / "x.jsonl").write_text('{"text": "good"}')
    prepare(arguments(tmp_path / "x.jsonl", tmp_path / "out", tokenizer=model), quiet=True)
    (tmp_path / "y.txt").write_text(" \n ")
    with pytest.raises(UserError, match="holds no document"):
        prepare(arguments(tmp_path / "y.txt", tmp_path / "other", tokenizer=model), quiet=True)


def test_nothing_to_train_a_tokenizer_on_says_why(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"txt": "a"}\n{"txt": "b"}')
    with pytest.raises(UserError, match="can be used: 2 missing field") as error:
        prepare(arguments(tmp_path / "x.jsonl", tmp_path / "out"), quiet=True)
    assert error.value.help == "the first: did you mean --text_field=txt?"
    (tmp_path / "y.txt").write_text("one document")
    with pytest.raises(UserError, match=r"only documents there are \(1\) fall into the validation split"):
        prepare(arguments(tmp_path / "y.txt", tmp_path / "out", validation_fraction=1 - 2**-53), quiet=True)


def test_texts_without_a_token(tmp_path, model):
    (tmp_path / "x.jsonl").write_text('{"text": "\\u200b"}\n{"text": "good"}')
    summary = prepare(arguments(tmp_path / "x.jsonl", tmp_path / "out", tokenizer=model), quiet=True)
    assert summary.problems == {"no_token skipped": 1}
    assert summary.total["documents"] == 1
    (tmp_path / "x.jsonl").write_text('{"text": "\\u200b"}')
    with pytest.raises(UserError, match="holds no document"):
        prepare(arguments(tmp_path / "x.jsonl", tmp_path / "other", tokenizer=model), quiet=True)


def test_a_full_disk_stops_in_words_and_the_same_command_continues(
    source, model, reference, tmp_path, monkeypatch
):
    wanted = arguments(source, tmp_path / "out", tokenizer=model)
    with monkeypatch.context() as patch:
        patch.setattr(units, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device") as error:
            prepare(wanted, quiet=True)
    assert error.value.code == Exit.IO_ERROR
    prepare(wanted, quiet=True)
    assert contents(tmp_path / "out") == contents(reference)


@pytest.mark.parametrize(
    "change",
    [
        {"output": "gs://bucket/x"},
        {"output": ""},
        {"validation_fraction": 1.0},
        {"validation_fraction": -0.1},
        {"workers": -1},
        {"read": Settings(max_document_bytes=0)},
        {"training": Training(vocab_size=50)},
    ],
)
def test_impossible_arguments(source, change):
    with pytest.raises(UserError):
        prepare(Arguments(**{"input": (str(source),), "output": "x"} | change), quiet=True)


def test_a_place_that_cannot_be_written(source, model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as error:
        prepare(arguments(source, tmp_path / "file" / "out", tokenizer=model), quiet=True)
    assert error.value.code == Exit.CANNOT_WRITE


def test_an_empty_validation_split_is_mentioned(source, model, tmp_path):
    summary = prepare(
        arguments(source, tmp_path / "out", tokenizer=model, validation_fraction=0.0), quiet=True
    )
    assert "validation split is empty" in str(summary)


# ---- the text dataset


def test_the_text_dataset_opens_with_tfds_and_with_us(source, model, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path / "text"
    wanted = arguments(source, tmp_path / "out", tokenizer=model, write_text_dataset=str(folder))
    summary = prepare(wanted, quiet=True)
    builder = tfds.builder_from_directory(str(folder))
    dataset = TokenDataset.open(str(tmp_path / "out"))
    for split in ("train", "validation"):
        rows = builder.as_data_source(split)
        texts = [" ".join(rows[i]["text"].decode().split()) for i in range(len(rows))]
        assert texts == decoded(dataset, split)
        assert len(texts) == summary.splits[split]["documents"]
    again = arguments(f"tfds:{folder}:train", tmp_path / "again", tokenizer=model, validation_fraction=0.0)
    prepare(again, quiet=True)
    assert decoded(TokenDataset.open(str(tmp_path / "again")), "train") == decoded(dataset, "train")
    assert prepare(wanted, quiet=True).made_before


def test_the_text_dataset_never_replaces_something_else(source, model, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "mine").write_text("x")
    wanted = arguments(
        source, tmp_path / "out", tokenizer=model, write_text_dataset=str(tmp_path / "text"), overwrite=True
    )
    with pytest.raises(UserError, match="not empty"):
        prepare(wanted, quiet=True)
    assert (tmp_path / "text" / "mine").is_file()


def test_a_text_dataset_can_be_asked_for_later(source, model, tmp_path):
    prepare(arguments(source, tmp_path / "out", tokenizer=model), quiet=True)
    before = contents(tmp_path / "out")
    prepare(
        arguments(source, tmp_path / "out", tokenizer=model, write_text_dataset=str(tmp_path / "text")),
        quiet=True,
    )
    assert contents(tmp_path / "out") == before
    assert (tmp_path / "text" / "dataset_info.json").is_file()


# ---- the command


def command(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "t5x_like.prepare", *flags],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_command(source, model, tmp_path):
    flags = [f"--input={source}", f"--output={tmp_path / 'out'}", f"--tokenizer={model}"]
    done = command(*flags, "--bad_input=replace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: python -m t5x_like.train" in done.stdout
    assert not any(ord(c) < 32 and c != "\n" for c in done.stdout + done.stderr), (
        "control characters off a terminal"
    )
    again = command(*flags, "--bad_input=replace", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["made_before"] is True
    refused = command(*flags, cwd=tmp_path)
    assert refused.returncode == Exit.USAGE
    assert "Traceback" not in refused.stderr
    assert refused.stderr.startswith("error: ")
    both = command(*flags, "--vocab_size=500", cwd=tmp_path)
    assert both.returncode == Exit.USAGE
    assert "--vocab_size is for training" in both.stderr


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['prepare', '--help']; import runpy, atexit\n"
        "atexit.register(lambda: print('HEAVY', {'jax', 'numpy', 'sentencepiece', 'fsspec'} & set(sys.modules)))\n"
        "runpy.run_module('t5x_like.prepare', run_name='__main__')"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "--vocab_size" in done.stdout
    assert "HEAVY set()" in done.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lowercase"], "--lowercase is for wordpiece, and --model_type is unigram"),
        (
            ["--model_type=bytebpe", "--extra_ids=3"],
            "--extra_ids is for unigram and bpe, and --model_type is bytebpe",
        ),
        (["--model_type=wordpiece", "--byte_fallback"], "--byte_fallback is for unigram and bpe"),
        (["--model_type=bytebpe", "--vocab_size=100"], "the 256 bytes and 5 special tokens need 261"),
    ],
)
def test_flags_of_another_kind_of_tokenizer(source, tmp_path, flags, says):
    done = command(f"--input={source}", f"--output={tmp_path / 'out'}", *flags, cwd=tmp_path)
    assert done.returncode == Exit.USAGE
    assert says in done.stderr
