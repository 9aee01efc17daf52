from __future__ import annotations

import json

import fsspec
import numpy as np
import pytest
import small_corpus as corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.example import Vocabulary
from t5x_like.data.token_dataset import TokenDataset, from_documents
from t5x_like.data.token_writer import TokenDatasetWriter, token_dtype
from t5x_like.errors import Exit, UserError

SHARD = 997  # a prime, so that documents, windows and shards never line up


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    path = tmp_path_factory.mktemp("tokens")
    splits = {"train": corpus.texts()[:30], "validation": corpus.texts()[30:34], "empty": []}
    return from_documents(path, corpus.tokenizer(), splits, shard_tokens=SHARD)


def flat(split: str) -> np.ndarray:
    documents = corpus.texts()[:30] if split == "train" else corpus.texts()[30:34]
    return corpus.tokenizer().encode_documents(documents).ids


@pytest.fixture
def copy(dataset, tmp_path):
    """A copy to damage."""
    import shutil

    return shutil.copytree(dataset.path, tmp_path / "copy")


def test_tokens_and_offsets_come_back(dataset):
    for name in ("train", "validation"):
        split, ids = dataset.split(name), flat(name)
        assert split.num_tokens == len(ids)
        assert split.gather(np.array([0]), len(ids))[0].tolist() == ids.tolist()
    split = dataset.split("train")
    encoded = corpus.tokenizer().encode_documents(corpus.texts()[:30])
    assert split.num_documents == 30
    assert split.document_offsets.tolist() == [*encoded.documents, len(encoded.ids)]
    assert split.sentence_offsets is not None
    assert split.sentence_offsets.tolist() == encoded.sentences.tolist()
    assert len(dataset.manifest["splits"]["train"]["shards"]) > 5


@settings(max_examples=50, deadline=None)
@given(data=st.data(), length=st.integers(1, 3 * SHARD))
def test_gather_equals_indexing_modulo_the_end(dataset, data, length):
    ids = flat("validation")
    starts = np.array(data.draw(st.lists(st.integers(0, 3 * len(ids)), min_size=1, max_size=9)))
    expected = ids[(starts[:, None] + np.arange(length)) % len(ids)]
    got = dataset.split("validation").gather(starts, length)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


def test_remote_equals_local(dataset):
    memory = fsspec.filesystem("memory")
    memory.put(dataset.path + "/", "/remote/", recursive=True)
    remote = TokenDataset.open("memory://remote")
    starts = np.random.default_rng(0).integers(0, 10**6, 50)
    local = dataset.split("train")
    split = remote.split("train")
    np.testing.assert_array_equal(split.gather(starts, 1500), local.gather(starts, 1500))
    np.testing.assert_array_equal(split.document_offsets, local.document_offsets)
    np.testing.assert_array_equal(split.sentence_offsets, local.sentence_offsets)
    assert remote.fingerprint == dataset.fingerprint
    assert remote.tokenizer.fingerprint == dataset.tokenizer_fingerprint
    remote.verify()
    memory.rm("/remote/train-00001.tokens")
    with pytest.raises(UserError, match=r"train-00001\.tokens is missing"):
        TokenDataset.open("memory://remote")


def test_the_tokenizer_travels_with_the_tokens(dataset):
    assert dataset.tokenizer.encode("the whale") == corpus.tokenizer().encode("the whale")
    assert dataset.vocabulary == corpus.tokenizer().vocabulary == dataset.tokenizer.vocabulary


def test_fingerprint_is_of_the_content(dataset, tmp_path):
    splits = {"train": corpus.texts()[:30], "validation": corpus.texts()[30:34], "empty": []}
    again = from_documents(tmp_path / "a", corpus.tokenizer(), splits, shard_tokens=SHARD)
    assert again.fingerprint == dataset.fingerprint
    splits["train"] = splits["train"][:29]
    other = from_documents(tmp_path / "b", corpus.tokenizer(), splits, shard_tokens=SHARD)
    assert other.fingerprint != dataset.fingerprint


def test_wide_ids_are_stored_in_32_bits(tmp_path):
    assert token_dtype(Vocabulary(size=65536)) == np.uint16
    assert token_dtype(Vocabulary(size=65537)) == np.uint32

    class Wide:
        vocabulary = Vocabulary(size=250_100)
        fingerprint = "wide"
        files: dict[str, bytes] = {}  # noqa: RUF012

        def save(self, folder):
            folder.mkdir()

    writer = TokenDatasetWriter(tmp_path, Wide(), ["train"])  # type: ignore[arg-type]
    ids = np.array([3, 250_099, 65_536])
    writer.append("train", ids, np.array([0]), np.array([0, 1]))
    writer.finish({})
    split = TokenDataset.open(str(tmp_path)).split("train")
    assert split.gather(np.array([0]), 3)[0].tolist() == ids.tolist()


def test_an_unknown_split_names_those_there_are(dataset):
    with pytest.raises(UserError) as error:
        dataset.split("validaton")
    assert error.value.help == "did you mean validation?"


def test_an_empty_split_says_so(dataset):
    with pytest.raises(UserError, match="has no tokens"):
        dataset.split("empty").gather(np.array([0]), 4)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no token dataset here") as error:
        TokenDataset.open(str(tmp_path / "x"))
    assert error.value.code == Exit.BAD_DATA


def test_from_documents_wants_an_empty_folder(dataset):
    with pytest.raises(UserError, match="must be empty"):
        from_documents(dataset.path, corpus.tokenizer(), {"train": ["a"]})


@pytest.mark.parametrize(
    "name", ["train-00000.tokens", "train.documents", "validation.sentences", "tokenizer/spiece.model"]
)
@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "longer"])
def test_damage_is_found_when_opening(copy, name, how):
    file = copy / name
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes({"truncated": content[:-1], "empty": b"", "longer": content + b"x"}[how])
    with pytest.raises(UserError) as error:
        TokenDataset.open(str(copy))
    assert error.value.where == str(file)
    assert error.value.code == Exit.BAD_DATA


@pytest.mark.parametrize(
    "name", ["train-00002.tokens", "train.documents", "train.sentences", "tokenizer/spiece.model"]
)
def test_a_flipped_bit_is_found_by_verify(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 4
    (copy / name).write_bytes(content)
    dataset = TokenDataset.open(str(copy))
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        dataset.verify()


def test_verify_accepts_what_is_whole(dataset):
    dataset.verify()


def test_another_tokenizer_in_its_place_is_found(copy):
    content = json.loads((copy / "tokenizer/spiece.json").read_text())
    (copy / "tokenizer/spiece.json").write_text(json.dumps(content).replace("100", "101"))
    with pytest.raises(UserError, match="not the tokenizer that made the tokens"):
        _ = TokenDataset.open(str(copy)).tokenizer


def edit(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "tokenizer/../x", "a\0b"])
def test_names_that_leave_the_folder_are_refused(copy, name):
    def change(manifest):
        manifest["splits"]["train"]["document_offsets"]["file"] = name

    edit(copy, change)
    with pytest.raises(UserError, match="outside the dataset"):
        TokenDataset.open(str(copy))


def test_a_link_that_leaves_the_folder_is_refused(copy, tmp_path):
    file = copy / "train.documents"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"train\.documents is missing"):
        TokenDataset.open(str(copy))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("dtype"),
        lambda m: m.update(dtype="object"),
        lambda m: m.update(splits=[]),
        lambda m: m.update(fingerprint="0"),
        lambda m: m["splits"]["train"].update(tokens=5),
        lambda m: m["splits"]["train"].update(documents=5),
        lambda m: m["splits"]["train"]["shards"][0].update(tokens="many"),
        lambda m: m["vocabulary"].update(extra=1),
        lambda m: m["tokenizer"].update(files=None),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(copy, change):
    edit(copy, change)
    with pytest.raises(UserError) as error:
        TokenDataset.open(str(copy))
    assert error.value.where == str(copy / "manifest.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(copy, content):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        TokenDataset.open(str(copy))


def test_a_later_format_is_refused(copy):
    edit(copy, lambda manifest: manifest.update(version=2))
    with pytest.raises(UserError, match="format version 2"):
        TokenDataset.open(str(copy))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UserError, match="cannot open this URL"):
        TokenDataset.open("nosuch://bucket/data")
