"""The reference: the functions of tensorflow-datasets that made C4, with what they import lazily put in their place.

Nothing of their logic is replaced. `tensorflow` is asked for one function only, `compat.as_text`; Beam only for
counters, which are the reasons that are compared. Both sides count sentences by the Punkt tokenizer of NLTK 3.8.1,
the version that tensorflow-datasets asks for, with the parameters of its English model.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document

c4_utils = pytest.importorskip("tensorflow_datasets.text.c4_utils")
nltk_punkt = pytest.importorskip("nltk.tokenize.punkt")
punkt = pytest.importorskip("punkt")

REASONS = {
    "filtered:loremipsum": "lorem_ipsum",
    "filtered:squigglybracket": "curly_bracket",
    "filtered:too_few_sentences": "too_few_sentences",
    "filtered:langdetect_exception": "no_language",
    "filtered:no_predictions": "no_language",
    "filtered:low_confidence": "low_confidence",
    "filtered:ignored_language": "other_language",
    "filtered:bad_domain": "bad_domain",
    "filtered:bad_subdomain": "bad_subdomain",
}


def nltk_tokenizer() -> nltk_punkt.PunktSentenceTokenizer:
    """NLTK's tokenizer with the parameters that its pickle `english.pickle` holds."""
    model, parameters = punkt.load_model("english"), nltk_punkt.PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return nltk_punkt.PunktSentenceTokenizer(parameters)


@contextmanager
def reference() -> Iterator[list[str]]:
    """Within, `c4_utils` works without TensorFlow and Beam; what it counts is appended to the list."""
    counted: list[str] = []
    text = types.SimpleNamespace(compat=types.SimpleNamespace(as_text=str))
    with (
        mock.patch.object(c4_utils, "tf", text),
        mock.patch.object(
            c4_utils,
            "get_counter_inc_fn",
            lambda namespace: lambda counter, amount=1: counted.append(counter),
        ),
        mock.patch.object(c4_utils, "_SENTENCE_TOKENIZER", _TOKENIZER),
    ):
        yield counted


_TOKENIZER = nltk_tokenizer()


def page(document: Document) -> c4_utils.PageFeatures:
    return c4_utils.PageFeatures(
        url=document.url,
        normalized_url=c4_utils.normalize_url(document.url),
        text=document.text,
        timestamp=document.timestamp,
        language=document.language or None,
    )


def outcome(found: Document | Rejection) -> tuple[str, str]:
    """(reason or "", text or "") of ours."""
    return (found.reason, "") if isinstance(found, Rejection) else ("", found.text)


def clean(document: Document) -> tuple[str, str]:
    """(reason or "", text or "") of `clean_page`."""
    with reference() as counted:
        pages = list(c4_utils.get_clean_page_fn()(page(document)))
    if pages:
        return "", pages[0].text
    return next(REASONS[counter] for counter in counted if counter in REASONS), ""
