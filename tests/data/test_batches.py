"""batch(data, objective, seed, step): a pure function, the same for any hosts, as quick far away as near."""

import dataclasses
import json
import time

import fsspec
import numpy as np
import pytest
from tiny_dataset import Echo, Several, dataset, documents, tokenizer

from t5x_like.data.batches import Batches, Data, Source, check
from t5x_like.data.token_dataset import from_documents
from t5x_like.errors import Exit, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    dataset(path / "a", 60)
    dataset(path / "b", 20, seed=1)
    return path


def data(folder, *names, **kwargs) -> Data:
    return Data(sources=tuple(Source(path=str(folder / n)) for n in names or ("a",)), **kwargs)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


CASES = {
    "joined": (Echo(), {}),
    "isolated": (Echo(documents="isolated"), {}),
    "packed": (Echo(length=24, documents="isolated"), {"pack": True}),
    "mixed": (Several(), {}),
    "mixed and packed": (Several(documents="isolated"), {"pack": True}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pure_and_the_same_for_any_number_of_hosts(folder, case, split):
    objective, options = CASES[case]
    settings = data(folder, "a", "b", **options)
    batches = Batches(settings, objective, 8, 3, split=split)
    for step in (0, 1, batches.num_batches - 1):
        whole = batches(step)
        assert {n: (v.shape, v.dtype) for n, v in whole.items()} == {
            n: ((8, *f.shape), np.dtype(f.dtype)) for n, f in batches.features.items()
        }
        assert same(whole, Batches(settings, objective, 8, 3, split=split)(step))
        for hosts in (2, 4):
            each = [batches(step, slice(h * 8 // hosts, (h + 1) * 8 // hosts)) for h in range(hosts)]
            assert same(whole, {n: np.concatenate([part[n] for part in each]) for n in whole})


@pytest.mark.parametrize("case", CASES)
def test_seeds_steps_and_epochs_differ(folder, case):
    objective, options = CASES[case]
    batches = Batches(data(folder, **options), objective, 4, 0)
    other = Batches(data(folder, **options), objective, 4, 1)
    epoch = batches.num_batches + 1
    for step in (1, epoch, 2 * epoch):
        assert not same(batches(0), batches(step))
    assert not same(batches(0), other(0))
    keys = np.concatenate([b["decoder_key"][:, 0] for b in map(batches, range(3 * epoch))])
    assert len(np.unique(keys[keys > 0])) == (keys > 0).sum()  # no example is ever drawn twice


def test_an_epoch_shows_each_isolated_window_once(folder):
    batches = Batches(data(folder), Echo(length=50, documents="isolated"), 1, 0)
    split = from_documents_split(folder / "a")
    for epoch in range(2):
        seen = [batches(epoch * batches.examples_per_epoch + i) for i in range(batches.examples_per_epoch)]
        tokens = sum(int((b["encoder_input_tokens"] > 1).sum()) for b in seen)
        assert tokens == split.num_tokens
        assert len({b["encoder_input_tokens"].tobytes() for b in seen}) > 0.9 * len(seen)


def from_documents_split(path, name="train"):
    from t5x_like.data.token_dataset import TokenDataset

    return TokenDataset.open(str(path)).split(name)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("style", ["joined", "isolated"])
def test_validation_covers_the_split_once_and_ends_with_empty_rows(folder, style, pack):
    batches = Batches(data(folder, pack=pack), Echo(length=20, documents=style), 4, 0, split="validation")
    split = from_documents_split(folder / "a", "validation")
    seen = [batches(step) for step in range(batches.num_batches)]
    tokens = np.concatenate([b["encoder_input_tokens"].reshape(-1) for b in seen])
    expected = split.gather(np.array([0]), split.num_tokens)[0]
    np.testing.assert_array_equal(np.sort(tokens[tokens > 1]), np.sort(expected[expected > 1]))
    empty = batches.num_batches * 4 - batches.examples_per_epoch
    assert empty < 4
    for name, values in seen[-1].items():
        assert (values[4 - empty :] == 0).all(), name
    assert (seen[-1]["decoder_loss_weights"][: 4 - empty].sum(axis=1) > 0).all()
    assert batches.origins(batches.num_batches - 1)[4 - empty :] == [None] * empty
    with pytest.raises(UserError, match=f"batches 0 to {batches.num_batches - 1}"):
        batches(batches.num_batches)


def test_rates_of_sources_and_parts_multiply(folder):
    sources = (Source(path=str(folder / "a"), rate=3), Source(path=str(folder / "b"), rate=1))
    batches = Batches(Data(sources=sources), Several(), 10, 0)
    np.testing.assert_allclose(batches.rates, np.outer([0.75, 0.25], [0.5, 0.3, 0.2]).ravel(), atol=2e-5)
    parts = [type_of(o.stream) for step in range(20) for o in batches.origins(step)]
    counts = {name: parts.count(name) for name in set(parts)}
    for stream, rate in zip(batches.streams, batches.rates, strict=True):
        assert abs(counts.get(type_of(stream), 0) - 200 * rate) < 1


def type_of(stream):
    return (stream.name, stream.objective.length)


def test_rates_follow_sizes_limit_and_temperature(folder):
    sizes = [Batches(data(folder, n), Echo(), 1, 0).examples_per_epoch for n in "ab"]
    for limit, temperature in ((None, 1.0), (sizes[1] + 5, 1.0), (sizes[1] + 5, 2.0)):
        mixed = Batches(data(folder, "a", "b", limit=limit, temperature=temperature), Echo(), 4, 0)
        clipped = np.minimum(sizes, limit or np.inf) ** (1 / temperature)
        np.testing.assert_allclose(mixed.rates, clipped / clipped.sum(), atol=2e-5)
        assert mixed.examples_per_epoch == sum(sizes)


def test_features_of_a_mixture_are_the_largest(folder):
    batches = Batches(data(folder), Several(), 10, 0)
    assert batches.features["encoder_input_tokens"].shape == (13,)
    batch = batches(0)
    for row, origin in enumerate(batches.origins(0)):
        (source,) = origin.tokens
        np.testing.assert_array_equal(batch["encoder_input_tokens"][row, : len(source)], source)
        assert batch["encoder_input_tokens"][row, len(source)] == 1
        assert (batch["encoder_input_tokens"][row, len(source) + 1 :] == 0).all()


def test_origins_are_the_texts_of_packed_rows(folder):
    batches = Batches(data(folder, pack=True), Echo(length=24, documents="isolated"), 4, 0)
    batch = batches(5)
    for row, origin in enumerate(batches.origins(5)):
        segments = batch["encoder_segment_ids"][row]
        assert len(origin.tokens) == segments.max()
        for number, tokens in enumerate(origin.tokens, start=1):
            np.testing.assert_array_equal(
                batch["encoder_input_tokens"][row][segments == number], [*tokens, 1]
            )


@pytest.mark.parametrize("case", CASES)
def test_far_away_costs_what_near_costs(folder, case):
    objective, options = CASES[case]
    batches = Batches(data(folder, "a", "b", **options), objective, 32, 0)
    batches(0)

    def best(first: int) -> float:
        times = []
        for step in range(first, first + 15):
            start = time.perf_counter()
            batches(step)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(10_000_000) < 3 * best(0) + 2e-4


def test_a_dataset_behind_a_url_gives_the_same_batches(folder):
    remote = fsspec.filesystem("memory")
    remote.put(str(folder / "a"), "/bucket/a", recursive=True)
    far = Data(sources=(Source(path="memory://bucket/a"),))
    for objective in (Echo(), Echo(documents="isolated")):
        assert same(Batches(far, objective, 8, 0)(5), Batches(data(folder), objective, 8, 0)(5))


def test_fingerprint_is_of_contents_and_rates(folder, tmp_path):
    dataset(tmp_path / "copy", 60)
    first = Batches(data(folder, "a", "b"), Echo(), 4, 0)
    again = Batches(
        Data(sources=(Source(path=str(tmp_path / "copy")), Source(path=str(folder / "b")))), Echo(), 8, 1
    )
    assert first.fingerprint == again.fingerprint
    changed = [data(folder, "b", "a"), data(folder, "a"), data(folder, "a", "b", temperature=2.0)]
    assert len({first.fingerprint, *(Batches(d, Echo(), 4, 0).fingerprint for d in changed)}) == 4
    assert first.tokenizer_fingerprint == first.tokenizer.fingerprint == tokenizer().fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Borders(Echo):
    """Asks for borders, and hides every word's first token and all that begins a document."""

    needs = frozenset({"document_starts", "word_starts"})

    def examples(self, windows, keys):
        assert windows.sentence_starts is None
        tokens = np.where(windows.document_starts | windows.word_starts, 9, windows.tokens)
        return super().examples(dataclasses.replace(windows, tokens=tokens), keys)


def test_an_objective_gets_the_borders_that_it_needs(folder):
    plain, marked = (Batches(data(folder), o, 8, 0)(2)["encoder_input_tokens"] for o in (Echo(), Borders()))
    starts_word = tokenizer().word_starts[plain] & (plain > 1)
    np.testing.assert_array_equal(marked[starts_word], 9)
    assert (marked == plain)[~starts_word].all() and not starts_word.all()


# ---- what is refused ----------------------------------------------------------------------------


def refused(match: str, *args, **kwargs) -> UserError:
    with pytest.raises(UserError, match=match) as caught:
        Batches(*args, **kwargs)
    return caught.value


def test_no_sources_and_no_such_dataset(folder):
    assert "prepare" in (refused("names no token dataset", Data(), Echo(), 4, 0).help or "")
    error = refused("no token dataset", data(folder, "missing"), Echo(), 4, 0)
    assert "t5x_like.prepare" in (error.help or "") and error.code == Exit.BAD_DATA


def test_two_tokenizers(folder, tmp_path):
    other = from_documents(tmp_path / "c", tokenizer(5), {"train": documents(9)})
    sources = (Source(path=str(folder / "a")), Source(path=str(tmp_path / "c")))
    error = refused("different tokenizers", Data(sources=sources), Echo(), 4, 0)
    assert other.tokenizer_fingerprint in error.what and tokenizer().fingerprint in error.what


def test_unknown_and_empty_splits(folder, tmp_path):
    error = refused("no split 'trian'", data(folder, train_split="trian"), Echo(), 4, 0)
    assert "train" in (error.help or "")
    dataset(tmp_path / "d", train=documents(9), validation=[])
    refused("'validation' has no tokens", data(tmp_path, "d"), Echo(), 4, 0, split="validation")


def test_a_batch_larger_than_the_data(folder):
    error = refused("a batch of 100000 examples", data(folder), Echo(), 100_000, 0)
    assert "batch_size=" in (error.help or "")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"temperature": 0.0}, "data.temperature"),
        ({"limit": 0}, "data.limit"),
        ({"prefetch": 0}, "data.prefetch"),
        ({"workers": -1}, "data.workers"),
        ({"sources": (Source(path="a", rate=1.0), Source(path="b"))}, "data.sources"),
        ({"sources": (Source(path="a", rate=-1.0),)}, "data.sources.0.rate"),
    ],
)
def test_settings_that_cannot_be(change, where):
    settings = dataclasses.replace(Data(sources=(Source(path="a"),)), **change)
    with pytest.raises(UserError) as caught:
        check(settings)
    assert caught.value.where == where


def test_damaged_tokens_are_told_from_good_ones(folder, tmp_path):
    dataset(tmp_path / "e", 60)
    manifest = json.loads((tmp_path / "e" / "manifest.json").read_text())
    tokens = tmp_path / "e" / manifest["splits"]["train"]["shards"][0]["file"]
    tokens.write_bytes(b"\xff\xff" * (tokens.stat().st_size // 2))
    with pytest.raises(UserError, match="a token id of 65535") as caught:
        Batches(data(tmp_path, "e"), Echo(), 4, 0)(0)
    assert caught.value.where == str(tmp_path / "e") and caught.value.code == Exit.BAD_DATA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd(Echo):
    """Has a feature that belongs to no side."""

    def features(self, vocabulary):
        return super().features(vocabulary) | {"labels": super().features(vocabulary)["encoder_input_tokens"]}


def test_what_cannot_be_packed(folder):
    refused("Odd cannot be packed: labels", data(folder, pack=True), Odd(documents="isolated"), 4, 0)


def test_batches_that_are_left_out_are_the_only_difference(tmp_path):
    data = Data(sources=(Source(path=str(dataset(tmp_path / "a").path)),))
    plain = Batches(data, Echo(), 4, 0)
    skipping = Batches(data, Echo(), 4, 0, skips=((3, 2), (6, 1)))
    assert [skipping.number(step) for step in range(7)] == [0, 1, 2, 5, 7, 8, 9]
    for step in range(7):
        expected, found = plain(skipping.number(step)), skipping(step)
        assert all((expected[name] == found[name]).all() for name in expected)
