"""The named recipes have the steps of their originals, in their order."""

from __future__ import annotations

import pytest

from t5x_like import config
from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.c4 import C4Clean
from t5x_like.data.cleaning.language import CLD3
from t5x_like.data.corpus.recipe import Corpus

CLEANED = ["c4_clean", "duplicate_lines", "min_sentences", "language", "bad_words"]
STEPS = {
    "c4": ["max_length", "duplicate_urls", *CLEANED],
    "c4:en": ["max_length", "duplicate_urls", *CLEANED],
    "c4:noblocklist": ["max_length", "duplicate_urls", *CLEANED[:-1]],
    "c4:noclean": ["max_length", "duplicate_urls", "language"],
    "c4:realnewslike": ["max_length", "realnews_domains", "duplicate_urls", *CLEANED],
    "c4:webtextlike": ["max_length", "duplicate_urls", "listed_urls", *CLEANED],
    "c4:paper": ["duplicate_urls", "c4_clean", "duplicate_spans", "language", "bad_words"],
    "mc4": ["max_length", "duplicate_urls", "long_lines", "duplicate_lines", "language", "bad_words"],
    "mc4:paper": ["max_length", "duplicate_urls", "long_lines", "duplicate_lines", "language", "bad_words"],
    "fineweb": [
        *(
            "language",
            "gopher_repetition",
            "gopher_quality",
            "c4_clean",
            "fineweb_quality",
            "near_duplicates",
        ),
        "mask_pii",
    ],
    "fineweb:refinedweb": [
        *("language", "gopher_repetition", "gopher_quality", "refinedweb_lines", "near_duplicates"),
    ],
    "none": [],
}


def _load(name: str, *changes: str) -> Corpus:
    recipe = config.load_as(f"corpus/{name}", Corpus, list(changes))
    recipe.check()
    return recipe


@pytest.mark.parametrize("name", STEPS)
def test_steps(name):
    found = [step.name for step in _load(name).steps]
    if name.startswith(("c4", "mc4")) and found[-1] == "near_duplicates":
        found.pop()  # marks near-duplicates for the split, and removes nothing
    assert found == STEPS[name]


def test_values_of_mc4():
    language, words = (
        next(s for s in _load("mc4").steps if isinstance(s, kind)) for kind in (CLD3, BadWords)
    )
    assert (language.min_probability, words.share) == (0.95, 0.999)
    language, words = (
        next(s for s in _load("mc4:paper").steps if isinstance(s, kind)) for kind in (CLD3, BadWords)
    )
    assert (language.min_probability, words.share) == (0.7, 1.0)


def test_lists_are_given_by_overrides():
    recipe = _load("c4:realnewslike", "steps.1.domains=/lists/domains.json")
    assert recipe.steps[1].domains == "/lists/domains.json"
    assert _load("c4", "steps.2.min_words=3").steps[2] == C4Clean(min_words=3)
