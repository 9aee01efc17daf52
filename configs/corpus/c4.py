"""C4, the corpus of T5, by the rules and in the order of the code that made it.

Paper: Raffel et al. 2020, section 2.2; code: tensorflow_datasets/text/c4.py, 3.1.0.
Command: python -m t5x_like.corpus --config=corpus/c4 --input='pages/*.warc.wet.gz' --output=data/c4
Variants: en (the default), noclean, noblocklist, realnewslike, webtextlike; `paper` where the paper differs from the
code. Near-duplicates are kept on one side of the
split; --set=split=url splits as C4 did, by the address alone.
Needs: pip install '.[corpus]'. `realnewslike` needs the domains of RealNews, `webtextlike` the addresses of
OpenWebText, in files: see RealNewsDomains and ListedURLs in t5x_like/data/cleaning/addresses.py.
Expected: of the English pages of a crawl of April 2019 a third was kept (364.9 million pages, 305 GiB of text).
"""

from __future__ import annotations

import dataclasses

from t5x_like.data.cleaning.addresses import ListedURLs, RealNewsDomains
from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.c4 import C4Clean, MaxLength, MinSentences
from t5x_like.data.cleaning.language import LangDetect
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.dedup.first import DuplicateLines, DuplicateURLs
from t5x_like.data.dedup.spans import DuplicateSpans
from t5x_like.data.pages import VisibleText


def config() -> Corpus:
    """The English corpus."""
    return Corpus(
        name="c4.en",
        extractor=VisibleText(),  # what WET files hold
        steps=(
            MaxLength(),
            DuplicateURLs(),
            C4Clean(),
            DuplicateLines(),
            MinSentences(),
            LangDetect(),
            BadWords(),
        ),
    )


en = config


def noclean() -> Corpus:
    """English pages as they are, each address once."""
    return dataclasses.replace(
        config(), name="c4.en.noclean", steps=(MaxLength(), DuplicateURLs(), LangDetect())
    )


def noblocklist() -> Corpus:
    """Without the list of bad words, as AllenAI has it."""
    recipe = config()
    return dataclasses.replace(recipe, name="c4.en.noblocklist", steps=recipe.steps[:-1])


def realnewslike() -> Corpus:
    """Pages of the news domains of RealNews: --set=steps.1.domains=FILE."""
    recipe = config()
    domains = RealNewsDomains(domains="domain_to_allowed_subdomains.json")
    return dataclasses.replace(
        recipe, name="c4.realnewslike", steps=(recipe.steps[0], domains, *recipe.steps[1:])
    )


def webtextlike() -> Corpus:
    """Pages whose addresses are in OpenWebText: --set=steps.2.addresses=FOLDER."""
    recipe = config()
    listed = ListedURLs(addresses="OpenWebText/Version 1/URLs/*.txt")
    return dataclasses.replace(
        recipe, name="c4.webtextlike", steps=(*recipe.steps[:2], listed, *recipe.steps[2:])
    )


def paper() -> Corpus:
    """What the paper says where the code does otherwise: whole pages are searched, spans of sentences deduplicated."""
    clean = C4Clean(end_marks=(".", "?", "!", '"', "”"), ellipsis=True, whole_page=True)
    return dataclasses.replace(
        config(), name="c4.paper", steps=(DuplicateURLs(), clean, DuplicateSpans(), LangDetect(), BadWords())
    )
