"""FineWeb's way from pages to a corpus: Gopher's rules, some of C4's, its own, near-duplicates, masked addresses.

Paper: Penedo et al. 2024, sections 3.1 to 3.7; code: datatrove/examples/fineweb.py.
Command: python -m t5x_like.corpus --config=corpus/fineweb --input='pages/*.warc.gz' --output=data/fineweb
Variants: `refinedweb` has what Penedo et al. 2023 tell of RefinedWeb: no rules of C4 and FineWeb, lines corrected.
Needs: pip install '.[corpus]'. A list of blocked domains comes first in the paper and is not part of this
package: --set='steps=...' with a BlockedURLs step, or a configuration of one's own.
Differs: FineWeb removes near-duplicates of each crawl alone; give it one crawl at a time. Pairs are verified here, so
that documents below the threshold stay. The language model is quantised (lid.176.ftz).
Expected: of the pages with text in English 15 trillion tokens of 96 crawls were kept.
"""

from __future__ import annotations

from t5x_like.data.cleaning.c4 import C4Clean
from t5x_like.data.cleaning.fineweb import FineWebQuality, RefinedWebLines
from t5x_like.data.cleaning.gopher import GopherQuality, GopherRepetition
from t5x_like.data.cleaning.language import FastText
from t5x_like.data.cleaning.pii import MaskPII
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.pages import Trafilatura

# datatrove's C4 filter without end marks: 3 words a line, counted before citation marks are taken out, 5 sentences
C4 = C4Clean(end_marks=(), min_words=3, words_before_citations=True, min_sentences=5)


def config() -> Corpus:
    """FineWeb."""
    return Corpus(
        name="fineweb",
        extractor=Trafilatura(),
        steps=(
            FastText(),
            GopherRepetition(),
            GopherQuality(),
            C4,
            FineWebQuality(),
            NearDuplicates(),
            MaskPII(),
        ),
    )


def refinedweb() -> Corpus:
    """RefinedWeb, up to its removal of repeated 50-token strings."""
    return Corpus(
        name="refinedweb",
        extractor=Trafilatura(),
        steps=(FastText(), GopherRepetition(), GopherQuality(), RefinedWebLines(), NearDuplicates()),
    )
