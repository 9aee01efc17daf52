"""inspect on encoders: what is shown is what stands in the batch, and every row rebuilds its source."""

from __future__ import annotations

import dataclasses
import io

import jax
import numpy as np
import pytest
import tiny_encoder
from rich.console import Console

from t5x_like import inspection, inspection_encoder, rendering
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.token_dataset import from_documents
from t5x_like.objectives.replaced_token_detection import put

TOKENIZER = tiny_encoder.tokenizer()
V = TOKENIZER.vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a"
    texts = {"train": tiny_encoder.documents(200), "validation": tiny_encoder.documents(12, 1000)}
    from_documents(path, TOKENIZER, texts)
    return Data(sources=(Source(path=str(path)),))


def batches(data, run, **objective):
    changed = dataclasses.replace(run.objective, **objective)
    return Batches(data, changed, 16, 0)


def terminal(found, **options):
    console = Console(file=io.StringIO(), **options)
    rendering.to_terminal(found, "title", 4, console)
    return console.file.getvalue()


@pytest.mark.parametrize("run", [tiny_encoder.BERT, tiny_encoder.ELECTRA], ids=lambda run: run.name)
def test_every_row_rebuilds_its_source_and_shows_its_places(data, run):
    made = batches(data, run)
    found, batch = inspection.inspect(made, 3), made(3)
    assert found.restored == found.restorable == found.examples == 16
    assert found.loss_tokens == np.sum(batch["masked_weights"] > 0)
    for i, row in enumerate(found.rows):
        example = row.examples[0]
        used = batch["masked_weights"][i] > 0
        places = np.unique(batch["masked_positions"][i][used])
        inputs = batch["encoder_input_tokens"][i]
        originals = dict(
            zip(batch["masked_positions"][i][used], batch["masked_targets"][i][used], strict=True)
        )
        assert example.hidden == len(places) == sum(example.figures[f] for f in ("masked", "random", "kept"))
        shown = [piece for piece in example.texts["inputs"] if piece.fate]
        wanted = [
            "masked" if inputs[p] == V.mask else "kept" if inputs[p] == originals[p] else "random"
            for p in places
        ]
        assert [piece.fate for piece in shown] == wanted == [p.fate for p in example.texts["predict"]]
        asked = [piece.text.strip() for piece in example.texts["predict"]]
        assert asked == [TOKENIZER.id_to_piece(originals[p]) for p in places]
        second = [piece for piece in example.texts["inputs"] if piece.segment == 1]
        assert bool(second) == bool(batch["encoder_token_types"][i].any())
        if "pair_labels" in batch:
            label = ("B follows A", "B is a random text")[batch["pair_labels"][i]]
            assert example.notes == (label,) and label in rendering._row_title(found, i)


def test_statistics_name_what_was_configured(data):
    found = inspection.inspect(batches(data, tiny_encoder.BERT, keep_share=0.25, random_share=0.25), 0)
    (stream,) = found.streams
    assert stream.configured_shares == {"masked": 0.5, "random": 0.25, "kept": 0.25}
    assert stream.configured_hidden == 0.15 and sum(list(stream.shares.values())[:3]) == pytest.approx(1)
    counts = [row.examples[0].figures["random_pairs"] for row in found.rows]
    assert stream.shares["random_pairs"] == np.mean(counts)
    text = terminal(found)
    assert "(configured 50.0%)" in text and "random pairs" in text and rendering.LEGEND in text
    found = inspection.inspect(batches(data, tiny_encoder.ELECTRA), 0)
    assert found.streams[0].configured_shares == {"masked": 0.85, "kept": pytest.approx(0.15)}


def test_marks_tell_without_colours_and_colours_stand_on_a_page(data):
    found = inspection.inspect(batches(data, tiny_encoder.BERT, keep_share=0.5, random_share=0.5), 0)
    text = terminal(found)
    pieces = [p for row in found.rows[:4] for p in row.examples[0].texts["inputs"] if p.fate]
    pieces = [p for p in pieces if p.fate != "masked"]  # a random id may be that of [MASK]
    assert {p.fate for p in pieces} == {"random", "kept"}
    for piece in pieces:
        mark = {"random": "~", "kept": "="}[piece.fate]
        assert f"{mark}{piece.text.strip()}" in text
    assert "\x1b[31m" in terminal(found, force_terminal=True, color_system="standard")
    page = rendering.to_html(found, "title", 4)
    assert 'class="random' in page and "second" in page


def test_what_the_generator_puts_in_and_the_discriminator_finds(data):
    run, made = tiny_encoder.ELECTRA, batches(data, tiny_encoder.ELECTRA)
    params = run.model.init(jax.random.key(0))
    found, batch = inspection.inspect(made, 0, run.model, params), made(0)
    logits = run.model.generator_logits(params, batch)
    samples = np.asarray(made.objective.sample(logits, batch["masked_targets"], None))
    used = batch["masked_weights"] > 0
    originals = np.asarray(
        put(batch["encoder_input_tokens"], batch["masked_positions"], used, batch["masked_targets"])
    )
    for i, row in enumerate(found.rows):
        texts = row.examples[0].texts
        first = {}
        for place, sample in zip(batch["masked_positions"][i][used[i]], samples[i][used[i]], strict=True):
            first.setdefault(int(place), int(sample))
        replaced = sum(sample != originals[i, place] for place, sample in first.items())
        assert sum(piece.fate == "replaced" for piece in texts["sampled"]) == replaced
        assert all(float(piece.text.split()[-1]) >= 0.5 for piece in texts["detected"])
    assert "sampled" in terminal(found)


def test_runs_of_places():
    assert inspection_encoder.runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == (2, 1, 1)
    assert inspection_encoder.runs(np.zeros(3, bool)) == ()
