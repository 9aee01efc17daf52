"""Sentences are counted as NLTK's Punkt tokenizer counts them."""

from __future__ import annotations

import random

import tfds_c4
import web_pages
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.cleaning.punkt import _model, _sentences, count_sentences, has_sentences

WORDS = (
    *(
        "Mr",
        "U.S",
        "J",
        "1990",
        "the",
        "The",
        "He",
        "said",
        "i.e",
        "etc",
        "a",
        "B",
        "3.14",
        "-7",
        "well-adm",
        "St",
    ),
    *(
        "“Hi",
        "été",
        "日本",
        "Number",
        "W.Va",
        "Inc",
        "Jan",
        "magnin",
        "I",
        "Toussie",
        " ",
        "\n",
        ". . .",
        "ǅ",
    ),
)
MARKS = (
    *(
        ".",
        "?",
        "!",
        "...",
        "..",
        "?!",
        "!!!",
        ".)",
        '."',
        '")',
        "'",
        ".'",
        "--",
        "-",
        ",",
        ";",
        ":",
        ". . .",
    ),
    *(
        "(",
        "[",
        "{",
        "}",
        "]",
        "”",
        ". \n",
        "\n\n",
        "\t",
        "\u2028",
        "\xa0",
        "  ",
        "@",
        "&",
        "*",
        "`",
        ".--",
        '?" ',
    ),
)
_texts = st.lists(st.sampled_from(WORDS) | st.sampled_from(MARKS) | st.just(" "), max_size=30).map("".join)

_NLTK = tfds_c4.nltk_tokenizer()


def _check(text: str) -> None:
    expected = list(_NLTK.span_tokenize(text))
    assert list(_sentences(text, _model("english"))) == expected
    assert count_sentences(text) == len(expected)
    for wanted in range(5):
        assert has_sentences(text, wanted) == (len(expected) >= wanted)


@settings(max_examples=500, deadline=None)
@given(_texts | st.text(max_size=60))
def test_any_text(text):
    _check(text)


def test_mixtures_of_words_and_marks():
    draw = random.Random(0)
    for _ in range(3000):
        pairs = (
            draw.choice(WORDS) + draw.choice((*MARKS, "", "")) + draw.choice((" ", "")) for _ in range(8)
        )
        _check("".join(pairs))


def test_prose():
    for text in web_pages.prose(30):
        _check(text)
