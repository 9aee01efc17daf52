"""A small tokenizer and a little real text for the tests of the data path."""

from __future__ import annotations

import functools
import json
import lzma

from t5x_like.data.sources import EMBEDDED
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import SentencePieceTokenizer


@functools.cache
def texts(count: int = 40, characters: int = 3000) -> tuple[str, ...]:
    """The beginnings of documents of the embedded corpus, spread over its three sources."""
    with lzma.open(EMBEDDED, "rt") as file:
        documents = [json.loads(line)["text"] for line in file]
    return tuple(document[:characters] for document in documents[:: len(documents) // count])


@functools.cache
def tokenizer(vocab_size: int = 600) -> SentencePieceTokenizer:
    """A unigram tokenizer with 100 sentinels, trained in a second."""
    return Training(vocab_size=vocab_size, character_coverage=1.0).train(texts())
