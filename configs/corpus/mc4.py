"""mC4, the corpus of mT5: 101 languages, by the rules and in the order of the code that made it.

Paper: Xue et al. 2021, section 3.1; code: tensorflow_datasets/text/c4.py, `multilingual`, 3.1.0.
Command: python -m t5x_like.corpus --config=corpus/mc4 --input='pages/*.warc.wet.gz' --output=data/mc4
Variants: `paper` keeps a language from a probability of 0.70 on, as the mT5 paper and versions before 3.1.0 do, and
rejects every page with a bad word. --set=split=url splits as C4 did, by the address alone.
Needs: pip install '.[corpus]'.
Expected: of 71 crawls 6.6 billion pages.
"""

from __future__ import annotations

from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.c4 import LongLines, MaxLength
from t5x_like.data.cleaning.language import CLD3
from t5x_like.data.cleaning.language_codes import MC4_LANGUAGES
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.dedup.first import DuplicateLines, DuplicateURLs
from t5x_like.data.pages import VisibleText


def config() -> Corpus:
    """Version 3.1.0; what no language is sure of stays, as language `und`."""
    return _recipe("mc4", CLD3(languages=MC4_LANGUAGES), BadWords(share=0.999))


def paper() -> Corpus:
    """Version 3.0: threshold 0.70, every page with a bad word goes."""
    return _recipe("mc4.paper", CLD3(languages=MC4_LANGUAGES, min_probability=0.7), BadWords())


def _recipe(name: str, language: CLD3, words: BadWords) -> Corpus:
    steps = (MaxLength(), DuplicateURLs(), LongLines(), DuplicateLines(), language, words)
    return Corpus(name=name, extractor=VisibleText(), steps=steps)
