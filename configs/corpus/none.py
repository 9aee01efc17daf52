"""Nothing is done to the documents but what is asked for by --set: text out of pages, splits, provenance.

Command: python -m t5x_like.corpus --config=corpus/none --input='pages/*.warc.gz' --output=data/pages
"""

from __future__ import annotations

from t5x_like.data.corpus.recipe import Corpus


def config() -> Corpus:
    """No rule, no comparison."""
    return Corpus(name="none")
