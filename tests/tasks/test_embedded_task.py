"""A real labelled task without a download, by the command: from which of its three sources is a passage of the
embedded corpus?"""

from __future__ import annotations

import dataclasses
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_tasks
from tiny_run import one_device

from t5x_like import finetune
from t5x_like.data.sources import EMBEDDED
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.errors import Exit
from t5x_like.hub.encoders import export_encoder

SOURCES = ("jane_austen", "moby_dick", "state_of_the_union")
"""Chapters of two novelists, and speeches."""
WORDS = 24
SPLITS = {"train": 90, "dev": 15, "test": 30}
"""Passages of each source, one a document: Moby-Dick has 135 chapters."""


def passages() -> Iterator[tuple[str, str, str]]:
    """(split, source, words from the middle of a document)."""
    with lzma.open(EMBEDDED, "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    names = [name for name, count in SPLITS.items() for _ in range(count)]
    for source in SOURCES:
        texts = [document["text"].split() for document in documents if document["source"] == source]
        for split, words in zip(names, texts, strict=False):
            middle = len(words) // 2
            yield split, source, " ".join(words[middle : middle + WORDS])


@pytest.fixture
def flags() -> Iterator[None]:
    yield
    finetune.FLAGS.unparse_flags()
    for name in finetune.FLAGS:
        finetune.FLAGS[name].unparse()


@pytest.mark.usefixtures("flags")
def test_writers_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(passages())
    tokenizer = WordPieceTraining(vocab_size=600, lowercase=True).train([text for *_, text in rows])
    model = dataclasses.replace(tiny_tasks.ENCODER, vocab_size=600)
    export_encoder(model, tiny_tasks.params(model), tmp_path / "random", tokenizer)
    (tmp_path / "data").mkdir()
    for split in SPLITS:  # in GLUE's format
        lines = [f"{text}\t{source}\n" for name, source, text in rows if name == split]
        (tmp_path / "data" / f"{split}.tsv").write_text(
            "".join(["passage\twriter\n", *lines]), encoding="utf-8"
        )
    settings = ("epochs=15", "learning_rate=1.5e-3", "dropout=0", "length=64", "evaluate_every=70")
    finetune.FLAGS([
        "finetune", f"--init={tmp_path / 'random'}", f"--data={tmp_path / 'data'}", f"--output={tmp_path / 'out'}",
        "--task=writers", "--kind=classification", "--text_columns=passage", "--label_column=writer", "--seeds=2",
        *(f"--set={setting}" for setting in settings),
    ])  # fmt: skip
    with one_device():
        assert finetune.main([]) == Exit.DONE
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["split"] == "test" and len(results["seeds"]) == 2
    assert results["summary"]["accuracy"]["least"] > 0.5, results  # a third by chance
    assert "over 2 seeds" in capsys.readouterr().out
