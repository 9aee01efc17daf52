"""What a quickstart shows at its end: held-out passages with words missing or swapped; and its table of families."""

from __future__ import annotations

import pytest
import tiny_dataset
import tiny_encoder

from t5x_like import config, quickstart, quickstart_samples
from t5x_like.data.token_dataset import from_documents
from t5x_like.models.electra import Electra


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a"
    texts = [" ".join(tiny_dataset.documents(12, seed)) for seed in range(20)]
    from_documents(path, tiny_encoder.tokenizer(), {"train": texts, "validation": texts[:15]})
    return path


@pytest.mark.parametrize("family", sorted(quickstart.FAMILIES))
def test_every_family_has_its_configuration_and_its_samples(family, data):
    row = quickstart.FAMILIES[family]
    run = config.load(row.config)
    assert run.steps >= 100
    model = run.model.encoder if isinstance(run.model, Electra) else run.model
    assert model.vocab_size == row.vocab_size
    records = row.samples(data)
    assert 6 <= len(records) <= quickstart_samples.MOST and records == row.samples(data)


def test_blanks_stand_where_the_originals_stood(data):
    passages = quickstart_samples.passages(data, quickstart_samples.SHORT)
    for longest, spelling in ((1, "[MASK]"), (2, "<extra_id_{}>")):
        for passage in passages:
            record = quickstart_samples.blanks(passage, spelling.format, longest)
            if record is not None:
                text = record["inputs"]
                for i, original in enumerate(record["originals"]):
                    assert 1 <= len(original.split()) <= longest
                    text = text.replace(spelling.format(i), original, 1)
                assert text == " ".join(passage.words)


def test_swapped_words_are_named_with_their_originals(data):
    passages = {
        " ".join(p.words): p.words for p in quickstart_samples.passages(data, quickstart_samples.SHORT)
    }
    for record in quickstart_samples.swapped_words(data):
        words = record["inputs"].split(" ")
        assert record["swapped"]
        for i, original in record["swapped"].items():
            assert words[int(i)] != original
            words[int(i)] = original
        assert " ".join(words) in passages
