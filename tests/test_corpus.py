"""The command `corpus`: flags in, a summary, exit codes; pages of HTML to tokens that train reads."""

from __future__ import annotations

import json
import subprocess
import sys

import crawl
import pytest
from absl.flags import FlagValues

from t5x_like.data.token_dataset import TokenDataset
from t5x_like.errors import Exit, UserError
from t5x_like.reading_flags import ReadingFlags

SETTINGS = (
    "--set=steps=MaxLength,DuplicateURLs,C4Clean,DuplicateLines,MinSentences",
    "--set=validation_fraction=0.1",
)


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "t5x_like.corpus", *flags], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of pages in HTML, with a tokenizer trained on it, by the command."""
    pytest.importorskip("resiliparse")
    folder = tmp_path_factory.mktemp("corpus")
    pages = [page for page in crawl.pages() if page.kind != "too_long"][:120]
    crawl.write(folder / "pages", pages, form=crawl.response, files=2)
    flags = (
        "--config=corpus/none",
        *SETTINGS,
        f"--input={folder}/pages/*.warc.gz",
        f"--output={folder}/out",
        "--vocab_size=340",
        "--character_coverage=1.0",
    )
    return folder, pages, flags, command(*flags)


def test_pages_become_tokens(made):
    folder, pages, _, done = made
    assert done.returncode == Exit.DONE, done.stderr
    data = json.loads((folder / "out" / "corpus.json").read_text())
    assert data["funnel"][0]["in"]["documents"] == data["funnel"][0]["out"]["documents"] == len(pages)
    rejected = {
        (row["step"][3:], reason): n for row in data["funnel"] for reason, n in row["rejected"].items()
    }
    kinds = [page.kind for page in pages]
    expected = {key: kinds.count(kind) for kind, key in WHY.items() if kinds.count(kind)}
    expected["duplicate_urls", "older_page"] = kinds.count("older")
    assert rejected == {key: count for key, count in expected.items() if count}
    dataset = TokenDataset.open(str(folder / "out" / "tokens"))
    counts = {split: dataset.split(split).num_documents for split in dataset.splits}
    assert counts == {split: entry["documents"] for split, entry in data["splits"].items()}


WHY = {
    "lorem_ipsum": ("c4_clean", "lorem_ipsum"),
    "curly_bracket": ("c4_clean", "curly_bracket"),
    "few_sentences": ("c4_clean", "too_few_sentences"),
    "all_copied": ("duplicate_lines", "empty"),
    "mostly_copied": ("min_sentences", "too_few_sentences"),
}


def test_the_summary_is_a_table_that_says_what_comes_next(made):
    folder, _, _, done = made
    for part in (
        "read",
        "03 c4_clean",
        "curly bracket",
        "train",
        "validation",
        "next: python -m t5x_like.train",
    ):
        assert part in done.stdout
    assert f"--data={folder}/out/tokens" in done.stdout


def test_given_again_it_says_so_and_json_is_json(made):
    _, _, flags, _ = made
    again = command(*flags, "--json")
    assert again.returncode == Exit.DONE
    data = json.loads(again.stdout)
    assert data["made_before"] and data["splits"]["train"]["tokens"] > 0


def test_a_shard_that_is_missing_is_in_the_exit_code(made, tmp_path):
    folder, pages, _, _ = made
    done = command(
        "--config=corpus/none",
        "--set=validation_fraction=0",
        f"--input={folder}/pages/crawl-00000.warc.gz,{tmp_path}/crawl-00001.warc.gz",
        f"--output={tmp_path}/out",
    )
    assert done.returncode == Exit.PARTIAL == 66
    assert "1  missing file, skipped" in done.stdout and "exit code 66" in done.stdout
    data = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert data["splits"]["train"]["documents"] == len(pages) // 2


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--config is missing"),
        (("--config=corpus/c5",), "did you mean c"),
        (("--config=c4",), "did you mean corpus/c4?"),
        (("--config=corpus/none:nothing",), "no function 'nothing' that returns a Corpus"),
        (("--config=corpus/none", "--set=split=cluser"), "split"),
        (("--config=corpus/none", "--set=steps=C4Clen"), "did you mean C4Clean?"),
        (("--config=t5/tiny",), "no function 'config' that returns a Corpus"),
        (("--config=corpus/none", "--tokenizer=x", "--vocab_size=5"), "leave one of the two out"),
        (("--config=corpus/none", "--input=nowhere.jsonl"), "no such file or folder"),
        (("--config=nowhere.json",), "nowhere.json"),
        (
            (
                "--config=corpus/none",
                "--input=embedded",
                '--set=steps=[{"type": "DuplicateURLs"}, {"type": "ListedURLs", "addresses": "nowhere.txt"}]',
            ),
            "no such file: nowhere.txt",  # before anything is read
        ),
        (("--config=corpus/none", "--beam_options='--runner"), "no closing quotation"),
    ],
)
def test_mistakes_are_told_in_a_line(flags, message, tmp_path, monkeypatch, capsys):
    from t5x_like import cli, corpus

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["corpus", *flags, f"--output={tmp_path}/out"])
    try:
        with pytest.raises(SystemExit) as ended:
            cli.run(corpus.main, corpus.FLAGS)
    finally:
        for name in corpus.FLAGS:
            corpus.FLAGS[name].unparse()
    assert ended.value.code in (Exit.USAGE, Exit.BAD_DATA)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("name", [".", "/", "data/.."])
def test_an_output_needs_a_name(name, tmp_path, monkeypatch):
    from t5x_like.data.corpus import making
    from t5x_like.data.corpus.recipe import Corpus

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="must name the folder"):
        making.make(making.Arguments(input=("embedded",), output=name, recipe=Corpus(name="x")))


def test_input_may_be_repeated():
    values = FlagValues()
    reading = ReadingFlags(values)
    values(["corpus", "--input=a,b", "--input=c"])
    assert reading.input == ("a", "b", "c")


def test_the_builder_is_registered(made):
    tfds = pytest.importorskip("tensorflow_datasets")
    from t5x_like.data.corpus import tfds_builder

    folder, _, _, _ = made
    assert tfds.builder_cls("t5x_like_corpus") is tfds_builder.T5xLikeCorpus
    data = json.loads((folder / "out" / "corpus.json").read_text())
    builder = tfds_builder.T5xLikeCorpus(config="none", data_dir=str(folder / "out"))
    assert builder.info.splits["train"].num_examples == data["splits"]["train"]["documents"]
    example = builder.as_data_source(split="train")[0]
    assert set(example) == set(builder.info.features)
    source = tfds.data_source("t5x_like_corpus/none", data_dir=str(folder / "out"), split="train")
    assert source[0] == example
    with pytest.raises(Exception, match="this corpus has not been made"):
        tfds_builder.T5xLikeCorpus(config="other", data_dir=str(folder)).download_and_prepare()
