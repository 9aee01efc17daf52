"""F19, F28, F32 in the loader: what changed is told in words, files that go or shrink, ids that no table has."""

import dataclasses
import os
import shutil

import fsspec
import numpy as np
import pytest
import tiny_dataset
from tiny_dataset import Echo

from t5x_like.data import changes, token_dataset
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.errors import Exit, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("changes")
    for name, count in (("a", 60), ("b", 40), ("c", 50)):
        tiny_dataset.dataset(path / name, count=count, seed=count)
    return path


def batches(folder, names, **changes):
    sources = tuple(Source(path=str(folder / name)) for name in names)
    return Batches(Data(sources=sources, **changes), Echo(), 4, seed=0)


def told(folder, old, new, **now):
    before, after = batches(folder, old), batches(folder, new, **now)
    assert before.fingerprint != after.fingerprint
    return "\n".join(changes.differences(changes.describe(before), changes.describe(after))).replace(
        f"{folder}/", ""
    )


def test_added_removed_and_reordered(folder):
    assert "c was added" in told(folder, "ab", "abc")
    assert "b was removed" in told(folder, "abc", "ac")
    assert told(folder, "ab", "ba").startswith("the sources are in another order: 1, 0 of before")
    assert "pack was False, and is True now" in told(folder, "ab", "ab", pack=True)
    assert (
        changes.differences(changes.describe(batches(folder, "ab")), changes.describe(batches(folder, "ab")))
        == []
    )
    assert changes.differences({}, changes.describe(batches(folder, "ab"))) == [], "a run of before data.json"


def test_edited(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "a")
    old = changes.describe(batches(tmp_path, "a"))
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(folder / "c", tmp_path / "a")
    (line,) = changes.differences(old, changes.describe(batches(tmp_path, "a")))
    assert "a was edited: train 60 -> 50 documents, train " in line and "tokens" in line


def test_input_files():
    def file(name, size=10, probe="x"):
        return {"name": name, "bytes": size, "probe": probe}

    old = [file("a"), file("b"), file("c")]
    assert changes.inputs(old, old) == []
    assert changes.inputs(old, [file("b"), file("a"), file("c")]) == ["the files are in another order"]
    new = [file("a", probe="y"), file("b", 11), file("d")]
    assert changes.inputs(old, new) == [
        "a was edited (same size)", "b was edited (10 -> 11 bytes)", "c was removed", "d was added",
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong(Echo):
    """Puts an id into a feature where it does not belong."""

    feature: str = "decoder_target_tokens"
    wrong: int = -100

    def examples(self, windows, keys):
        examples = super().examples(windows, keys)
        examples[self.feature] = np.array(examples[self.feature])
        examples[self.feature][-1, -1] = self.wrong
        return examples


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("index", [-100, -1, 180, 2**31 - 1])
@pytest.mark.parametrize("feature", ["encoder_input_tokens", "decoder_target_tokens"])
def test_ids_that_no_table_has_are_refused_always(folder, feature, index, pack):
    """F32: of any objective, labels like -100 included."""
    size = TokenDataset.open(str(folder / "a")).vocabulary.size
    assert size <= 180
    objective = Wrong(feature=feature, wrong=index, documents="isolated")
    made = Batches(Data(sources=(Source(path=str(folder / "a")),), pack=pack), objective, 4, seed=0)
    with pytest.raises(
        UserError, match=f"{feature} holds ids from .*tokenizer has 0 to {size - 1}"
    ) as caught:
        made(0)
    assert str(index) in caught.value.what and caught.value.code == Exit.BAD_DATA


def test_a_dataset_removed_in_mid_epoch_is_read_to_the_end(folder, tmp_path):
    """F28: it stays mapped."""
    shutil.copytree(folder / "a", tmp_path / "a")
    made, whole = batches(tmp_path, "a"), batches(folder, "a")
    shutil.rmtree(tmp_path / "a")
    for step in range(10):
        np.testing.assert_array_equal(made(step)["encoder_input_tokens"], whole(step)["encoder_input_tokens"])


def test_a_dataset_cut_in_mid_epoch_is_an_error_and_not_a_crash(folder, tmp_path):
    """F28: reading behind the end of a mapped file would be a SIGBUS."""
    shutil.copytree(folder / "a", tmp_path / "a")
    made = batches(tmp_path, "a")
    (shard,) = (tmp_path / "a").glob("train-*.tokens")
    os.truncate(shard, 0)
    with pytest.raises(UserError, match="has been cut to 0 bytes") as caught:
        made(0)
    assert caught.value.code == Exit.IO_ERROR and "the same command" in str(caught.value)


def test_a_remote_read_is_tried_again_and_then_told(folder, monkeypatch):
    """F28."""
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "a"), "/flaky", recursive=True)
    monkeypatch.setattr(token_dataset, "_PAUSES", (0.0, 0.0))
    dataset = TokenDataset.open("memory://flaky")
    read, failures = memory.cat_ranges, iter([True, True, False])

    def flaky(*arguments, **settings):
        if next(failures):
            raise OSError("connection reset")
        return read(*arguments, **settings)

    monkeypatch.setattr(dataset.split("train")._folder._fs, "cat_ranges", flaky, raising=False)
    expected = TokenDataset.open(str(folder / "a")).split("train").gather(np.array([3]), 5)
    np.testing.assert_array_equal(dataset.split("train").gather(np.array([3]), 5), expected)
    failures = iter([True] * 10)
    with pytest.raises(UserError, match="failed 3 times: connection reset") as caught:
        dataset.split("train").gather(np.array([3]), 5)
    assert caught.value.code == Exit.IO_ERROR
