"""infer on encoders: blanks, detection and choices against the models called by hand; resuming, cutting, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_encoder

from t5x_like import infer, inference
from t5x_like.data.wordpiece import from_pieces
from t5x_like.errors import Exit, UserError
from t5x_like.hub.encoders import export_encoder
from t5x_like.training import restore

TOKENIZER = tiny_encoder.tokenizer()
V = TOKENIZER.vocabulary


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "bert": tiny_encoder.run_directory(folder / "bert", tiny_encoder.BERT),
        "electra": tiny_encoder.run_directory(folder / "electra", tiny_encoder.ELECTRA),
    }


@pytest.fixture
def command(runs, tmp_path):
    """Calls infer in this process on lines; gives the records of its output."""
    numbers = itertools.count()

    def call(family, lines, output=None, **flags):
        infer.FLAGS.unparse_flags()
        for name in list(infer.FLAGS):
            infer.FLAGS[name].unparse()
        number = next(numbers)
        is_json = any(isinstance(line, dict) for line in lines)
        source = tmp_path / f"in{number}.{'jsonl' if is_json else 'txt'}"
        text = (json.dumps(line) if isinstance(line, dict) else line for line in lines)
        source.write_text("".join(f"{line}\n" for line in text))
        output = output or tmp_path / f"out{number}.jsonl"
        settings = {"workdir": runs.get(family), "input": source, "output": output, "batch_size": 2, **flags}
        infer.FLAGS(["infer", *(f"--{k}={v}" for k, v in settings.items() if v is not None)])
        assert infer.main([]) == Exit.DONE
        return [json.loads(line) for line in output.read_text().splitlines()]

    return call


def framed(first, second=()):
    """[CLS] A [SEP] B [SEP] by hand, unpadded."""
    ids = [V.cls, *first, V.sep, *second, *([V.sep] if second else [])]
    types = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
    return np.array([ids], np.int32), np.array([types], np.int32)


def masked_log_probs(run, ids, place):
    """Of the model that fills, at a place of the framed row."""
    trained, params = restore.restore_params(run)
    model = trained.model
    if model.kind == "generator-discriminator":
        model, params = model.generator, model.generator_params(params)
    tokens, types = ids
    hidden = model.encode(params, tokens, types)
    return np.array(jax.nn.log_softmax(model.mlm_logits(params, hidden[:, place : place + 1])))[0, 0]


def replaced(run, ids):
    """P(replaced) of every place of the framed row."""
    trained, params = restore.restore_params(run)
    hidden = trained.model.discriminate(params, *ids)
    return np.asarray(jax.nn.sigmoid(trained.model.detection_logits(params, hidden)))[0]


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_blanks_of_both_spellings_are_filled_as_the_model_says(runs, command, family):
    lines = ["the [MASK] and a <mask> sailed", "near [MASK]."]
    records = command(family, lines, candidates=3)
    assert [r["inputs"] for r in records] == lines and [len(r["blanks"]) for r in records] == [2, 1]
    encode = TOKENIZER.encode
    ids = [*encode("the"), V.mask, *encode("and a"), V.mask, *encode("sailed")]
    total = 0.0
    for k, place in enumerate(i + 1 for i, index in enumerate(ids) if index == V.mask):
        log_probs = masked_log_probs(runs[family], framed(ids), place)[: V.size]
        log_probs[[V.pad, V.unk, V.cls, V.sep, V.mask]] = -np.inf  # what stands for no text
        best = np.argsort(-log_probs)[:3]
        blank = records[0]["blanks"][k]
        assert [c["text"] for c in blank] == [
            TOKENIZER.piece_text(i).strip() or TOKENIZER.id_to_piece(i) for i in best.tolist()
        ]
        assert [c["probability"] for c in blank] == pytest.approx(np.exp(log_probs[best]).tolist(), rel=1e-4)
        total += float(log_probs[best[0]])
    assert records[0]["score"] == pytest.approx(total, rel=1e-4)
    assert "[MASK]" not in records[0]["output"] and "<mask>" not in records[0]["output"]
    assert records[0]["output"].startswith("the") and records[0]["output"].endswith("sailed")


def test_a_long_text_is_cut_around_its_blank(command, capsys):
    text = "gulls " * 100 + "near old [MASK] turn over " + "rain " * 100
    (record,) = command("bert", [text])
    assert record["output"].count("gulls") >= 100 and "[MASK]" not in record["output"]
    assert (
        f"1 of 1 texts were longer than --max_input_length={tiny_encoder.LENGTH}" in capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"its blanks lie 102 tokens apart; the model takes 46"):
        command("bert", ["[MASK] " + "rain " * 100 + "[MASK]"])


def test_detection_is_that_of_the_discriminator(runs, command, capsys):
    text = "the whale and a ship sailed"
    record, long = command("electra", [text, "rain " * 100], mode="detect", threshold=0.3)
    ids = TOKENIZER.encode(text)
    expected = replaced(runs["electra"], framed(ids))[1:-1]
    assert record["tokens"] == [TOKENIZER.id_to_piece(i) for i in ids]
    assert record["probabilities"] == pytest.approx(expected.tolist(), rel=1e-4)
    assert [w["text"] for w in record["words"]] == text.split()
    marked = [f"*{w['text']}*" if w["probability"] > 0.3 else w["text"] for w in record["words"]]
    assert record["output"] == " ".join(marked)
    assert [w["text"] for w in record["replaced"]] == [m.strip("*") for m in marked if "*" in m]
    assert len(long["tokens"]) == tiny_encoder.LENGTH - 2
    for threshold in (float("nan"), 1.5):
        with pytest.raises(UserError, match="probabilities go from 0 to 1"):
            command("electra", [text], mode="detect", threshold=threshold)
    assert "1 of 2 texts were longer" in capsys.readouterr().err


TEMPLATE = "{inputs} near {label} water"


def test_bert_chooses_by_the_probability_at_the_label(runs, command):
    (record,) = command(
        "bert", ["a ship"], mode="choose", template=TEMPLATE, labels="good=white,bad=rain", values="2,4"
    )
    encode = TOKENIZER.encode
    before = encode("a ship near")
    log_probs = masked_log_probs(runs["bert"], framed([*before, V.mask, *encode("water")]), len(before) + 1)
    (white,), (rain,) = encode("white"), encode("rain")
    share = 1 / (1 + np.exp(log_probs[rain] - log_probs[white]))
    assert record["probabilities"] == pytest.approx({"good": share, "bad": 1 - share}, rel=1e-4)
    assert record["choice"] == ("good" if share > 0.5 else "bad")
    assert record["value"] == pytest.approx(2 * share + 4 * (1 - share), rel=1e-4)


def test_a_label_of_several_pieces_is_read_from_left_to_right(runs, command, capsys):
    encode = TOKENIZER.encode
    word = next(w for w in ("raining", "shipwater", "whalemast") if len(encode(w)) == 2)
    one, two = encode(word)
    (record,) = command("bert", ["a ship"], mode="choose", template=TEMPLATE, labels=f"white,{word}")
    assert f"the label words differ in pieces (white 1, {word} 2)" in capsys.readouterr().err
    before, after, (white,) = encode("a ship near"), encode("water"), encode("white")
    place = len(before) + 1
    short = masked_log_probs(runs["bert"], framed([*before, V.mask, *after]), place)[white]
    long = masked_log_probs(runs["bert"], framed([*before, V.mask, V.mask, *after]), place)[one]
    long += masked_log_probs(runs["bert"], framed([*before, one, V.mask, *after]), place + 1)[two]
    share = 1 / (1 + np.exp(long - short))
    assert record["probabilities"]["white"] == pytest.approx(share, rel=1e-4)


def test_electra_chooses_what_looks_least_replaced(runs, command):
    """Ni & Kao 2022: score 1 - P(replaced), normalised; a value is V1 + (V2 - V1) P at one anchor word."""
    encode = TOKENIZER.encode
    template, words = "{first} [SEP] near {label} , {second}", ("white", "old", "rain")
    record = {"first": "a ship", "second": "gulls turn"}
    (found,) = command("electra", [record], mode="choose", template=template, labels=",".join(words))
    scores = []
    for word in words:
        second = [*encode("near"), *encode(word), *encode(", gulls turn")]
        ids = framed(encode("a ship"), second)
        scores.append(1 - replaced(runs["electra"], ids)[len(encode("a ship")) + 2 + len(encode("near"))])
    shares = np.array(scores) / np.sum(scores)
    assert found["probabilities"] == pytest.approx(dict(zip(words, shares, strict=True)), rel=1e-4)
    assert found["choice"] == words[int(np.argmax(scores))]
    flags = {"mode": "choose", "template": template, "labels": "white", "values": "1,5"}
    (found,) = command("electra", [record], **flags)
    assert found["value"] == pytest.approx(1 + 4 * (1 - scores[0]), rel=1e-4) and "choice" not in found


def test_the_text_gives_way_and_the_template_stays(command, capsys):
    found = command("bert", ["ship " * 100, "ship"], mode="choose", template=TEMPLATE, labels="white,rain")
    assert all(set(f["probabilities"]) == {"white", "rain"} for f in found)
    assert "1 of 2 texts were longer" in capsys.readouterr().err
    with pytest.raises(UserError, match="the template alone has"):
        command("bert", ["x"], mode="choose", template=TEMPLATE + " old" * 60, labels="white,rain")


def test_a_stopped_run_goes_on(command, tmp_path):
    lines = ["the [MASK]", "a [MASK] ship", "[MASK] gulls"]
    output = tmp_path / "out.jsonl"
    command("bert", lines, output)
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index(b"\n") + 5])
    command("bert", lines, output)
    assert output.read_bytes() == whole
    with pytest.raises(UserError, match="begun with top 5, not 2"):
        command("bert", lines, output, candidates=2)


def test_from_a_hugging_face_directory(runs, command, tmp_path):
    folder = tmp_path / "hf"
    trained, params = restore.restore_params(runs["electra"])
    export_encoder(trained.model, params, folder, TOKENIZER)
    flags = {"max_input_length": tiny_encoder.LENGTH}
    for mode, line in (("fill", "the [MASK] sailed"), ("detect", "the ship sailed")):
        (ours,) = command("electra", [line], mode=mode, **flags)
        (theirs,) = command(None, [line], hf=folder, mode=mode, **flags)
        assert ours["output"] == theirs["output"]
    pieces = [TOKENIZER.id_to_piece(i) for i in range(V.size)]
    from_pieces([*reversed(pieces)], lowercase=True).save(folder)
    with pytest.raises(UserError, match=f"pads with id {V.size - 1 - V.pad}, and the model with {V.pad}"):
        command(None, ["the [MASK] sailed"], hf=folder, **flags)
    from_pieces([*pieces, *(f"more{i}" for i in range(40))], lowercase=True).save(folder)
    with pytest.raises(UserError, match=f"has {V.size + 40} ids and the model rows for 128"):
        command(None, ["the [MASK] sailed"], hf=folder, **flags)
    TOKENIZER.save(folder)
    shutil.rmtree(folder / "generator")
    assert command(None, ["the ship"], hf=folder, mode="detect", **flags)
    with pytest.raises(UserError, match="came without its generator"):
        command(None, ["the [MASK]"], hf=folder)


CHOOSE = {"mode": "choose", "template": TEMPLATE, "labels": "white,rain"}


@pytest.mark.parametrize(
    "family, line, flags, message",
    [
        ("bert", "no blank", {}, r"no blank: write \[MASK\] where"),
        ("bert", "a [BLANK] ship", {}, r"no blank: \[BLANK\] is no mask; write \[MASK\]"),
        ("bert", "a <extra_id_0> ship", {}, r"<extra_id_0> is no mask"),
        ("bert", "a ship", {"mode": "detect"}, "Encoder cannot detect; it can fill or choose"),
        ("electra", "a ship", {"mode": "generate"}, "Electra cannot generate"),
        ("bert", "a [MASK]", {"beams": 2}, "--beams serves to generate"),
        ("bert", "a [MASK]", {"labels": "white,rain"}, "--labels serves to choose"),
        ("bert", "a [MASK]", {"max_input_length": 65}, "is 65; the model has 64 positions"),
        ("bert", "a", {"mode": "choose"}, "needs --template"),
        ("bert", "a", {**CHOOSE, "labels": ""}, "needs --labels"),
        ("bert", "a", {**CHOOSE, "labels": "white"}, "1 label words; a choice needs two"),
        ("bert", "a", {**CHOOSE, "labels": "white,quickly"}, "cannot spell the label word 'quickly'"),
        ("electra", "a", {**CHOOSE, "labels": "white,raining"}, r"is 2 pieces \(rain ##ing\)"),
        ("bert", "a", {**CHOOSE, "labels": "a=white,a=rain"}, "two classes have one name"),
        ("bert", "a", {**CHOOSE, "values": "1,2,3"}, "3 values for 2 label words"),
        ("bert", "a", {**CHOOSE, "values": "1,much"}, "--values takes finite numbers"),
        ("bert", "a", {**CHOOSE, "values": "nan,1"}, "--values takes finite numbers"),
        ("bert", "a", {**CHOOSE, "values": "1e308,-1e308"}, "--values takes finite numbers"),
        ("bert", "a", {**CHOOSE, "template": "{text} {label}"}, "no text in field 'text'"),
        ("bert", "a", {**CHOOSE, "template": "{inputs} it"}, r"the template has \{label\} 0 times"),
        ("bert", "a", {**CHOOSE, "template": "it {label}"}, "names no text"),
        ("bert", "a", {**CHOOSE, "template": "{inputs} {label"}, "cannot be read"),
        ("bert", "a", {**CHOOSE, "template": "{inputs!r} {label}"}, "no field name"),
        ("bert", "a", {**CHOOSE, "template": "{inputs.x} {label}"}, "no field name"),
        ("bert", "a", {**CHOOSE, "template": "{inputs} [SEP] b [SEP] {label}"}, "3 segments"),
    ],
)  # fmt: skip
def test_refusals(command, family, line, flags, message):
    with pytest.raises(UserError, match=message):
        command(family, [line], **flags)


def test_results_that_are_not_finite_are_no_json(tmp_path):
    output = inference.Output(tmp_path / "out.jsonl", {})
    with pytest.raises(UserError, match="the model's numbers are not finite"):
        output.append([{"value": float("nan")}])
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_another_tokenizer_for_a_run(runs, command, tmp_path):
    line, own = "the [MASK] sailed", runs["bert"] / "tokenizer"
    assert command("bert", [line], tokenizer=own) == command("bert", [line])
    pieces = [TOKENIZER.id_to_piece(i) for i in range(V.size)]
    from_pieces(pieces[:-1], lowercase=True).save(tmp_path / "small")
    with pytest.raises(UserError, match=f"has {V.size - 1} ids, and the run's {V.size}"):
        command("bert", [line], tokenizer=tmp_path / "small")
    from_pieces([*reversed(pieces)], lowercase=True).save(tmp_path / "turned")
    with pytest.raises(UserError, match=f"has {V.size - 1 - V.pad} as its padding, and the run's {V.pad}"):
        command("bert", [line], tokenizer=tmp_path / "turned")


def test_a_discriminator_of_an_ablation_detects_nothing(command, tmp_path):
    model = tiny_encoder.ELECTRA.model
    other = dataclasses.replace(model, head="mlm", encoder=dataclasses.replace(model.encoder, mlm_head=True))
    objective = dataclasses.replace(tiny_encoder.ELECTRA.objective, task="replace_mlm")
    run = dataclasses.replace(tiny_encoder.ELECTRA, model=other, objective=objective)
    workdir = tiny_encoder.run_directory(tmp_path / "run", run)
    with pytest.raises(UserError, match="trained with head=mlm"):
        command(None, ["a ship"], workdir=workdir, mode="detect")
