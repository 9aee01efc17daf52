"""`evaluate`: the figures of a run on held-out text, and what counting words alone would give."""

import dataclasses
import json
import math

import numpy as np
import pytest
import tiny_dataset
import tiny_encoder
from tiny_run import make, one_device

from t5x_like import evaluate as command
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.token_dataset import from_documents
from t5x_like.errors import Exit, UserError
from t5x_like.training import metrics
from t5x_like.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    with one_device():
        assert train(make(path / "data", steps=4), str(path / "run")) == Exit.DONE
    return path


def test_figures_of_the_last_checkpoint(run):
    figures = command.evaluate(str(run / "run"), batches=2)
    last = [m for m in metrics.read(run / "run" / "metrics.jsonl") if m["kind"] == "eval"][-1]
    assert figures["step"] == 4 and figures["split"] == "validation" and figures["batches"] == 2
    assert figures["loss"] == pytest.approx(last["loss"], rel=1e-6), "as the loop measured it"
    assert figures["perplexity"] == pytest.approx(math.exp(figures["cross_entropy"]))
    assert 0 < figures["unigram_entropy"] < math.log(180) and figures["targets"] > 20
    assert figures["bits_per_byte"] > 0


def test_a_run_named_by_a_relative_path(run, monkeypatch):
    monkeypatch.chdir(run)
    assert command.evaluate("run", batches=1)["step"] == 4


def test_another_split_and_all_of_it(run):
    train_split = command.evaluate(str(run / "run"), "best", split="train")
    held_out = command.evaluate(str(run / "run"), "4")
    assert train_split["split"] == "train" and train_split["targets"] > 5 * held_out["targets"]
    with pytest.raises(UserError, match="no split 'test'"):
        command.evaluate(str(run / "run"), split="test")


def test_what_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        command.evaluate(str(run / "run"), "3")
    with pytest.raises(UserError, match="latest, best or a step, not 'newest'"):
        command.evaluate(str(run / "run"), "newest")
    with pytest.raises(UserError, match="not a run directory"):
        command.evaluate(str(tmp_path))


def test_data_of_another_tokenizer_is_refused(run, tmp_path):
    texts = tiny_dataset.documents(40)
    from_documents(tmp_path / "other", tiny_dataset.tokenizer(1), {"train": texts, "validation": texts})
    with pytest.raises(UserError, match="another tokenizer"):
        command.evaluate(str(run / "run"), data=str(tmp_path / "other"))


def test_unigram_entropy_of_known_counts():
    assert command.unigram_entropy(np.array([0, 2, 2, 4])) == pytest.approx(1.5 * math.log(2))
    assert command.unigram_entropy(np.array([5, 0])) == 0 == command.unigram_entropy(np.zeros(3, int))


def test_bytes_of_the_text():
    tokenizer = tiny_dataset.tokenizer()
    ids = tokenizer.encode("the whale and a ship")
    counts = np.bincount(
        [*ids, *ids, 1, tokenizer.vocabulary.sentinels[0]], minlength=tokenizer.vocabulary.size
    )
    assert command.num_bytes(counts, tokenizer) == 2 * len(" the whale and a ship")


def test_json_is_written(run, tmp_path, capsys):
    command.FLAGS(["evaluate", f"--workdir={run / 'run'}", "--batches=1", f"--json={tmp_path / 'e.json'}"])
    try:
        assert command.main([]) == Exit.DONE
    finally:
        command.FLAGS.unparse_flags()
    figures = json.loads((tmp_path / "e.json").read_text())
    assert f"unigram_entropy     {figures['unigram_entropy']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("configured", [tiny_encoder.BERT, tiny_encoder.ELECTRA], ids=lambda run: run.name)
def test_encoders_are_measured_by_their_own_losses(configured, tmp_path):
    texts = {"train": tiny_encoder.documents(200), "validation": tiny_encoder.documents(12, 1000)}
    from_documents(tmp_path / "data", tiny_encoder.tokenizer(), texts)
    run = dataclasses.replace(configured, data=Data(sources=(Source(path=str(tmp_path / "data")),)), steps=2)
    with one_device():
        assert train(run, str(tmp_path / "run")) == Exit.DONE
    figures = command.evaluate(str(tmp_path / "run"), batches=2)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["cross_entropy"]))
    total = sum(factor * figures[name] for name, factor in run.objective.terms.items())
    assert figures["loss"] == pytest.approx(total, rel=1e-5)
    detects = {"detection", "detection_accuracy", "detection_recall", "replaced"}
    names = detects if "detection" in run.objective.terms else {"pair_loss", "pair_accuracy"}
    assert names <= figures.keys()

    # The unigram entropy is that of the hidden tokens, duplicates and all.
    held_out = Batches(run.data, run.objective, run.batch_size, run.seed, split="validation")
    hidden = np.concatenate(
        [b["masked_targets"][b["masked_weights"] > 0] for b in (held_out(step) for step in range(2))]
    )
    shares = np.unique(hidden, return_counts=True)[1] / len(hidden)
    assert figures["targets"] == len(hidden)
    assert figures["unigram_entropy"] == pytest.approx(-np.sum(shares * np.log(shares)))
