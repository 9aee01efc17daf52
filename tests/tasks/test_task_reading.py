"""Readers on tiny files in the published formats, and what they refuse."""

from __future__ import annotations

import json

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from t5x_like.data import example_proto, text_dataset
from t5x_like.errors import UserError
from t5x_like.tasks import definitions, reading
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.examples import Example
from t5x_like.tasks.reading import read_split


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        stem, _, extension = name.rpartition("_")
        (folder / f"{stem}.{extension}").write_text(text, encoding="utf-8")
    return folder


def read(name, folder, role="train", **kwargs):
    return read_split(definitions.find(name), folder, role, **kwargs)


def test_cola_has_no_header_but_in_its_test_file(tmp_path):
    write(
        tmp_path,
        train_tsv='gj04\t1\t\tHe said "go.\ngj04\t0\t*\tWent he.\n',
        test_tsv="index\tsentence\n0\tShe ran.\n",
    )
    assert read("cola", tmp_path) == [Example("0", ('He said "go.',), 1), Example("1", ("Went he.",), 0)]
    assert read("cola", tmp_path, "test") == [Example("0", ("She ran.",))]


def test_mrpc_has_names_of_its_own_and_a_byte_order_mark(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    write(tmp_path, train_tsv=header + "1\t7\t8\tA one .\tA two .\r\n")
    assert read("mrpc", tmp_path) == [Example("0", ("A one .", "A two ."), 1)]


def test_mnli_takes_the_gold_label_and_its_own_dev_file(tmp_path):
    header = "index\tpromptID\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
    rows = {
        name: header + f"0\t1\t(P)\tP {name}\tH\tneutral\tcontradiction\n"
        for name in ("matched", "mismatched")
    }
    write(tmp_path, train_tsv=header + "0\t1\t(P)\tP\tH\tneutral\tentailment\n")
    for name, text in rows.items():
        (tmp_path / f"dev_{name}.tsv").write_text(text)
    assert read("mnli", tmp_path) == [Example("0", ("P", "H"), 0)]
    assert read("mnli", tmp_path, "validation") == [Example("0", ("P matched", "H"), 2)]
    assert read("mnli_mismatched", tmp_path, "validation") == [Example("0", ("P mismatched", "H"), 2)]


def test_stsb_and_qqp(tmp_path):
    write(tmp_path / "s", train_tsv="index\tgenre\tsentence1\tsentence2\tscore\n3\tmain\tA\tB\t2.4\n")
    assert read("stsb", tmp_path / "s")[0].label == 2.4
    write(tmp_path / "q", dev_tsv="id\tquestion1\tquestion2\tis_duplicate\n9\tA?\tB?\t1\n9\tA?\n")
    told = []
    found = read("qqp", tmp_path / "q", "validation", bad_input="skip", say=told.append)
    assert found == [Example("9", ("A?", "B?"), 1)]
    assert told[0].endswith("dev.tsv:3: 2 fields, and the header names 4") and told[1] == "1 bad line skipped"
    with pytest.raises(UserError) as refused:
        read("qqp", tmp_path / "q", "validation")
    assert str(refused.value.where).endswith("dev.tsv:3")


def test_squad_json(tmp_path):
    qas = [
        {
            "id": "a",
            "question": "Who?",
            "answers": [{"text": "Ann", "answer_start": 4}],
            "is_impossible": False,
        },
        {"id": "b", "question": "Where?", "answers": [], "is_impossible": True},
    ]
    document = {
        "version": "v2.0",
        "data": [{"title": "T", "paragraphs": [{"context": "Now Ann.", "qas": qas}]}],
    }
    (tmp_path / "train-v2.0.json").write_text(json.dumps(document))
    assert read("squad_v2", tmp_path) == [
        Example("a", ("Who?", "Now Ann."), True, ("Ann",), (4,)),
        Example("b", ("Where?", "Now Ann."), True),
    ]
    assert read("squad", tmp_path) is None  # another version's file
    qas[0]["answers"][0]["answer_start"] = 3
    (tmp_path / "train-v2.0.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="'Ann' is not at character 3 of the context: ' An' is"):
        read("squad_v2", tmp_path)


def test_squad_as_json_lines(tmp_path):
    row = {"context": "Now Ann.", "question": "Who?", "answers": ["Ann"], "answer_start": [4], "id": "x"}
    write(tmp_path, train_jsonl=json.dumps(row))
    assert read("squad", tmp_path) == [Example("x", ("Who?", "Now Ann."), True, ("Ann",), (4,))]


def test_conll_columns_become_bio(tmp_path):
    first = "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\nAnn NNP I-NP I-PER\nBob NNP B-NP B-PER\n"
    text = f"-DOCSTART- -X- -X- O\n\n{first}\nx X X O\n"
    (tmp_path / "eng.train").write_text(text)
    found = read("conll2003_ner", tmp_path)
    names = [definitions.ENTITIES[i] for i in found[0].label]
    assert found[0].texts == ("EU", "rejects", "Ann", "Bob") and names == ["B-ORG", "O", "B-PER", "B-PER"]
    assert len(found) == 2


def test_swag_csv(tmp_path):
    header = ",sent1,sent2,ending0,ending1,ending2,ending3,label\n"
    write(tmp_path, train_csv=header + '0,"She, sits.",She,"eats, ""now"".",flies.,is.,was.,2\n')
    assert read("swag", tmp_path) == [
        Example("0", ("She, sits.", 'She eats, "now".', "She flies.", "She is.", "She was."), 2)
    ]


def test_tfds(tmp_path):
    """A folder as TFDS writes it; numbers become the names that it keeps beside the shards."""
    folder = tmp_path / "glue"
    folder.mkdir()
    text_dataset.write_description(folder, "glue", {"train": [(2, 10)], "validation": [(1, 5)]}, "")
    (folder / "label.labels.txt").write_text("positive\nnegative\n")  # the other way round
    for split, examples in (("train", [("good", 0), ("bad", 1)]), ("validation", [("fine", 0)])):
        writer = ArrayRecordWriter(str(folder / text_dataset.shard_name("glue", split, 0, 1)), "group_size:1")
        for text, label in examples:
            writer.write(proto(text, label))
        writer.close()
    assert [(e.texts, e.label) for e in read("sst2", folder)] == [(("good",), 1), (("bad",), 0)]
    assert len(read("sst2", folder, "validation")) == 1
    assert read("sst2", folder, "test") is None
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="stored as tfrecord"):
        read("sst2", folder)


def test_nested_features_of_tfds(tmp_path):
    """SQuAD 2.0's: two features have parts of the same names, and only one of them is the answer."""
    text_dataset.write_description(tmp_path, "squad", {"train": [(2, 10)]}, "")
    path = str(tmp_path / text_dataset.shard_name("squad", "train", 0, 1))
    writer = ArrayRecordWriter(path, "group_size:1")
    for answers, plausible in (((b"Ann", 4), None), (None, (b"Now", 0))):
        writer.write(
            example(
                context=b"Now Ann.",
                question=b"Who?",
                **{"answers/text": answers and answers[0], "answers/answer_start": answers and answers[1]},
                **{"plausible_answers/text": plausible and plausible[0]},
                **{"plausible_answers/answer_start": plausible and plausible[1]},
            )
        )
    writer.close()
    assert read("squad_v2", tmp_path) == [
        Example("0", ("Who?", "Now Ann."), True, ("Ann",), (4,)),
        Example("1", ("Who?", "Now Ann."), True),
    ]


def example(**features: bytes | int | None) -> bytes:
    """A serialised Example; None is a feature without values, as TFDS writes an empty sequence."""
    filled = example_proto.write({name: value for name, value in features.items() if value is not None})
    for name, value in features.items():
        if value is None:
            entry = b"\n" + bytes([len(name)]) + name.encode() + b"\x12\x02\n\0"
            filled += b"\n" + bytes([len(entry) + 2]) + b"\n" + bytes([len(entry)]) + entry
    return filled


def proto(text: str, label: int) -> bytes:
    """An Example {sentence, label, idx}: by TensorFlow's field numbers."""
    parts = example_proto.write({"sentence": text.encode()})
    for name, value in ((b"label", label), (b"idx", (1 << 64) - 1)):
        number = b""
        while value > 127:
            number, value = number + bytes([value & 127 | 128]), value >> 7
        number += bytes([value])
        packed = b"\n" + bytes([len(number)]) + number
        feature = b"\x1a" + bytes([len(packed)]) + packed
        entry = b"\n" + bytes([len(name)]) + name + b"\x12" + bytes([len(feature)]) + feature
        field = b"\n" + bytes([len(entry)]) + entry
        parts += b"\n" + bytes([len(field)]) + field
    return parts


def test_values_of_a_record():
    assert example_proto.read_values(proto("x", 300)) == {"sentence": [b"x"], "label": [300], "idx": [-1]}
    floats = b"\n\x13\n\x11\n\x01f\x12\x0c\x12\n\n\x08\x00\x00\x80?\x00\x00\x00\xbf"
    assert example_proto.read_values(floats) == {"f": [1.0, -0.5]}


# ---- refusals ------------------------------------------------------------------------------------

MINE = Task(name="mine", kind="classification", text=("title",), labels=("no", "yes"), metrics=("accuracy",))


@pytest.mark.parametrize(
    "line, told",
    [
        ('{"title": "x", "label": 2}', "label 2 is outside 0 to 1 (no, yes)"),
        ('{"title": "x", "label": "yse"}', "label 'yse' is none of no, yes; did you mean yes?"),
        ('{"title": "x", "label": 0.5}', "label 0.5 is none of no, yes"),
        ('{"title": "x", "label": null}', "no label in column 'label'"),
        ('{"title": "x", "label": -1}', "label -1 marks what has no label"),
        ('{"title": "x", "label": {"a": 1}}', "label {'a': 1} is neither a text nor a finite number"),
        ('{"title": "x", "label": ["yes"]}', "label ['yes'] is neither a text nor a finite number"),
        ('{"title": "x", "label": NaN}', "label nan is neither a text nor a finite number"),
        ('{"title": "x", "label": ' + "1" * 400 + "}", "label 1111"),
        ('{"title": 3, "label": 1}', "no text in column 'title'"),
        (r'{"title": "\ud83d x", "label": 1}', "half of a surrogate pair"),
        ('{"title": "x"', "not JSON"),
        ('{"title": "x", "label": 1, "label": 0}', "the key 'label' is there twice"),
        ("[1]", "expected an object"),
    ],
)
def test_broken_rows(tmp_path, line, told):
    write(tmp_path, train_jsonl='{"title": "fine", "label": "yes"}\n' + line + "\n")
    with pytest.raises(UserError) as refused:
        read_split(MINE, tmp_path, "train")
    assert told in refused.value.what and str(refused.value.where).endswith("train.jsonl:2")
    said = []
    kept = read_split(MINE, tmp_path, "train", bad_input="skip", say=said.append)
    assert kept == [Example("0", ("fine",), 1)] and told in said[0]


def test_missing_columns_name_those_there_are(tmp_path):
    write(tmp_path, train_csv="titel,label\nx,1\n")
    with pytest.raises(UserError) as refused:
        read_split(MINE, tmp_path, "train", bad_input="skip")
    assert refused.value.what == "no column 'title'; there are: titel, label"
    assert "did you mean 'titel'" in str(refused.value.help) and str(refused.value.where).endswith(
        "train.csv:2"
    )


def test_numbers_out_of_range(tmp_path):
    write(tmp_path, train_jsonl='{"text": "x", "label": 4.5}\n')
    with pytest.raises(UserError, match=r"label 4.5 is outside -4 to 4"):
        read("sentiment_regression", tmp_path)


def test_minus_one_is_no_label_of_a_test_split(tmp_path):
    rows = {"train": '{"sentence1": "a", "sentence2": "b", "label": -1}\n'}
    write(tmp_path, train_jsonl=rows["train"], test_jsonl=rows["train"])
    for name in ("stsb", "mrpc"):
        assert read(name, tmp_path, "test") == [Example("0", ("a", "b"))]
        with pytest.raises(UserError, match="label -1 marks what has no label") as refused:
            read(name, tmp_path)
        assert str(refused.value.where).endswith("train.jsonl:1")
    write(tmp_path / "tags", test_jsonl='{"tokens": ["a", "b"], "tags": [-1, -1]}')
    assert read("conll2003_ner", tmp_path / "tags", "test") == [Example("0", ("a", "b"))]


@pytest.mark.parametrize("role", ["train", "validation", "test"])
@pytest.mark.parametrize("text, bad_input", [("", "fail"), ("{}x\n", "skip")])
def test_a_file_without_examples(tmp_path, role, text, bad_input):
    good = '{"title": "x", "label": 1}\n' * 4
    write(tmp_path, **{f"{r}_jsonl": text if r == role else good for r in ("train", "validation", "test")})
    with pytest.raises(UserError, match=f"the {role} split holds no examples") as refused:
        reading.read_splits(MINE, tmp_path, bad_input=bad_input, say=str)
    assert str(refused.value.where).endswith(f"{role}.jsonl")


def test_blank_lines_and_columns_named_twice(tmp_path):
    write(tmp_path, train_tsv="title\tlabel\nx\t1\n\n")
    assert read_split(MINE, tmp_path, "train") == [Example("0", ("x",), 1)]
    for extension, comma in (("tsv", "\t"), ("csv", ",")):
        folder = write(tmp_path / extension)
        (folder / f"train.{extension}").write_text(comma.join(["title", "label", "title"]) + "\n")
        with pytest.raises(UserError, match="names column 'title' twice"):
            read_split(MINE, folder, "train")


@pytest.mark.parametrize("info", ['{"splits": [', '{"splits": 3}', "[]"])
def test_a_damaged_tfds_folder(tmp_path, info):
    (tmp_path / "dataset_info.json").write_text(info)
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be understood"):
        read_split(MINE, tmp_path, "train")


@pytest.mark.parametrize(
    "answer, told",
    [
        ({"text": "Now", "answer_start": -8}, "answer_start -8 is outside"),
        ({"text": "Now", "answer_start": 99}, "answer_start 99 is outside"),
        ({"text": "", "answer_start": 0}, "an answer is empty"),
        ({"text": "Now"}, "no 'answer_start'"),
        ("Now", "answers are a list of"),
    ],
)
def test_answers_that_cannot_be(tmp_path, answer, told):
    qas = [{"id": f"q{i}", "question": "When?", "answers": [a]} for i, a in enumerate(
        ({"text": "Now", "answer_start": 0}, answer)
    )]  # fmt: skip
    path = tmp_path / "train-v1.1.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Now Ann.", "qas": qas}]}]}))
    with pytest.raises(UserError) as refused:
        read("squad", tmp_path)
    assert told in refused.value.what and refused.value.where == f"{path}, question q1"
    kept = read("squad", tmp_path, bad_input="skip", say=str)
    assert kept is not None and [e.id for e in kept] == ["q0"]


def test_tags_must_be_as_many_as_words(tmp_path):
    write(tmp_path, train_jsonl='{"tokens": ["a", "b"], "tags": ["O"]}\n')
    with pytest.raises(UserError, match="2 words and 1 tags"):
        read("conll2003_ner", tmp_path)


def test_splits(tmp_path):
    rows = [json.dumps({"title": f"t{i}", "label": i % 2}) for i in range(50)]
    write(tmp_path, train_jsonl="\n".join(rows), test_jsonl='{"title": "u"}\n')
    told = []
    task, splits = reading.read_splits(MINE, tmp_path, say=told.append)
    assert (len(splits.train), len(splits.validation), splits.test, splits.held_out) == (45, 5, None, True)
    assert {e.id for e in splits.train} | {e.id for e in splits.validation} == {str(i) for i in range(50)}
    assert "not labelled" in told[0]
    again = reading.read_splits(task, tmp_path, say=told.append)[1]
    assert again.validation == splits.validation and again.fingerprint == splits.fingerprint
    with pytest.raises(UserError, match="no training file"):
        reading.read_splits(MINE, write(tmp_path / "empty"))
    (tmp_path / "train.tsv").write_text("title\tlabel\n")
    with pytest.raises(UserError, match="two files for the train split"):
        reading.read_splits(MINE, tmp_path)


def test_labels_come_from_the_data_where_the_task_has_none(tmp_path):
    write(tmp_path, train_jsonl="\n".join(json.dumps({"title": "x", "label": v}) for v in (10, 9, 9, 10)))
    task, splits = reading.read_splits(Task(**{**vars(MINE), "labels": ()}), tmp_path)
    assert task.labels == ("9", "10")
    assert {e.label for e in splits.train} <= {0, 1}


def labelled(folder, *values, **change):
    """MINE with the labels of these rows; `values` are JSON."""
    write(folder, train_jsonl="".join(f'{{"title": "x", "label": {v}}}\n' for v in values))
    return reading.read_splits(Task(**{**vars(MINE), "labels": (), **change}), folder, held_out=0.01)


def test_labels_of_the_data_are_checked(tmp_path):
    task, splits = labelled(tmp_path, 0, 0.0, '"1.0"', 1)
    assert task.labels == ("0", "1")
    assert [e.label for e in [*splits.train, *splits.validation]].count(1) == 2
    with pytest.raises(UserError, match="needs two labels or more"):
        labelled(tmp_path, 0, 0.0)
    with pytest.raises(UserError, match="f1 is for two labels, and there are 3"):
        labelled(tmp_path, 0, 1, 2, metrics=("f1",))
    with pytest.raises(UserError, match=r"label \{'a': 0\} is neither") as refused:
        labelled(tmp_path, 0, 1, '{"a": 0}')
    assert str(refused.value.where).endswith("train.jsonl:3")


def test_a_number_is_no_id_where_the_labels_are_numbers(tmp_path):
    write(tmp_path, validation_jsonl='{"title": "x", "label": 0}')
    with pytest.raises(UserError, match="label 0 is none of 1, 2"):
        labelled(tmp_path, 1, 2)


def test_tasks_of_files(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "kind": "classification", "text": ["title"], "metrics": ["accuracy"]}')
    assert definitions.find(str(path)).text == ("title",)
    path.write_text('{"name": "mine", "kind": "classification", "text": ["title"], "metrics": ["pearson"]}')
    with pytest.raises(UserError, match="has no metric 'pearson'"):
        definitions.find(str(path))
    with pytest.raises(UserError, match="no task 'rotten_tomatos'") as refused:
        definitions.find("rotten_tomatos")
    assert refused.value.help == "did you mean rotten_tomatoes?"


def test_every_definition_can_be():
    for task in definitions.TASKS:
        definitions.check(task)
