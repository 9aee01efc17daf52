"""The input formats behind `Batches`: real datasets, in any split of the batch, with the text that rows came from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.framing import frame
from t5x_like.data.inputs import (
    Contiguous,
    DocSentences,
    ElectraPairs,
    FullSentences,
    InputFormat,
    SegmentPairs,
    SentencePairs,
)
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.windows import WindowIndex
from tests import tiny_dataset

FORMS = [
    SegmentPairs(duplicates=2),
    SegmentPairs(duplicates=1, next_sentence=False),
    SentencePairs(duplicates=1),
    FullSentences(),
    FullSentences(sentence_separators=True),
    DocSentences(),
    ElectraPairs(),
    Contiguous(),
    Contiguous(documents="isolated"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing(tiny_dataset.Echo):
    """The framed row of an input format, as a vocabulary with [CLS] and [SEP] has it."""

    inputs: InputFormat
    length: int = 32

    def window_length(self) -> int:
        return self.inputs.capacity(self.length)

    def words(self, vocabulary: Vocabulary) -> Vocabulary:
        return dataclasses.replace(vocabulary, cls=1, sep=2)

    def parts(self):
        return ((self, 1.0),)

    def index(self, split, vocabulary: Vocabulary, key: np.ndarray, cover: bool) -> WindowIndex:
        return self.inputs.build(split, self.length, self.words(vocabulary), key, cover)

    def features(self, vocabulary: Vocabulary) -> dict[str, Feature]:
        features = {"encoder_input_tokens": Feature((self.length,)), "key": Feature((), np.uint64)}
        return features | ({"pair_labels": Feature(())} if self.inputs.next_sentence else {})

    def examples(self, windows: Windows, keys: np.ndarray) -> Batch:
        framed = frame(
            windows.tokens, windows.lengths, windows.first_lengths, self.length, self.words(windows.vocabulary),
            double_separator=self.inputs.double_separator,
        )  # fmt: skip
        batch = {"encoder_input_tokens": framed.tokens, "key": keys}
        return batch if windows.pair_labels is None else batch | {"pair_labels": windows.pair_labels}


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        " ".join(
            " ".join(rng.choice(tiny_dataset.WORDS, rng.integers(2, 8))).capitalize() + "." for _ in range(n)
        )
        for n in rng.integers(1, 9, count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "dataset"
    tiny_dataset.dataset(path, train=texts(60, 0), validation=[*texts(9, 1)])
    return path


def batches(folder: Path, form: InputFormat, seed: int = 0, **options) -> Batches:
    data = Data(sources=(Source(path=str(folder)),))
    return Batches(data, Framing(inputs=form), 8, seed, **options)


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_batches_are_a_function_of_the_step(folder, form):
    train = batches(folder, form)
    step = 2 * train.examples_per_epoch // 8  # two epochs in this batch
    whole = train(step)
    parts = [batches(folder, form)(step, slice(low, low + 2)) for low in range(0, 8, 2)]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    assert (batches(folder, form, seed=1)(step)["key"] != whole["key"]).all()
    for row, origin in zip(whole["encoder_input_tokens"], train.origins(step), strict=True):
        assert origin is not None and len(origin.tokens) == 1
        shown = [t for t in row.tolist() if t > 2]
        assert shown == [t for t in origin.tokens[0].tolist() if t > 2] and len(shown) > 0


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_validation_sees_its_windows_once(folder, form):
    validation = batches(folder, form, split="validation")
    found = [
        origin.tokens[0][origin.tokens[0] > 2]
        for step in range(validation.num_batches)
        for origin in validation.origins(step)
        if origin is not None
    ]
    assert len(found) == validation.examples_per_epoch
    if not isinstance(form, SegmentPairs | SentencePairs | ElectraPairs):  # which cut what is too long
        tokens = TokenDataset.open(str(folder)).split("validation")
        text = tokens.gather(np.array([0]), tokens.num_tokens)[0]
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(text[text > 2]))


def test_the_tokenizer_finds_sentences_that_pairs_can_use(folder):
    train = batches(folder, SegmentPairs(duplicates=1))
    split = TokenDataset.open(str(folder)).split("train")
    assert len(split.sentence_offsets) > 3 * split.num_documents
    labels = np.concatenate([train(step)["pair_labels"] for step in range(train.examples_per_epoch // 8)])
    assert 0.4 < labels.mean() < 0.75


def test_formats_check_themselves_and_say_how_much_they_hold():
    for form in FORMS:
        form.check()
        special = 32 - form.capacity(32)
        assert special == (
            2 if not isinstance(form, SegmentPairs | SentencePairs) else 3 + form.double_separator
        )
        assert form.next_sentence == (isinstance(form, SegmentPairs | SentencePairs) and form != FORMS[1])
