from __future__ import annotations

import json
import os
import sys

import fsspec
import numpy as np
import pytest

from t5x_like.data import example_proto, sources, text_dataset
from t5x_like.data.documents import Document, Settings
from t5x_like.data.reading import blocks, parse
from t5x_like.errors import Exit, UserError


def names(found):
    return [file.name for file in found]


def read(found, **settings):
    chosen = Settings(**settings)
    return [
        item for block in blocks(found, chosen, 1 << 20) for item in parse(block, found[block.file], chosen)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.jsonl.gz", "sub/c.txt.zst", "sub/.hidden.txt", "_old.txt", "notes.pdf"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_files_globs_and_folders(folder):
    assert names(sources.find(["b.txt"])) == ["b.txt"]
    assert names(sources.find(["*.txt"])) == ["_old.txt", "b.txt"]
    assert names(sources.find(["."])) == ["a.jsonl.gz", "b.txt", "sub/c.txt.zst"]
    assert names(sources.find(["sub/"])) == ["sub/c.txt.zst"]
    assert names(sources.find(["**/*.zst"])) == ["sub/c.txt.zst"]
    assert names(sources.find([str(folder / "b.txt")])) == [str(folder / "b.txt")]


def test_order_is_as_given_and_nothing_comes_twice(folder):
    assert names(sources.find(["sub", "b.txt", "*.txt"])) == ["sub/c.txt.zst", "b.txt", "_old.txt"]


def test_kinds(folder):
    for name in ("x.json", "x.ndjson.xz", "x.parquet", "X.TXT.GZ"):
        (folder / name).write_bytes(b"x")
    found = [sources.find([n])[0] for n in ("x.json", "x.ndjson.xz", "x.parquet", "X.TXT.GZ", "a.jsonl.gz")]
    assert [(f.format, f.compression) for f in found] == [
        ("jsonl", None),
        ("jsonl", "xz"),
        ("parquet", None),
        ("text", "gzip"),
        ("jsonl", "gzip"),
    ]


def test_the_embedded_corpus():
    (file,) = sources.find(["embedded"])
    assert (file.name, file.format, file.compression) == ("embedded", "jsonl", "xz")
    assert len([d for d in read([file]) if isinstance(d, Document)]) == 535


def test_the_probe_tells_contents_of_equal_size_apart(folder):
    (folder / "one.txt").write_bytes(b"a" * 300_000)
    (folder / "two.txt").write_bytes(b"a" * 299_999 + b"b")
    one, two = sources.find(["one.txt", "two.txt"])
    assert one.size == two.size
    assert one.probe != two.probe


def test_urls():
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/one.txt", b"first\n\nsecond")
    memory.pipe("/corpus/two.txt", b"third")
    for name in ("memory://corpus", "memory://corpus/*.txt"):
        found = sources.find([name])
        assert names(found) == ["memory:///corpus/one.txt", "memory:///corpus/two.txt"]
        assert [item.text for item in read(found)] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("name", "says", "helps"),
    [
        ("b.tx", "no such file", "did you mean"),
        ("c*.txt", "no file matches", ""),
        ("nowhere/deep/x.txt", "no such file", "does not exist either"),
        ("notes.pdf", "unknown kind of file", "known: .txt"),
        ("empty", "no text in this folder", "files end in"),
        ("nosuch://x/y.txt", "cannot open this URL", "gcs"),
    ],
)
def test_names_that_stand_for_nothing(folder, name, says, helps):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=says) as error:
        sources.find([name])
    assert error.value.where == name
    assert helps in str(error.value.help)


def test_no_input_at_all():
    with pytest.raises(UserError, match="--input is missing"):
        sources.find([])


def test_gs_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    fsspec.registry  # noqa: B018 (loads lazily)
    with pytest.raises(UserError) as error:
        sources.find(["gs://bucket/x.txt"])
    assert ".[gcs]" in str(error.value.help)


def test_a_file_that_disappears_is_an_error_of_the_user(folder):
    found = sources.find(["b.txt"])
    (folder / "b.txt").unlink()
    with pytest.raises(UserError, match="cannot read this file") as error:
        read(found)
    assert error.value.where == "b.txt"


# ---- Parquet


def test_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    texts = [f"document {i}" for i in range(100)]
    table = pyarrow.table({"text": [*texts, None], "url": ["u"] * 101, "n": list(range(101))})
    parquet.write_table(table, folder / "x.parquet", row_group_size=30)
    items = read(sources.find(["x.parquet"]))
    assert [(d.text, d.url) for d in items[:-1]] == [(text, "u") for text in texts]
    assert (items[-1].kind, items[-1].line) == ("missing_field", 101)
    with pytest.raises(UserError, match="no column 'txt'") as error:
        read(sources.find(["x.parquet"]), text_field="txt")
    assert error.value.help == "did you mean --text_field=text?"
    with pytest.raises(UserError, match="int64, not text"):
        read(sources.find(["x.parquet"]), text_field="n")


def test_parquet_with_bad_text_and_damage(folder):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    bad = pyarrow.array([b"good", b"b\xffd"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": bad}), folder / "x.parquet")
    items = read(sources.find(["x.parquet"]))
    assert items[0] == Document("good", source=items[0].source, position=1)
    assert (items[1].kind, items[1].line) == ("invalid_utf8", 2)
    content = (folder / "x.parquet").read_bytes()
    (folder / "x.parquet").write_bytes(content[: len(content) // 2])
    (item,) = read(sources.find(["x.parquet"]))
    assert item.kind == "damaged"


def test_a_parquet_bomb_is_never_opened(folder):
    """S07."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    texts = ["good", "a" * (80 << 20)]
    parquet.write_table(
        pyarrow.table({"text": texts}),
        folder / "x.parquet",
        compression="zstd",
        row_group_size=1,
        use_dictionary=False,
    )
    assert (folder / "x.parquet").stat().st_size < 1 << 20
    one, two = read(sources.find(["x.parquet"]), max_document_bytes=1 << 30)
    assert one.text == "good" and two.kind == "decompression_bomb" and "row group 2" in two.detail


def test_parquet_without_its_package_names_the_extra(folder, monkeypatch):
    (folder / "x.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError) as error:
        read(sources.find(["x.parquet"]))
    assert error.value.help == "pip install '.[text]'"


# ---- TFDS


def tfds_folder(path, texts, shards=2):
    path.mkdir(parents=True)
    sizes = []
    for index in range(shards):
        part = texts[index::shards]
        size = text_dataset.write_shard(path / text_dataset.shard_name("text", "train", index, shards), part)
        sizes.append((len(part), size))
    text_dataset.write_description(path, "text", {"train": sizes}, "a test")
    return path


TEXTS = [(f"document {i} é", f"u{i}") for i in range(50)]


def test_a_tfds_folder_is_read_directly(tmp_path):
    path = tfds_folder(tmp_path / "text" / "1.0.0", TEXTS)
    for name in (str(path), f"tfds:{path}", f"tfds:{path}:train"):
        found = sources.find([name])
        assert len(found) == 2
        assert sorted((d.text, d.url) for d in read(found)) == sorted(TEXTS)


def test_what_we_write_tfds_opens(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    path = tfds_folder(tmp_path / "text" / "1.0.0", TEXTS)
    builder = tfds.builder_from_directory(str(path))
    assert builder.info.splits["train"].num_examples == 50
    assert set(builder.info.features) == {"text", "url"}
    source = builder.as_data_source("train")
    got = sorted((source[i]["text"].decode(), source[i]["url"].decode()) for i in range(len(source)))
    assert got == sorted(TEXTS)
    assert "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset prepared by TFDS itself, known to it by name."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class SmallTexts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "n": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(40), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"text": f"document {i}", "n": i}

    tmp_path = tmp_path_factory.mktemp("tfds")
    SmallTexts(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    return tmp_path


def test_a_tfds_dataset_by_name(prepared):
    whole = sources.find(["tfds:small_texts"], tfds_data_dir=str(prepared))
    assert sorted(d.text for d in read(whole)) == sorted(f"document {i}" for i in range(40))
    part = sources.find(["tfds:small_texts:train[10:25]"], tfds_data_dir=str(prepared))
    import tensorflow_datasets as tfds

    expected = tfds.data_source("small_texts", split="train[10:25]", data_dir=str(prepared))
    assert [d.text.encode() for d in read(part)] == [expected[i]["text"] for i in range(15)]
    folder = sources.find([str(prepared / "small_texts" / "1.0.0")])
    assert [d.text for d in read(folder)] == [d.text for d in read(whole)]
    assert "tensorflow" not in sys.modules


def test_tfds_mistakes(prepared):
    def error(name, **options):
        with pytest.raises(UserError) as caught:
            sources.find([name], tfds_data_dir=str(prepared), **options)
        return caught.value

    assert "did you mean --text_field=text?" in str(error("tfds:small_texts", text_field="txt"))
    assert "did you mean train?" in str(error("tfds:small_texts:trian"))
    assert "did you mean small_texts?" in str(error("tfds:small_text"))
    unprepared = error("tfds:c4/en")
    assert "'c4/en' is not prepared" in str(unprepared)
    assert "tfds build c4/en --file_format=array_record" in str(unprepared.help)
    path = prepared / "small_texts" / "1.0.0"
    assert "did you mean test?" in str(error(f"tfds:{path}:tests"))
    assert "did you mean --text_field=text?" in str(error(str(path), text_field="txt"))


def test_tfds_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError) as error:
        sources.find(["tfds:c4/en"])
    assert error.value.help == "pip install '.[text]'"


def test_other_tfds_formats_are_refused_with_the_command_that_converts(tmp_path):
    path = tfds_folder(tmp_path / "x", TEXTS)
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="stored as tfrecord") as error:
        sources.find([str(path)])
    assert "convert_format" in str(error.value.help)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"splits": 3}'])
def test_a_damaged_description_is_named(tmp_path, content):
    path = tfds_folder(tmp_path / "x", TEXTS)
    (path / "dataset_info.json").write_text(content)
    with pytest.raises(UserError) as error:
        sources.find([str(path)])
    assert error.value.where == str(path)
    assert error.value.code == Exit.BAD_DATA


def test_missing_and_damaged_shards(tmp_path):
    path = tfds_folder(tmp_path / "x", TEXTS)
    shard = path / text_dataset.shard_name("text", "train", 1, 2)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 3])
    items = read(sources.find([str(path)]))
    assert sum(isinstance(item, Document) for item in items) == 25
    assert items[-1].kind == "damaged"
    flipped = bytearray(content)
    flipped[flipped.index(b"document 25")] ^= 1
    shard.write_bytes(flipped)
    items = read(sources.find([str(path)]))
    assert sum(isinstance(item, Document) for item in items) == 49, "a damaged record takes no other with it"
    assert [item.kind for item in items if not isinstance(item, Document)] == ["damaged"]
    shard.unlink()
    with pytest.raises(UserError, match="missing") as error:
        sources.find([str(path)])
    assert error.value.where == str(shard)


def test_examples_on_the_wire():
    long = b"x" * 300
    record = example_proto.write({"text": long, "url": b""})
    assert example_proto.read_bytes(record, ("text", "url", "no")) == {"text": [long], "url": [b""]}
    for end in range(1, len(record)):
        try:
            got = example_proto.read_bytes(record[:end], ("text",))
        except ValueError:
            continue
        assert got.get("text") in (None, [], [long]), "a cut record must never give half a text"
    with pytest.raises(ValueError, match="not a"):
        example_proto.read_bytes(b"\xff" * 40, ("text",))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="not a regular file"):
        sources.find([str(tmp_path / "a.jsonl")])
    absent = []
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n')
    assert [file.name[-7:] for file in sources.find([str(tmp_path)], absent=absent)] == ["b.jsonl"]
    assert [error.kind for error in absent] == ["unreadable_file"]


def test_a_name_with_brackets_is_a_file_where_there_is_one(tmp_path):
    for name in ("[1]*?.jsonl", "1x.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    assert [file.name[-11:] for file in sources.find([f"{tmp_path}/[1]*?.jsonl"])] == ["[1]*?.jsonl"]
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(UserError, match="a link to nothing"):
        sources.find([f"{tmp_path}/loop.jsonl"])


def test_the_folder_of_a_corpus_is_not_its_documents(tmp_path):
    folder = tmp_path / "t5x_like_corpus" / "c4.en" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    for name in ("corpus.json", "samples.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="is a corpus") as error:
        sources.find([str(tmp_path)])
    assert error.value.help == f"--input=tfds:t5x_like_corpus/c4.en:train --tfds_data_dir={tmp_path}"
