"""The rules of Gopher, RefinedWeb and FineWeb, masking and decontamination, each reason once.

test_datatrove.py compares them with datatrove, where it is installed.
"""

from __future__ import annotations

import json
import time

import pytest
import tfds_c4
import web_pages

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.cleaning.decontamination import Decontaminate
from t5x_like.data.cleaning.fineweb import FineWebQuality, RefinedWebLines
from t5x_like.data.cleaning.gopher import GopherQuality, GopherRepetition
from t5x_like.data.cleaning.pii import MaskPII
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

PROSE = web_pages.prose(3)[0][:3000]
PHRASE = "transport a convention"
LINES = [
    f"{number} of the things that we have here, and {'x' * number} to end with it." for number in range(30)
]


def _reason(rule, text: str) -> str:
    return tfds_c4.outcome(rule(Document(text)))[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        ("", "too_few_words"),
        ("word " * 49, "too_few_words"),
        ("word . " * 49, "too_few_words"),
        ("word " * 100_001, "too_many_words"),
        ("of to be a b " * 20, "short_words"),
        ("thethethethe " * 60, "long_words"),
        (PROSE + "# " * 300, "hashes"),
        (PROSE + "... a " * 200, "ellipses"),
        ("\n".join(f"- {line}" for line in LINES), "bullets"),
        ("\n".join(f"{line}..." for line in LINES), "line_ellipses"),
        (PROSE + " 1234 5678" * 100, "few_letters"),
        ("word " * 60, "few_stop_words"),
    ],
)
def test_gopher_quality(text, reason):
    assert _reason(GopherQuality(), text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        ("", "empty"),
        ("one\n\none\n\none", "paragraphs"),
        ("\n\n".join(["a", "b", "c", "d", "e", *["long paragraph here"] * 2]), "paragraph_characters"),
        ("\n".join(["same"] * 3), "lines"),
        ("\n".join(["a", "b", "c", "d", *["a longer line here"] * 2]), "line_characters"),
        ("ab cd " * 50, "top_2gram"),
        (" ".join(f"{PROSE[begin : begin + 60]} {PHRASE}" for begin in range(0, 900, 60)), "top_3gram"),
        (PROSE + PROSE[:800], "duplicate_5grams"),
    ],
)
def test_gopher_repetition(text, reason):
    assert _reason(GopherRepetition(), text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(LINES), ""),
        ("\n \n", "empty"),
        ("\n".join("no mark at the end of this long line of words" for _ in range(9)), "ended_lines"),
        ("\n".join(f"Short line {n}." for n in range(9)), "short_lines"),
        ("\n".join(LINES[:2] * 3), "repeated_lines"),
        ("\n\n\n\n\n".join(LINES), "line_breaks"),
    ],
)
def test_fineweb_quality(text, reason):
    assert _reason(FineWebQuality(), text) == reason


@pytest.mark.parametrize(
    "line",
    [
        "THIS IS SHOUTED ALL ALONG",
        "12 345 67",
        "3 likes",
        "1.2k comments",
        "Word",
        "Sign in to go on",
        "2 items in cart",
    ],
)
def test_refinedweb_takes_lines_out(line):
    text = "\n".join(LINES)
    assert RefinedWebLines()(Document(f"{LINES[0]}\n{line}\n" + text)).text == f"{LINES[0]}\n{text}"


def test_refinedweb_cuts_invitations_and_rejects_what_loses_much():
    text = "\n".join(LINES)
    assert (
        RefinedWebLines()(Document(f"{text}\nAnd so it went. Read more...")).text
        == f"{text}\nAnd so it went."
    )
    assert _reason(RefinedWebLines(), text + "\nSHOUTED WORDS" * 20) == "lost_words"
    assert _reason(RefinedWebLines(max_words_lost=1.0), "SHOUTED WORDS\n3 likes") == "empty"
    document = Document(text + "\n\n" + text)
    assert RefinedWebLines()(document) is document


def test_mail_and_public_ip_addresses_are_masked_in_turn():
    text = (
        "Mail jo.doe+x@mail.example.net or (mary@x.io), 8.8.8.8 or 10.0.0.1 or 9.9.9.9; a..b@c.de. @home x@y"
    )
    found = MaskPII()(Document(text)).text
    assert found == (
        "Mail email@example.com or (firstname.lastname@example.org), 22.214.171.124 or 10.0.0.1 or 126.96.36.199; "
        "a..email@example.com. @home x@y"
    )
    assert MaskPII()(Document(text)).text == found  # the turn begins again with each document
    plain = Document("Nothing to hide @ 1.2.3 o'clock.")
    assert MaskPII()(plain) is plain
    assert MaskPII(emails=())(Document("a@b.cd")) == Document("a@b.cd")


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a." * 100_000, "@" * 200_000, "a@" * 100_000, "a@b-" * 50_000, "1." * 100_000]
)
def test_no_text_takes_masking_long(text):
    before = time.process_time()
    MaskPII()(Document(text))
    assert time.process_time() - before < 5  # quadratic time would be minutes


EVALUATION = "Which of the two cities is farther from the sea, and by how many miles, would you say?"

TRAINING = "the old man went down to the sea and saw a ship far out on it"


@pytest.fixture
def task(tmp_path):
    """A task's folder: training and test rows, and a README."""
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"q": "the old man went down to the sea and saw a ship far out on it"})
    )
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"q": EVALUATION, "n": [{"a": "Short answers are left alone."}]}) + "\n"
    )
    (tmp_path / "dev.tsv").write_text("id\ttext\n7\tnine words are enough to be found as one\n")
    (tmp_path / "README.md").write_text(" ".join(f"readme{n}" for n in range(20)))
    return tmp_path


def _contaminated(rule, text: str) -> bool:
    found = rule(Document(text))
    assert found == Document(text) or (found.rule, found.reason) == ("decontaminate", "contaminated")
    return isinstance(found, Rejection)


def test_a_document_with_a_piece_of_an_evaluation_text_is_rejected(task):
    rule = Decontaminate(texts=(str(task),))
    thirteen = "OF the two cities is farther - from the sea and by how many"
    assert _contaminated(rule, f"He asked: {thirteen}")
    assert rule(Document(thirteen)).detail.endswith(
        "test.jsonl: of the two cities is farther from the sea and by how many"
    )
    assert not _contaminated(rule, "of the two cities is farther from the sea and by how")
    assert not _contaminated(rule, "of the two large cities is farther from the sea and by how many")
    assert _contaminated(Decontaminate(texts=(str(task),), ngram=8), "two cities is farther from the sea and")


def test_short_evaluation_texts_count_as_a_whole_and_very_short_ones_not(task):
    rule = Decontaminate(texts=(str(task),))
    assert _contaminated(rule, "it says: nine words are enough to be found as one, or not")
    assert not _contaminated(rule, "nine words are enough to be found as two")
    assert not _contaminated(rule, "Short answers are left alone.")


def test_training_rows_and_other_files_are_no_evaluation_texts(task):
    rule = Decontaminate(texts=(str(task),))
    assert not _contaminated(rule, TRAINING)
    assert not _contaminated(rule, " ".join(f"readme{n}" for n in range(20)))
    named = Decontaminate(texts=(str(task / "train.jsonl"),))
    assert _contaminated(named, TRAINING)


def test_evaluation_texts_that_cannot_be_used_are_told(task):
    with pytest.raises(UserError, match="no such file"):
        Decontaminate(texts=(str(task / "none"),))(Document("a"))
    (task / "bad.jsonl").write_text("{")
    with pytest.raises(UserError, match="no JSON") as error:
        Decontaminate(texts=(str(task),))(Document("a"))
    assert "bad.jsonl:1" in str(error.value)
    (task / "bad.jsonl").write_text('"few"')
    with pytest.raises(UserError, match="no evaluation text of 8 words"):
        Decontaminate(texts=(str(task / "bad.jsonl"),))(Document("a"))
