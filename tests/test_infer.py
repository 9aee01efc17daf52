"""infer: order, modes, resuming, refusals and bad lines, on a small random model."""

from __future__ import annotations

import io
import json
import sys

import pytest
import tiny_model

from t5x_like import infer, inference, uses
from t5x_like.errors import Exit, UserError

LINES = [
    "the whale <extra_id_0> a ship",
    "white <extra_id_0> one by <extra_id_1> until evening",
    "<extra_id_0> gulls",
    "captain <extra_id_0> " + "near old mast " * 40,
    "rain <extra_id_0>.",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_model.run_directory(tmp_path_factory.mktemp("infer") / "run")


@pytest.fixture
def command(run, monkeypatch):
    """Calls `python -m t5x_like.infer` in this process with beams of 2, 4 tokens and batches of 2."""
    monkeypatch.setattr(inference, "CHUNK", 1)

    def call(**flags) -> None:
        infer.FLAGS.unparse_flags()
        for name in list(infer.FLAGS):
            infer.FLAGS[name].unparse()
        settings = {"workdir": run, "max_length": 4, "beams": 2, "batch_size": 2, **flags}
        infer.FLAGS(["infer", *(f"--{k}={v}" for k, v in settings.items() if v is not None)])
        assert infer.main([]) == Exit.DONE

    return call


def write(path, lines):
    path.write_text("".join(line if line.endswith("\n") else line + "\n" for line in lines), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_filled_in_order_and_cut_with_a_warning(command, tmp_path, capsys):
    source, output = write(tmp_path / "in.txt", LINES), tmp_path / "out.jsonl"
    command(input=source, output=output)
    records = read(output)
    assert [r["inputs"] for r in records] == LINES
    assert [len(r["spans"]) for r in records] == [1, 2, 1, 1, 1]
    for record in records:
        assert record["score"] < 0
        assert "<extra_id_0>" not in record["output"] or record["spans"][0] is None
    assert "1 of 5 texts were longer than --max_input_length=64" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(command, tmp_path, monkeypatch):
    source, output = write(tmp_path / "in.txt", LINES), tmp_path / "out.jsonl"
    sampling = {"beams": None, "temperature": 1.0, "seed": 7}
    command(input=source, output=output, **sampling)
    whole = output.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for kept in (0, ends[0], ends[2], ends[2] + 10, len(whole) - 1, len(whole)):
        output.write_bytes(whole[:kept])
        command(input=source, output=output, **sampling)
        assert output.read_bytes() == whole
    monkeypatch.setattr(uses.TextToText, "results", None)  # nothing left to do: the model is not called
    command(input=source, output=output, **sampling)


def test_another_input_or_setting_is_refused_with_both_values(command, tmp_path):
    source, output = write(tmp_path / "in.txt", LINES[:1]), tmp_path / "out.jsonl"
    command(input=source, output=output)
    before = output.read_bytes()
    with pytest.raises(UserError, match=r"max_length=4.*max_length=5"):
        command(input=source, output=output, max_length=5)
    write(source, LINES[:2])
    with pytest.raises(UserError, match=r"begun with input [0-9a-f]{64}, not [0-9a-f]{64}"):
        command(input=source, output=output)
    assert output.read_bytes() == before
    write(tmp_path / "foreign.jsonl", ["{}"])
    with pytest.raises(UserError, match="settings are not beside it"):
        command(input=source, output=tmp_path / "foreign.jsonl")


def test_stdin_to_stdout(command, monkeypatch, capsys):
    class Stdin:
        buffer = io.BytesIO(b'{"inputs": "the <extra_id_0> ship", "id": 3}\n\n')

    monkeypatch.setattr(sys, "stdin", Stdin)
    command()
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == 3


def test_generate_and_score_agree(command, tmp_path):
    source, output = write(tmp_path / "in.txt", LINES[:3]), tmp_path / "out.jsonl"
    command(input=source, output=output, mode="generate", beams=1)
    generated = read(output)
    pairs = write(
        tmp_path / "pairs.jsonl",
        [json.dumps({"inputs": r["inputs"], "targets": "the whale"}) for r in generated],
    )
    command(input=pairs, output=tmp_path / "scores.jsonl", mode="score", max_length=12)
    for record in read(tmp_path / "scores.jsonl"):
        assert record["tokens"][-1] == "</s>"
        assert record["score"] == pytest.approx(sum(record["token_scores"]))
        assert len(record["tokens"]) == len(record["token_scores"])
    with pytest.raises(UserError, match="scoring needs JSON lines"):
        command(input=source, output=tmp_path / "x.jsonl", mode="score")


def test_nothing_in_nothing_out(command, tmp_path):
    source, output = write(tmp_path / "in.txt", []), tmp_path / "out.jsonl"
    command(input=source, output=output)
    assert output.read_bytes() == b""


BAD = [
    (b'{"inputs": "a <extra_id_0>"', "not JSON"),
    (b'["a <extra_id_0>"]', "expected an object"),
    (b'{"inputs": 3}', "no text in field 'inputs'"),
    (b'{"inputs": "no blank"}', "no blank"),
    (b'{"inputs": "<extra_id_100>"}', "the tokenizer has 100 sentinels"),
    (b'{"inputs": "\xff <extra_id_0>"}', r"not valid UTF-8 \(byte 13\)"),
    (b"[" * 100_000, "not JSON"),
    (b'{"inputs": "a <extra_id_0>", "inputs": "b"}', "the key 'inputs' is there twice"),
    (b'{"inputs": "\\ud800 <extra_id_0>"}', "surrogate"),
    (b'{"inputs": "a <extra_id_0>", "id": NaN}', "NaN or infinity"),
]


@pytest.mark.parametrize("line, message", BAD, ids=[m for _, m in BAD])
def test_a_bad_line_is_named_before_any_work(command, tmp_path, line, message):
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"inputs": "a <extra_id_0>"}\n' + line + b"\n")
    with pytest.raises(UserError, match=message) as caught:
        command(input=source, output=tmp_path / "out.jsonl")
    assert caught.value.where == f"{source}:2"
    assert caught.value.code == Exit.BAD_DATA
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_lines_are_skipped_on_request_and_counted(command, tmp_path, capsys):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = b'{"inputs": "a <extra_id_0> ship"}\n'
    source.write_bytes(good + b"\n".join(line for line, _ in BAD) + b"\n" + good)
    command(input=source, output=output, bad_input="skip")
    assert len(read(output)) == 2
    said = capsys.readouterr().err
    assert f"skipped {source}:3" in said and f"{len(BAD)} bad lines skipped" in said


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"workdir": None}, "one of --workdir and --hf"),
        ({"input": "nowhere.txt"}, "cannot read the input"),
        ({"temperature": 1.0}, "--beams and --temperature exclude each other"),
        ({"beams": None, "top_p": 2.0}, "top_p=2.0 cannot be"),
        ({"max_length": 0}, "max_length=0 cannot be"),
        ({"checkpoint": "first"}, "latest, best or a step"),
        ({"output": "/proc/nothing/out.jsonl"}, "cannot write"),
    ],
)
def test_refusals(command, tmp_path, flags, message):
    source = write(tmp_path / "in.txt", LINES[:1])
    with pytest.raises(UserError, match=message):
        command(**{"input": source, "output": tmp_path / "out.jsonl", **flags})


def test_from_a_hugging_face_directory(command, run, tmp_path):
    from t5x_like import export

    export.FLAGS(["export", f"--workdir={run}", f"--output={tmp_path / 'hf'}", "--checkpoint=latest"])
    export.main([])
    source = write(tmp_path / "in.txt", LINES[:2])
    settings = {"input": source, "max_input_length": 64}
    command(output=tmp_path / "ours.jsonl", **settings)
    command(output=tmp_path / "hf.jsonl", workdir=None, hf=tmp_path / "hf", **settings)
    for ours, theirs in zip(read(tmp_path / "ours.jsonl"), read(tmp_path / "hf.jsonl"), strict=True):
        assert ours["output"] == theirs["output"]
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-5)
