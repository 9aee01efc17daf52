"""A Beam pipeline makes the same corpus as the local engine, byte for byte."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import crawl
import pytest
import small_corpus
from apache_beam.runners.portability.prism_runner import PrismRunner

from t5x_like.data.cleaning.c4 import C4Clean, MaxLength, MinSentences
from t5x_like.data.cleaning.pii import MaskPII
from t5x_like.data.corpus import beam
from t5x_like.data.corpus.making import Arguments, make
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts, DuplicateURLs
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.dedup.spans import DuplicateSpans
from t5x_like.data.documents import Settings
from t5x_like.errors import UserError

C4 = Corpus(
    name="small",
    steps=(
        MaxLength(),
        DuplicateURLs(),
        C4Clean(),
        DuplicateLines(),
        MinSentences(),
        NearDuplicates(threshold=0.5),
    ),
    validation_fraction=0.2,
)
SPANS = Corpus(
    name="spans",
    steps=(DuplicateTexts(), DuplicateSpans(), NearDuplicates(threshold=None, keep="all"), MaskPII()),
    validation_fraction=0.2,
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Some of the crawl's pages in two WET files, texts in a JSONL file with a bad line, a file that is cut off."""
    folder = tmp_path_factory.mktemp("pages")
    every = [page for page in crawl.pages() if page.kind != "too_long"][:200]
    crawl.write(folder, every, files=2)
    rows = [
        {"text": f"{page.text}\nMail me@home.example if you {page.url}.", "url": page.url}
        for page in every[:90]
    ]
    (folder / "texts.jsonl").write_text("\n".join(["{broken", *map(json.dumps, rows)]))
    cut = sorted(folder.glob("*.gz"))[0].read_bytes()
    (folder / "zz_cut.warc.wet.gz").write_bytes(cut[: len(cut) // 2])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "throughput.json"
    }


def _arguments(pages: Path, output: Path, recipe: Corpus, **changes) -> Arguments:
    return Arguments(
        input=(f"{pages}/*",), output=str(output), recipe=recipe, workers=1, unit_bytes=60_000, **changes
    )


@pytest.mark.parametrize("recipe", [C4, SPANS], ids=lambda recipe: recipe.name)
def test_the_same_corpus_as_the_local_engine(pages, tmp_path, monkeypatch, recipe):
    small_corpus.tokenizer().save(tmp_path / "model")
    tokenizer = str(tmp_path / "model")
    downloads = []  # that runner begins with one
    monkeypatch.setattr(PrismRunner, "run_pipeline", lambda *given: downloads.append(given))
    local = make(_arguments(pages, tmp_path / "local", recipe, tokenizer=tokenizer), quiet=True)
    asked = _arguments(pages, tmp_path / "beam", recipe, tokenizer=tokenizer, engine="beam")
    piped = make(asked, quiet=True)
    found, expected = contents(tmp_path / "beam"), contents(tmp_path / "local")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert len([name for name in found if ".array_record" in name]) > 3
    assert piped.data["tokens_counted"] and piped.data["funnel"][1]["in"]["tokens"] > 1000
    assert piped.code == local.code and piped.documents > 20 and not downloads


def test_workers_elsewhere_leave_their_files_where_they_are_fetched(pages, tmp_path):
    only_texts = dataclasses.replace(
        _arguments(pages, tmp_path / "local", C4), input=(f"{pages}/texts.jsonl",)
    )
    make(only_texts, quiet=True)
    remote = dataclasses.replace(
        only_texts, output=str(tmp_path / "beam"), engine="beam", beam_folder=f"file://{tmp_path}/shared"
    )
    make(remote, quiet=True)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    assert not list((tmp_path / "shared").iterdir())
    with pytest.raises(UserError, match="cannot see a file of this machine"):
        make(dataclasses.replace(remote, input=(f"{pages}/*",), output=str(tmp_path / "other")), quiet=True)


def test_a_runner_elsewhere_needs_a_folder(pages, tmp_path):
    with pytest.raises(UserError, match="the workers of FlinkRunner cannot see"):
        make(
            _arguments(pages, tmp_path / "out", C4, engine="beam", beam_options=("--runner=FlinkRunner",)),
            quiet=True,
        )


def test_an_error_of_ours_inside_a_worker_is_told_as_it_is(pages, tmp_path, caplog):
    asked = _arguments(pages, tmp_path / "out", C4, engine="beam", read=Settings(bad_input="fail"))
    with pytest.raises(UserError) as error:
        make(asked, quiet=True)
    assert error.value.what.startswith("broken json") and "texts.jsonl:1 (byte 0)" in str(error.value)
    assert "t5x_like-error" not in caplog.text  # nor as a traceback in Beam's log


def test_a_pipeline_that_ended_is_not_run_again(pages, tmp_path, monkeypatch):
    asked = _arguments(pages, tmp_path / "beam", Corpus(name="none"), engine="beam")
    ran = []
    build = beam._build
    monkeypatch.setattr(beam, "_build", lambda *given: ran.append(1) or build(*given))
    monkeypatch.setattr("t5x_like.data.corpus.making.shards_of", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(asked, quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(beam, "_build", lambda *given: ran.append(2))
    make(asked, quiet=True)
    assert ran == [1]
    make(_arguments(pages, tmp_path / "local", Corpus(name="none")), quiet=True)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_without_the_package_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, beam.__name__)
    with pytest.raises(UserError, match="the package apache-beam"):
        importlib.import_module(beam.__name__)
