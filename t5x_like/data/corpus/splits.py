"""Which documents are held out."""

from __future__ import annotations

from t5x_like.data import urls
from t5x_like.data.corpus.recipe import Corpus
from t5x_like.data.documents import Document
from t5x_like.data.units import SPLITS, is_validation, text_hash


def split_of(document: Document, recipe: Corpus) -> str:
    """`train` or `validation`; see `Corpus.split`. A document without address goes by its text."""
    fraction = recipe.validation_fraction
    if recipe.split == "url" and document.url:
        return SPLITS[urls.hashed(document.url) % 1000 < round(1000 * fraction)]
    if recipe.split == "cluster" and document.cluster:
        return SPLITS[is_validation(int(document.cluster, 16), fraction)]
    return SPLITS[is_validation(text_hash(document.text), fraction)]
