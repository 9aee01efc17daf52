"""A corpus comes out the same whoever made it and however often it was stopped; everything is accounted for."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import crawl
import pytest
import small_corpus

from t5x_like import config
from t5x_like.data import example_proto, text_dataset
from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.c4 import C4Clean, MaxLength, MinSentences
from t5x_like.data.corpus import making, passes, stored
from t5x_like.data.corpus.making import Arguments, make
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.dedup.first import DuplicateLines, DuplicateURLs
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.documents import Document
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError

SMALL = Corpus(
    name="small",
    steps=(MaxLength(), DuplicateURLs(), C4Clean(), DuplicateLines(), MinSentences()),
    validation_fraction=0.2,
)
"""C4 without what takes long."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    small_corpus.tokenizer().save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Some of the crawl's pages in two WET files."""
    folder = tmp_path_factory.mktemp("pages")
    every = [page for page in crawl.pages() if page.kind != "too_long"][:240]
    crawl.write(folder, every, files=2)
    return folder


def small(pages: Path, output: Path, **changes) -> Arguments:
    """Units and ranges so small that there are several of each."""
    return Arguments(
        input=(f"{pages}/*",),
        output=str(output),
        **({"recipe": SMALL, "workers": 1, "unit_bytes": 60_000, "range_bytes": 200_000} | changes),
    )


@pytest.fixture(scope="module")
def reference(pages, model, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "out"
    make(small(pages, output, tokenizer=model), quiet=True)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus but the one that tells how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "throughput.json"
    }


def records(output: Path, split: str | None = None) -> list[dict]:
    """The records of the text dataset."""
    (folder,) = output.glob("t5x_like_corpus/*/1.0.0")
    found = []
    for name in [split] if split else ["train", "validation"]:
        for shard in text_dataset.folder_shards(folder, name, "text"):
            for record in text_dataset.read_records(shard.path, shard.first, shard.last):
                assert record is not None
                values = example_proto.read_values(record)
                found.append({key: value[0] if value else 0 for key, value in values.items()})
    return found


# ---- the same bytes however it ran


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_write_the_same_bytes(pages, model, reference, tmp_path, workers):
    make(small(pages, tmp_path / "out", tokenizer=model, workers=workers), quiet=True)
    assert contents(tmp_path / "out") == contents(reference)
    assert not (tmp_path / "out.partial").exists()


def test_the_size_of_ranges_and_counting_tokens_do_not_matter(pages, model, reference, tmp_path):
    changes = {"tokenizer": model, "count_tokens": False, "range_bytes": 3000}
    summary = make(small(pages, tmp_path / "out", **changes), quiet=True)
    assert not summary.data["tokens_counted"] and "tokens, about" in str(summary)
    row = summary.data["funnel"][1]["in"]
    assert row["tokens"] == round(summary.data["tokens_per_character"] * row["characters"])
    ours, theirs = contents(tmp_path / "out"), contents(reference)
    assert all(
        ours[name] == theirs[name] for name in ours if "array_record" in name or name == "samples.jsonl"
    )


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def test_killed_again_and_again(pages, model, reference, tmp_path, monkeypatch):
    """Everything that is done is done by renaming a file or folder: death at one of them, before or behind it."""
    output, attempts, limit = tmp_path / "out", 0, 0
    originals = {name: getattr(Path, name) for name in ("replace", "rename")}
    calls = 0

    def dying(name):
        def instead(path, target):
            nonlocal calls
            calls += 1
            if calls == limit and attempts % 2:
                raise Killed
            done = originals[name](path, target)
            if calls == limit:
                raise Killed
            return done

        return instead

    with monkeypatch.context() as patch:
        for name in originals:
            patch.setattr(Path, name, dying(name))
        while True:
            calls, attempts = 0, attempts + 1
            limit = 5 + attempts
            try:
                make(small(pages, output, tokenizer=model), quiet=True)
                break
            except Killed:
                assert output.exists() <= (output / "tokens" / "manifest.json").exists(), (
                    "never half a corpus"
                )
    assert 5 < attempts < 25
    assert contents(output) == contents(reference)
    make(small(pages, output, tokenizer=model), quiet=True)
    assert not (tmp_path / "out.partial").exists(), "what was left is removed"


@pytest.mark.slow
@pytest.mark.parametrize("renames", [1, 4, 7])
def test_killed_from_outside(pages, model, reference, tmp_path, renames):
    """kill -9 of the whole command at work with two processes, when it has put so many things in their place."""
    output = tmp_path / "out"
    program = (
        "import os, sys, json\nfrom pathlib import Path\nsys.path[:0] = json.loads(sys.argv[1])\n"
        "from test_making import killed_after, make, small\n"
        "if __name__ == '__main__':\n"
        "    killed_after(int(sys.argv[5]))\n"
        "    make(small(Path(sys.argv[2]), Path(sys.argv[3]), tokenizer=sys.argv[4], workers=2), quiet=True)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    path = [str(Path(__file__).parent), str(Path(crawl.__file__).parent), *sys.path]
    command = [sys.executable, str(script), json.dumps(path), str(pages), str(output), model, str(renames)]
    process = subprocess.Popen(command, start_new_session=True)
    assert process.wait() == -signal.SIGKILL
    while _held(tmp_path / "out.partial" / "lock", process.pid):
        time.sleep(0.02)
    make(small(pages, output, tokenizer=model), quiet=True)
    assert contents(output) == contents(reference)


def killed_after(renames: int) -> None:
    """This process, its workers not, dies by SIGKILL when it has renamed so many files and folders."""
    left = itertools.count(renames - 1, -1)
    for name in ("replace", "rename"):

        def instead(path, target, original=getattr(Path, name)):
            done = original(path, target)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(Path, name, instead)


def _held(lock: Path, session: int) -> bool:
    """Whether workers of the dead command are still on their way out."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return lock.exists()


def test_other_arguments_are_refused_and_made_before_is_said(pages, model, reference, tmp_path):
    before = contents(reference)
    summary = make(small(pages, reference, tokenizer=model), quiet=True)
    assert summary.made_before and "nothing to do" in str(summary)
    with pytest.raises(UserError, match=r"validation_fraction was 0\.2 and is 0\.3 now"):
        other = dataclasses.replace(SMALL, validation_fraction=0.3)
        make(small(pages, reference, tokenizer=model, recipe=other), quiet=True)
    assert contents(reference) == before
    words = tmp_path / "words.txt"
    words.write_text("zyzzyva\n")
    rules = dataclasses.replace(SMALL, steps=(BadWords(lists=str(words)),), validation_fraction=0)
    listed = small(pages, tmp_path / "listed", recipe=rules)
    (found,) = make(listed, quiet=True).data["arguments"]["lists"].values()
    assert [len(digest) for digest in found] == [32]
    words.write_text("zyzzyva\nother\n")
    with pytest.raises(UserError, match="lists"):
        make(listed, quiet=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a corpus") as error:
        make(small(pages, tmp_path / "thesis"), quiet=True)
    assert error.value.code == Exit.CANNOT_WRITE


def test_a_tokenizer_that_cannot_be_costs_nothing_but_itself(pages, model, reference, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="vocabulary"):
        make(small(pages, tmp_path / "out", training=Training(vocab_size=90_000)), quiet=True)
    monkeypatch.setattr(making, "Local", _only_looking(making.Local))
    make(small(pages, tmp_path / "out", tokenizer=model), quiet=True)
    assert contents(tmp_path / "out") == contents(reference)


def _only_looking(engine):
    """The engine, where everything has been done before."""

    class Looking(engine):
        def run(self, units):
            assert all(self._job.done(stage, 0) for stage in range(len(self._stages)))
            return super().run(units)

    return Looking


# ---- what is in it


def test_every_document_has_its_provenance(reference, pages):
    by_url = {page.url: page for page in crawl.pages()}
    found = records(reference)
    assert len({record["hash"] for record in found}) == len(found) > 100
    version = json.loads((reference / "corpus.json").read_text())["rules"].encode()
    for record in found:
        page = by_url[record["url"].decode()]
        assert record["timestamp"].decode() == page.date
        assert record["rules"] == version
        assert set(record["text"].decode().split("\n")) <= {
            line.replace("[1][citation needed]", "") for line in page.text.split("\n")
        }
        source = Path(record["source"].decode())
        assert source.parent == pages
        with source.open("rb") as file:  # the position is that of the record
            file.seek(record["position"])
            assert page.url.encode() in _member(file.read(1 << 16))


def _member(content: bytes) -> bytes:
    import zlib

    return zlib.decompressobj(wbits=31).decompress(content)


def test_the_token_dataset_is_of_the_same_documents_in_the_same_order(reference):
    dataset = TokenDataset.open(str(reference / "tokens"))
    dataset.verify()
    for name in ("train", "validation"):
        texts = [record["text"].decode() for record in records(reference, name)]
        split = dataset.split(name)
        assert split.num_documents == len(texts) > 10
        ids = dataset.tokenizer.encode_documents(texts).ids
        tokens = split.gather([0], split.num_tokens)[0]
        assert ids.tolist() == tokens.tolist()


def test_tensorflow_datasets_reads_it_by_name(reference):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder("t5x_like_corpus/small", data_dir=str(reference))
    texts = [record["text"] for record in records(reference, "validation")]
    source = builder.as_data_source(split="validation")
    assert [example["text"] for example in source] == texts
    assert {"url", "timestamp", "source", "position", "language", "hash", "rules"} <= set(source[0])


def test_prepare_reads_it_by_name_and_keeps_its_splits(reference, model, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from t5x_like.data.preparation import Arguments as Preparation
    from t5x_like.data.preparation import prepare

    prepare(
        Preparation(
            input=("tfds:t5x_like_corpus/small:train",),
            validation_input=("tfds:t5x_like_corpus/small:validation",),
            tfds_data_dir=str(reference),
            tokenizer=model,
            output=str(tmp_path / "tokens"),
        ),
        quiet=True,
    )
    ours, theirs = (TokenDataset.open(str(f / "tokens")) for f in (tmp_path, reference))
    assert ours.fingerprint == theirs.fingerprint


def test_the_funnel_adds_up(reference, pages):
    data = json.loads((reference / "corpus.json").read_text())
    funnel = data["funnel"]
    assert [row["step"] for row in funnel] == [
        "extract",
        "01 max_length",
        "02 duplicate_urls",
        "03 c4_clean",
        "04 duplicate_lines",
        "05 min_sentences",
        "06 near_duplicates",
    ]
    for before, row in itertools.pairwise(funnel):
        for unit in ("documents", "characters", "words"):
            assert row["in"][unit] == before["out"][unit]
    for row in funnel:
        assert row["in"]["documents"] == row["out"]["documents"] + sum(row["rejected"].values())
    found = records(reference)
    assert funnel[-1]["out"]["documents"] == len(found)
    assert funnel[-1]["out"]["characters"] == sum(len(record["text"].decode()) for record in found)
    assert sum(split["tokens"] for split in data["splits"].values()) == funnel[-1]["out"]["tokens"]
    assert sum(data["lengths"].values()) == sum(data["languages"].values()) == len(found)
    samples = [json.loads(line) for line in (reference / "samples.jsonl").read_text().splitlines()]
    shown = Counter((s["step"], s["reason"]) for s in samples if s["kind"] == "rejected")
    assert shown == {
        (row["step"], reason): min(10, count) for row in funnel for reason, count in row["rejected"].items()
    }
    changed = next(s for s in samples if s["kind"] == "changed" and s["step"] == "03 c4_clean")
    assert len(changed["before"]) > len(changed["text"])


def test_tokens_of_every_step_are_counted(pages, model, tmp_path, monkeypatch):
    """They are kept for later; here words are counted at once, and every token is taken for one."""
    tokenizer = load_tokenizer(model)
    monkeypatch.setattr(
        passes,
        "size",
        lambda document: (len(document.text), len(tokenizer.encode_documents([document.text]).ids)),
    )
    data = make(small(pages, tmp_path / "out", tokenizer=model), quiet=True).data
    assert data["tokens_counted"]
    sides = [row[side] for row in data["funnel"] for side in ("in", "out")]
    assert [side["tokens"] for side in sides[1:]] == [side["words"] for side in sides[1:]]
    assert "tokens" not in sides[0], "what is read may be markup"
    assert len({side["tokens"] for side in sides[1:]}) == 5


def test_the_recipe_makes_the_same_corpus_again(pages, model, reference, tmp_path):
    recipe = config.load_as(str(reference / "recipe.json"), Corpus)
    assert recipe == SMALL


# ---- C4 on the crawl whose fate is known


@pytest.fixture(scope="module")
def c4(tmp_path_factory):
    pytest.importorskip("langdetect")
    folder = tmp_path_factory.mktemp("c4")
    crawl.write(folder / "pages")
    recipe = config.load_as("corpus/c4", Corpus)
    make(
        Arguments(input=(str(folder / "pages" / "*"),), output=str(folder / "out"), recipe=recipe), quiet=True
    )
    return folder / "out"


def test_every_rule_of_c4_has_its_counter(c4):
    funnel = json.loads((c4 / "corpus.json").read_text())["funnel"]
    rejected = {
        (row["step"][3:], reason): count for row in funnel[1:] for reason, count in row["rejected"].items()
    }
    assert rejected == crawl.REJECTED
    assert {row["step"][3:]: row["changed"] for row in funnel[1:] if row["changed"]} == crawl.CHANGED
    assert funnel[0]["in"]["documents"] == sum(crawl.KINDS.values()) == 1000
    kinds = {page.url: page.kind for page in crawl.pages()}
    kept = Counter(kinds[record["url"].decode()] for record in records(c4))
    assert kept == {kind: crawl.KINDS[kind] for kind in ("good", "menu", "citations", "braces_in_menu")}


# ---- splits


def near_copies(folder: Path, groups: int = 30) -> Path:
    """Texts in groups of four: a text, two with a word changed, and the text again."""
    drawn = crawl.sentences(7)
    lines = []
    for group in range(groups):
        text = " ".join(next(drawn) for _ in range(30))
        words = text.split()
        for member in range(4):
            changed = [*words]
            if member in (1, 2):
                changed[100 * member] = f"changed{group}"
            lines.append(json.dumps({"text": " ".join(changed), "url": f"http://a.org/{group}/{member}"}))
    lines = lines[::2] + lines[1::2]
    path = folder / "copies.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_near_duplicates_are_never_on_both_sides(tmp_path):
    near_copies(tmp_path)
    recipe = Corpus(name="none", validation_fraction=0.5)
    make(small(tmp_path, tmp_path / "out", recipe=recipe, unit_bytes=40_000), quiet=True)
    sides = {}
    for split in ("train", "validation"):
        for record in records(tmp_path / "out", split):
            sides.setdefault(record["url"].decode().split("/")[3], []).append((split, record["cluster"]))
    assert len(sides) == 30 and all(len(found) == 4 and len(set(found)) == 1 for found in sides.values())
    assert {found[0][0] for found in sides.values()} == {"train", "validation"}
    data = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert data["clusters"] == {"clusters": 30, "documents": 120, "sizes": {"4": 30}}
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert Counter(s["cluster"] for s in samples if s["kind"] == "cluster").most_common(1)[0][1] == 3


def test_one_of_each_cluster_is_kept(tmp_path):
    near_copies(tmp_path)
    recipe = Corpus(name="first", steps=(NearDuplicates(),), validation_fraction=0.5)
    make(small(tmp_path, tmp_path / "out", recipe=recipe), quiet=True)
    urls = sorted(record["url"].decode() for record in records(tmp_path / "out"))
    assert urls == sorted(f"http://a.org/{group}/0" for group in range(30))


def test_split_by_address_is_c4s(tmp_path):
    lines = [json.dumps({"text": f"Text {i}", "url": f"http://example.org/{i}"}) for i in range(500)]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines))
    recipe = Corpus(name="byurl", split="url")
    make(small(tmp_path, tmp_path / "out", recipe=recipe), quiet=True)
    held_out = [record["url"].decode() for record in records(tmp_path / "out", "validation")]
    assert held_out == ["http://example.org/6", "http://example.org/430"]


# ---- bad input


def test_what_cannot_be_read_is_told_and_the_rest_is_there(pages, tmp_path):
    first, second = sorted(pages.iterdir())
    whole = first.read_bytes()
    (tmp_path / "cut.wet.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.wet.gz").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty.wet.gz").write_bytes(b"")
    names = ["cut.wet.gz", "noise.wet.gz", "empty.wet.gz", "missing.wet.gz"]
    recipe = Corpus(name="none", validation_fraction=0.0)
    arguments = Arguments(
        input=(str(second), *(str(tmp_path / name) for name in names)),
        output=str(tmp_path / "out"),
        recipe=recipe,
        workers=1,
    )
    summary = make(arguments, quiet=True)
    assert summary.code == Exit.PARTIAL and "could not be read" in str(summary)
    told = [json.loads(line) for line in (tmp_path / "out" / "rejections.jsonl").read_text().splitlines()]
    by_file = {Path(problem["file"]).name: problem for problem in told}
    assert set(by_file) == set(names)
    assert by_file["missing.wet.gz"]["kind"] == "missing_file"
    assert (
        by_file["cut.wet.gz"]["kind"] == "truncated" and 0 < by_file["cut.wet.gz"]["byte"] < len(whole) // 2
    )
    sources = Counter(Path(record["source"].decode()).name for record in records(tmp_path / "out", "train"))
    assert sources[second.name] == 120, "the whole file"
    assert 50 < sources["cut.wet.gz"] < 70, "half of the other"
    with pytest.raises(UserError):
        failing = dataclasses.replace(arguments.read, bad_input="fail")
        make(dataclasses.replace(arguments, output=str(tmp_path / "fail"), read=failing), quiet=True)


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "noise.wet.gz").write_bytes(b"noise")
    with pytest.raises(UserError, match="no document of the input can be used") as error:
        make(small(tmp_path, tmp_path / "out"), quiet=True)
    assert error.value.code == Exit.BAD_DATA and "noise.wet.gz" in str(error.value)


def test_nothing_left_is_a_result(tmp_path, model):
    (tmp_path / "short.txt").write_text("Too short.\n\nThis is too short as well.")
    summary = make(small(tmp_path, tmp_path / "out", tokenizer=model), quiet=True)
    assert summary.code == Exit.BAD_DATA and "no document is left" in str(summary)
    assert "next:" not in str(summary)
    samples = (tmp_path / "out" / "samples.jsonl").read_text()
    assert "Too short." in samples and "too_few_sentences" in samples


def test_addresses_and_names_are_never_paths(tmp_path):
    urls = ["../../../escape", "/etc/escape", "file:///escape", "http://a.org/%2e%2e/escape", "a" * 4000]
    lines = [json.dumps({"text": f"Text number {i}", "url": url}) for i, url in enumerate(urls)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "pages.jsonl").write_text("\n".join(lines))
    recipe = Corpus(name="none", validation_fraction=0.5)
    make(small(tmp_path / "in", tmp_path / "made" / "out", recipe=recipe), quiet=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if "escape" in path.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "made"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]
    for name in ("../out", "a/b", "", ".hidden", "UPPER", "x\n"):
        with pytest.raises(UserError, match="name"):
            make(small(tmp_path / "in", tmp_path / "x", recipe=dataclasses.replace(recipe, name=name)))
    assert not (tmp_path / "x").exists()


def test_an_unfinished_corpus_of_another_recipe_is_not_thrown_away(pages, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(making, "shards_of", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            make(small(pages, tmp_path / "out"), quiet=True)
    other = dataclasses.replace(SMALL, validation_fraction=0.3)
    with pytest.raises(UserError, match="unfinished"):
        make(small(pages, tmp_path / "out", recipe=other), quiet=True)
    make(small(pages, tmp_path / "out", recipe=other, overwrite=True), quiet=True)
    assert (tmp_path / "out" / "corpus.json").is_file()


def test_an_intermediate_file_that_was_cut_or_changed_is_no_shorter_one(tmp_path):
    documents = [(number, Document(f"text {number}")) for number in range(1000)]
    path = tmp_path / "documents"
    stored.write(path, documents)
    whole = path.read_bytes()
    assert list(stored.read(path)) == documents == list(stored.loads(whole))
    for data in (whole[:-1], whole[: len(whole) // 2], b"", whole[:-60] + b"x" + whole[-59:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="an intermediate file is damaged"):
            list(stored.read(path))
    stored.write(path, [])
    assert not list(stored.read(path))


@pytest.mark.parametrize(
    "name, content",
    [
        ("00/0000000.json", b'{"counts": {'),
        ("00/units", b""),
        ("00/0000000.documents", None),
        ("00/verdicts-0/000000.json", None),
    ],
)
def test_a_file_that_was_lost_between_two_runs_is_named(pages, tmp_path, monkeypatch, name, content):
    from t5x_like.data.corpus import local

    with monkeypatch.context() as patch:  # dies when the first comparison is done
        patch.setattr(local, "follow", Dies(local.follow))
        with pytest.raises(Killed):
            make(small(pages, tmp_path / "out", workers=1), quiet=True)
    path = tmp_path / "out.partial" / "passes" / name
    assert path.is_file()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="an intermediate file is") as error:
        make(small(pages, tmp_path / "out", workers=1), quiet=True)
    assert f"remove {tmp_path}/out.partial and" in str(error.value)


def test_folders_of_the_user_that_have_our_names_are_kept(pages, tmp_path):
    out, beside, old = tmp_path / "out", tmp_path / "out.partial", tmp_path / "out.old"
    for folder in (beside, old):
        folder.mkdir()
        (folder / "mine").write_text("precious")
    plain = {"recipe": Corpus(name="plain", validation_fraction=0)}
    with pytest.raises(UserError, match="something else is there: mine"):
        make(small(pages, out, **plain), quiet=True)
    beside.rename(tmp_path / "kept")
    make(small(pages, out, **plain), quiet=True)
    (tmp_path / "kept").rename(beside)
    make(small(pages, out, **plain), quiet=True)  # made before
    assert (beside / "mine").is_file()
    beside.rename(tmp_path / "kept")
    make(small(pages, out, overwrite=True, recipe=Corpus(name="other", validation_fraction=0)), quiet=True)
    assert json.loads((out / "recipe.json").read_text())["name"] == "other"
    assert (old / "mine").is_file() and not beside.exists()


def test_an_output_is_never_inside_the_input(pages, tmp_path):
    (tmp_path / "link").symlink_to(pages, target_is_directory=True)
    for names, output in (
        ((str(pages),), pages / "out"),
        ((str(pages),), tmp_path / "link" / "out"),
        ((str(pages.parent), str(pages)), pages.parent / "out"),
        ((f"{pages}/*",), pages),
    ):
        with pytest.raises(UserError, match=r"inside the input|files of the output|not a corpus"):
            make(dataclasses.replace(small(pages, output), input=names), quiet=True)
        assert not output.with_name(output.name + ".partial").exists()


@pytest.mark.parametrize("name", ["/dev/null", "x" * 300, "\udcff", "dangling", "file"])
def test_an_output_that_cannot_be(pages, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as error:
        make(dataclasses.replace(small(pages, tmp_path), output=name), quiet=True)
    assert error.value.code == Exit.CANNOT_WRITE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


class Dies:
    """A pass that dies behind the first comparison."""

    def __init__(self, follow):
        self.follow = follow

    def __call__(self, job, stage, number, unit):
        if stage:
            raise Killed
        self.follow(job, stage, number, unit)


def test_an_existing_tokenizer_is_read_before_anything_else(pages, tmp_path):
    with pytest.raises(UserError):
        make(small(pages, tmp_path / "out", tokenizer=str(tmp_path / "none")), quiet=True)
    assert not (tmp_path / "out.partial").exists()
    with pytest.raises(UserError, match=r"tokenizer|model"):
        load_tokenizer(str(tmp_path / "none"))
