"""`inspect`: what is shown is what is in the batch; every objective's way back; hostile text stays text."""

import html.parser
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from rich.console import Console
from tiny_dataset import dataset, documents

from t5x_like import inspection, rendering
from t5x_like.data.batches import Batches, Data, Source
from t5x_like.data.token_dataset import from_documents
from t5x_like.data.tokenizers import SentencePieceTokenizer
from t5x_like.errors import Exit
from t5x_like.inspection import clean
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers

HOSTILE = "<script>alert('x')</script> & \x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \u202eevil\u202c <b>bold</b>\x00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data")
    dataset(path / "a", 80)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents(200)), model_writer=model, vocab_size=330, byte_fallback=True,
        normalization_rule_name="identity", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    texts = [HOSTILE * 3] * 20
    from_documents(
        path / "b", SentencePieceTokenizer(model.getvalue()), {"train": texts, "validation": texts}
    )
    return path


def look(folder, objective, name="a", step=0, split="train", batch_size=8, **data) -> inspection.Inspection:
    settings = Data(sources=(Source(path=str(folder / name)),), **data)
    return inspection.inspect(Batches(settings, objective, batch_size, 0, split=split), step)


def terminal(found, rows=4, **options) -> str:
    console = Console(file=io.StringIO(), **options)
    rendering.to_terminal(found, "title", rows, console)
    return console.file.getvalue()


OBJECTIVES = [
    SpanCorruption(inputs_length=64),
    SpanCorruption(inputs_length=64, random_roll=True),
    SpanCorruption(inputs_length=64, final_sentinel=True),
    IidDenoising(inputs_length=64),
    IidDenoising(inputs_length=64, style="mass"),
    IidDenoising(inputs_length=64, style="bert"),
    PrefixLM(inputs_length=64),
    Deshuffling(inputs_length=64),
    LanguageModel(targets_length=64),
    MixtureOfDenoisers(inputs_length=64),
]


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__} {getattr(o, 'style', '')}"
)
def test_every_example_rebuilds_its_source(folder, objective, pack):
    """U7, for all objectives, packed or not."""
    for split, least in (("train", 8), ("validation", 1)):
        found = look(folder, objective, split=split, pack=pack)
        assert found.restored == found.restorable == found.examples >= least
        assert "rebuild the source text" in terminal(found)


def test_what_cannot_be_rebuilt_is_said(folder):
    found = look(folder, IidDenoising(inputs_length=64, style="drop_tokens"))
    assert found.restorable == 0
    assert "8 cannot, by their objective" in terminal(found)


def test_a_wrong_way_back_is_seen(folder):
    class Forgetful(SpanCorruption):
        def restore(self, inputs, targets, vocabulary):
            return super().restore(inputs, targets, vocabulary)[:-1]

    found = look(folder, Forgetful(inputs_length=64))
    assert found.restored == 0 and found.restorable == 8
    assert "does not rebuild its source" in terminal(found)


def test_a_sentinel_and_its_span_have_one_number(folder):
    for objective in OBJECTIVES[:4]:
        for row in look(folder, objective).rows:
            texts = row.examples[0].texts
            inputs = {p.text.strip(): p.span for p in texts["inputs"] if p.special}
            targets = {p.text.strip(): p.span for p in texts["targets"] if p.special}
            common = (inputs.keys() & targets.keys()) - {"</s>"}
            assert common and all(inputs[name] == targets[name] for name in common)
            spans = [p.span for p in texts["targets"] if not p.special]
            assert spans == list(range(len(spans))), "each span is one piece, in order"


def test_figures_of_span_corruption(folder):
    found = look(folder, SpanCorruption(inputs_length=64), batch_size=16)
    (stream,) = found.streams
    assert found.slots == {"inputs": 64, "targets": 14} and found.padding == {"inputs": 0.0, "targets": 0.0}
    assert found.loss_tokens == 16 * 14
    assert stream.hidden == 10 / 70 and stream.configured_hidden == 0.15  # round(70 * .15) = 10 in 3 spans
    assert stream.mean_span == 10 / 3 and stream.configured_span == 3.0
    assert (
        sum(n * c for n, c in stream.span_lengths.items()) == 160 and sum(stream.span_lengths.values()) == 48
    )


def test_nothing_hidden_counts_as_nothing(folder):
    found = look(folder, IidDenoising(inputs_length=64, style="mass", noise_density=1e-9))
    assert found.streams[0].hidden == 0 and found.streams[0].span_lengths == {}
    assert "hidden 0.0% of the source tokens" in terminal(found)


def test_figures_of_a_mixture_add_up(folder):
    found = look(folder, MixtureOfDenoisers(inputs_length=64), batch_size=64)
    assert len(found.streams) == 7 and sum(s.rows for s in found.streams) == 64
    assert all(abs(s.rows - 64 * s.rate) < 1 for s in found.streams)


def test_packed_rows_show_borders_and_padding(folder):
    found = look(folder, SpanCorruption(inputs_length=64), pack=True, split="validation")
    assert found.examples == len([e for r in found.rows for e in r.examples])
    found = look(folder, PrefixLM(inputs_length=64), pack=True)
    several = next(r for r in found.rows if len(r.examples) > 1)
    assert terminal(found, rows=8).count(rendering.BORDER) == 2 * sum(len(r.examples) - 1 for r in found.rows)
    assert f"row {several.number}: {len(several.examples)} examples" in terminal(found, rows=8)
    used = sum(e.tokens["inputs"] for r in found.rows for e in r.examples)
    assert found.padding["inputs"] == pytest.approx(1 - used / (8 * 64))


def test_tokens_without_weight_are_dim(folder):
    class Halved(SpanCorruption):
        def examples(self, windows, keys):
            batch = super().examples(windows, keys)
            batch["decoder_loss_weights"][:, :7] = 0
            return batch

    found = look(folder, Halved(inputs_length=64))
    pieces = found.rows[0].examples[0].texts["targets"]
    assert not pieces[0].counts and pieces[-1].counts
    assert "\x1b[1;2;32m" in terminal(found, force_terminal=True, color_system="standard")
    assert 'class="special dim s0"' in rendering.to_html(found, "title", 1)


def test_empty_rows_are_named(folder):
    batches = Batches(
        Data(sources=(Source(path=str(folder / "a")),)),
        SpanCorruption(inputs_length=64),
        7,
        0,
        split="validation",
    )
    found = inspection.inspect(batches, batches.num_batches - 1)
    assert "empty, behind the end of the split" in terminal(found, rows=7)


def test_colour_only_on_a_terminal(folder):
    found = look(folder, SpanCorruption(inputs_length=64))
    plain, coloured = terminal(found), terminal(found, force_terminal=True, color_system="standard")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", plain)
    assert "\x1b[1;32m <extra_id_0>" in coloured


# ---- hostile text -------------------------------------------------------------------------------


def test_clean():
    assert clean(HOSTILE) == "<script>alert('x')</script> & [31mred[0m ]0;title 2J evil <b>bold</b>"
    assert clean("a\nb\tc\r\n日本 é 🙂") == "a b c  日本 é 🙂"


class Page(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "onclick", "onerror")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("objective", [SpanCorruption(inputs_length=256), PrefixLM(inputs_length=256)])
def test_hostile_text_stays_text(folder, objective):
    found = look(folder, objective, name="b", batch_size=4)
    everything = "".join(p.text for r in found.rows for e in r.examples for t in e.texts.values() for p in t)
    assert "script" in everything and "alert" in everything, "the hostile text is there to be shown"
    plain = terminal(found)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain)
    coloured = terminal(found, force_terminal=True, color_system="standard")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).count("\x1b") == 0 and "\x1b[31mred" not in coloured
    page = rendering.to_html(found, "<script>title</script>", 4)
    parsed = Page(page)
    assert not {"script", "b"} & parsed.tags and not parsed.links
    assert "script>" in parsed.text and "//" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    json.dumps(inspection.to_data(found, 4))


# ---- the command --------------------------------------------------------------------------------


def command(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "t5x_like.inspect", "--config=t5/tiny", f"--data={folder / 'a'}",
         "--set=batch_size=6", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_command(folder, tmp_path):
    page = tmp_path / "page.html"
    out = command(folder, "--rows=2", "--step=3", f"--html={page}")
    assert out.returncode == 0, out.stderr
    assert "\x1b" not in out.stdout
    assert "batch 3 of train" in out.stdout and "row 1:" in out.stdout and "row 2:" not in out.stdout
    assert "6 of 6 examples: inputs and targets rebuild the source text" in out.stdout
    assert "row 1:" in page.read_text() and "row 2:" not in page.read_text()


def test_the_command_as_json(folder):
    out = command(folder, "--json", "--split=validation", "--rows=1")
    data = json.loads(out.stdout)
    assert data["split"] == "validation" and len(data["rows"]) == 1
    assert data["rows"][0]["examples"][0]["restored"] is True
    assert np.isclose(data["streams"][0]["rate"], 1.0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set=data.sources=nowhere"], Exit.BAD_DATA, "t5x_like.prepare"),
        (["--data={a}", "--split=validation", "--step=999"], Exit.USAGE, "there is no 999"),
        (["--data={a}", "--html=/nowhere/page.html"], Exit.CANNOT_WRITE, "cannot write the page"),
        (["--data={a}", "--split=vaildation"], Exit.USAGE, "validation"),
    ],
)
def test_mistakes_are_told_in_a_sentence(folder, arguments, code, words):
    arguments = [a.format(a=folder / "a") for a in ("--config=t5/tiny", "--set=batch_size=4", *arguments)]
    out = subprocess.run(
        [sys.executable, "-m", "t5x_like.inspect", *arguments], capture_output=True, text=True, timeout=60
    )
    assert out.returncode == code and words in out.stderr and "Traceback" not in out.stderr
