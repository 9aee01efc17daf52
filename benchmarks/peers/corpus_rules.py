"""C4's rules, ours beside those of tensorflow-datasets and datatrove, on the same pages, turn by turn in one process.

  python -m benchmarks.peers.corpus_rules PAGES.jsonl ROUNDS [SECONDS]

Prints JSON: for each comparison what the fastest round took on one core (process time), and on how many pages both
sides have the same text, or both none. Needs `pip install tensorflow-datasets nltk==3.8.1 langdetect datatrove spacy`
beside what the extra `corpus` of this package installs; what is missing is left out.

tensorflow-datasets: its own functions (text/c4_utils.py). They import TensorFlow for `compat.as_text` and Beam for
counters, neither of which is here: a function that returns its argument, and one that counts nothing, stand for them.
Sentences by NLTK's Punkt tokenizer, as there. datatrove: its filter as it comes, which asks spaCy for sentences, and
with our sentences in their place, as only then it can come to the same.
"""

from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.cleaning.c4 import C4Clean
from t5x_like.data.cleaning.language import LangDetect
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.documents import Document

Outcome = str | None
"""The text that is left of a page, None where it is rejected."""
Side = Callable[[Document], Any]


def ours(*rules: Any) -> Callable[[Document], Outcome]:
    """One rule after another."""

    def apply(document: Document) -> Outcome:
        for rule in rules:
            document = rule(document)
            if isinstance(document, Rejection):
                return None
        return document.text

    return apply


def tfds_sides() -> dict[str, Callable[[Document], Outcome]]:
    """Functions of tensorflow-datasets by what they do."""
    import punkt
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from tensorflow_datasets.text import c4_utils

    model, parameters = punkt.load_model("english"), PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    patched: Any = c4_utils
    patched._SENTENCE_TOKENIZER = PunktSentenceTokenizer(parameters)
    patched.tf = types.SimpleNamespace(compat=types.SimpleNamespace(as_text=str))
    patched.get_counter_inc_fn = lambda namespace: lambda counter, amount=1: None
    lists = Path(__file__).parents[2] / "t5x_like/data/cleaning/lists/ldnoobw.json"
    words = {"en": json.loads(lists.read_text(encoding="utf-8"))["en"]}
    clean, bad_words = c4_utils.get_clean_page_fn(), c4_utils.get_badwords_filter_fn(words)

    def page(document: Document) -> Any:
        return c4_utils.PageFeatures(
            url=document.url,
            normalized_url=c4_utils.normalize_url(document.url),
            text=document.text,
            timestamp="2019",
            language="en",
        )

    def first(pages: Iterable[Any]) -> Outcome:
        return next((each.text for each in pages), None)

    def without_bad_words(document: Document) -> Outcome:
        found = page(document)
        return found.text if bad_words(found) else None

    def together(document: Document) -> Outcome:
        for cleaned in clean(page(document)):
            for english in c4_utils.detect_english(cleaned):
                if bad_words(english):
                    return english.text
        return None

    return {
        "clean": lambda document: first(clean(page(document))),
        "language": lambda document: first(c4_utils.detect_english(page(document))),
        "bad words": without_bad_words,
        "together": together,
    }


def datatrove_sides() -> dict[str, Side]:
    """datatrove's filter as it comes and with our sentences, and its signatures."""
    import tempfile

    from datatrove.data import Document as Page
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature
    from datatrove.pipeline.filters import c4_filters

    from t5x_like.data.cleaning import punkt

    patched: Any = c4_filters
    as_it_comes, quality = patched.split_into_sentences, c4_filters.C4QualityFilter()
    minhash: Any = MinhashDedupSignature(tempfile.gettempdir())
    minhash._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # xxhash 4 takes no str any more

    def our_sentences(text: str, language: str = "en") -> Sequence[str]:
        return [text[begin:end] for begin, end in punkt._sentences(text, punkt._model("english"))]

    def filtered(sentences: Any) -> Callable[[Document], Outcome]:
        def apply(document: Document) -> Outcome:
            patched.split_into_sentences = sentences
            page = Page(text=document.text, id="")
            found = quality.filter(page)
            return page.text if found is True else None

        return apply

    return {
        "as it comes": filtered(as_it_comes),
        "our sentences": filtered(our_sentences),
        "signatures": lambda document: minhash.get_signature(minhash.get_shingles(document.text)),
    }


def compare(pages: Sequence[Document], sides: dict[str, Side], rounds: int, seconds: float) -> dict[str, Any]:
    """Every side over all pages, one after another, again and again; the fastest round of each counts."""
    outcomes = {
        name: [side(page) for page in pages] for name, side in sides.items()
    }  # what is loaded, is now
    least = dict.fromkeys(sides, float("inf"))
    begun = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - begun > seconds:
            break
        for name, side in sides.items():
            begin = time.process_time()
            for page in pages:
                side(page)
            least[name] = min(least[name], time.process_time() - begin)
    first = next(iter(outcomes.values()))
    return {
        "seconds": least,
        "same": {
            name: sum(a == b for a, b in zip(first, found, strict=True)) for name, found in outcomes.items()
        },
        "pages": len(pages),
        "characters": sum(len(page.text) for page in pages),
    }


def main() -> None:
    """Reads the arguments, prints the result."""
    path, rounds = Path(sys.argv[1]), int(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 60.0
    entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    pages = [Document(entry["text"], entry["url"]) for entry in entries]
    clean, found = C4Clean(), {}
    cleaned = [page for page in map(clean, pages) if isinstance(page, Document)]
    try:
        tfds = tfds_sides()
    except ImportError as error:
        found["tensorflow-datasets"] = str(error)
    else:
        jobs = {
            "clean": (pages, ours(clean)),
            "language": (cleaned, ours(LangDetect())),
            "bad words": (cleaned, ours(BadWords())),
            "together": (pages, ours(clean, LangDetect(), BadWords())),
        }
        for name, (some, mine) in jobs.items():
            sides = {"ours": mine, "tensorflow-datasets": tfds[name]}
            found[name] = compare(some, sides, rounds, seconds)
    try:
        datatrove = datatrove_sides()
    except ImportError as error:
        found["datatrove"] = str(error)
    else:
        marks = (".", "?", "!", '"', "'")
        theirs = C4Clean(end_marks=marks, min_words=3, words_before_citations=True, min_sentences=5)
        sides = {"ours": ours(theirs), "datatrove, our sentences": datatrove["our sentences"]}
        sides["datatrove, as it comes"] = datatrove["as it comes"]
        found["C4's filter of datatrove"] = compare(pages, sides, rounds, seconds)
        first = NearDuplicates().rounds[0]
        signatures = {
            "ours": lambda document: list(first.entries(0, document, ())),
            "datatrove": datatrove["signatures"],
        }
        found["MinHash signatures"] = compare(cleaned, signatures, rounds, seconds)
        del found["MinHash signatures"]["same"]  # other hashes
    print(json.dumps(found))


if __name__ == "__main__":
    main()
