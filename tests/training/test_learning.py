"""Training reaches the entropy of a language that is known exactly, and does not go below it."""

import numpy as np
import pytest
import tiny_dataset
from tiny_run import make, one_device

from t5x_like.data.batches import Batches
from t5x_like.data.token_dataset import TokenDataset, TokenDatasetWriter
from t5x_like.errors import Exit
from t5x_like.models.t5 import T5
from t5x_like.objectives.prefix_lm import LanguageModel
from t5x_like.training import metrics
from t5x_like.training.checkpoints import Checkpoints
from t5x_like.training.loop import train
from t5x_like.training.optimizers import AdamW
from t5x_like.training.run import Evaluation
from t5x_like.training.schedules import Cosine

SYMBOLS, FIRST = 8, 10  # ids 10 to 17
LENGTH = 16
"""Of the targets. T5 tells distances below 16 apart, which it needs here to see EOS coming."""
TOLERANCE = 0.02
"""Nats a token that training may stay above the floor. Below it, three standard errors of the measurement."""


def chain(seed=0):
    """A random Markov chain of order 1: transitions [from, to], and its stationary distribution."""
    transitions = np.random.default_rng(seed).dirichlet(np.full(SYMBOLS, 0.5), SYMBOLS)
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    return transitions, stationary / stationary.sum()


def sample(transitions, length, seed):
    rng, ids = np.random.default_rng(seed), np.zeros(length, np.int64)
    cumulative, draws = transitions.cumsum(1), rng.random(length)
    for i in range(1, length):
        ids[i] = min(np.searchsorted(cumulative[ids[i - 1]], draws[i]), SYMBOLS - 1)
    return ids + FIRST


def write(folder, transitions):
    folder.mkdir()
    tokenizer = tiny_dataset.tokenizer()
    writer = TokenDatasetWriter(folder, tokenizer, ["train", "validation"])
    for split, length, seed in (("train", 400_000, 1), ("validation", 60_000, 2)):
        writer.append(split, sample(transitions, length, seed), np.array([0]), np.array([0]))
    writer.finish({})
    return TokenDataset.open(str(folder))


def floor(batches, count, transitions, stationary, eos):
    """(mean, standard error) of the true surprise of every target, given all that the decoder sees before it: the
    symbol before, nothing for the first, and EOS at its fixed place for certain."""
    surprise = []
    for step in range(count):
        batch = batches(step)
        for row, weights in zip(batch["decoder_target_tokens"], batch["decoder_loss_weights"], strict=True):
            symbols = row[weights > 0]
            if not len(symbols):
                continue
            assert symbols[-1] == eos and not (symbols[:-1] == eos).any()
            ids = symbols[:-1] - FIRST
            surprise += [-np.log(stationary[ids[0]]), *-np.log(transitions[ids[:-1], ids[1:]]), 0.0]
    return np.mean(surprise), np.std(surprise) / np.sqrt(len(surprise))


@pytest.mark.slow
def test_reaches_the_entropy_of_a_markov_chain_and_stays_above(tmp_path):
    transitions, stationary = chain()
    dataset = write(tmp_path / "data", transitions)
    model = T5(vocab_size=256, d_model=32, d_kv=16, num_heads=2, d_ff=64, num_layers=1, activation="relu", gated=False,
               tie_embeddings=False, scan_layers=False)  # fmt: skip
    run = make(
        tmp_path / "data", model=model, objective=LanguageModel(targets_length=LENGTH, z_loss=0.0), batch_size=64,
        steps=500, optimizer=AdamW(weight_decay=0.0),
        schedule=Cosine(peak=1e-2, warmup=50), evaluation=Evaluation(every=100, batches=25),
        checkpoints=Checkpoints(every=500), log_every=50,
    )  # fmt: skip
    held_out = Batches(run.data, run.objective, run.batch_size, run.seed, split="validation")
    least, error = floor(held_out, 25, transitions, stationary, dataset.vocabulary.eos)
    assert error < 0.01

    with one_device():
        assert train(run, str(tmp_path / "run")) == Exit.DONE
    losses = [
        m["cross_entropy"] for m in metrics.read(tmp_path / "run" / "metrics.jsonl") if m["kind"] == "eval"
    ]
    print(f"floor {least:.4f} +- {error:.4f}, validation {losses}")
    assert losses[-1] < least + TOLERANCE, "it learns all there is to learn"
    assert min(losses) > least - 3 * error, "and nothing that is not there"
    uniform = np.log(SYMBOLS)
    assert least < uniform - 0.5, "the language is one that can be learnt"
