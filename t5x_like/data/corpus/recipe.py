"""A recipe: what is done to pages, step by step, until they are a corpus.

Every class that can stand in a recipe is named in the annotations below, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, Literal, TypeGuard

import xxhash

import t5x_like
from t5x_like import typed
from t5x_like.data.cleaning.addresses import BlockedURLs, ListedURLs, RealNewsDomains
from t5x_like.data.cleaning.badwords import BadWords
from t5x_like.data.cleaning.base import Rule
from t5x_like.data.cleaning.c4 import C4Clean, LongLines, MaxLength, MinSentences
from t5x_like.data.cleaning.decontamination import Decontaminate
from t5x_like.data.cleaning.fineweb import FineWebQuality, RefinedWebLines
from t5x_like.data.cleaning.gopher import GopherQuality, GopherRepetition
from t5x_like.data.cleaning.language import CLD3, FastText, LangDetect
from t5x_like.data.cleaning.pii import MaskPII
from t5x_like.data.dedup.base import Comparison
from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts, DuplicateURLs
from t5x_like.data.dedup.near import NearDuplicates
from t5x_like.data.dedup.spans import DuplicateSpans
from t5x_like.data.pages.extraction import Extractor, Resiliparse
from t5x_like.errors import UserError

AnyComparison = DuplicateURLs | DuplicateTexts | DuplicateLines | DuplicateSpans | NearDuplicates
AnyRule = (
    MaxLength
    | C4Clean
    | MinSentences
    | LongLines
    | BadWords
    | RealNewsDomains
    | ListedURLs
    | BlockedURLs
    | LangDetect
    | CLD3
    | FastText
    | GopherQuality
    | GopherRepetition
    | RefinedWebLines
    | FineWebQuality
    | MaskPII
    | Decontaminate
)
Step = AnyRule | AnyComparison
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything that decides which documents a corpus has, but for its input; saved as recipe.json with the result.

    Attributes:
      name: of the recipe, such as `c4.en`; goes into every document's provenance.
      extractor: finds the text in pages of HTML; documents that are text already do not meet it.
      steps: rules and comparisons, in order.
      split: what decides whether a document is held out. `cluster`: a hash of its text, or, of near-duplicates, one
        hash for all of them; so near-duplicates that were found are never on both sides. `text`: the hash of its own
        text. `url`: C4's MD5 of the normalised address, modulo 1000.
      validation_fraction: share of the documents held out; C4's is a thousandth.
    """

    name: str
    extractor: Extractor = Resiliparse()
    steps: tuple[Step, ...] = ()
    split: Literal["cluster", "text", "url"] = "cluster"
    validation_fraction: float = 0.001

    @property
    def version(self) -> str:
        """Name and hash of the recipe and of this package's version: equal ones do the same to a document."""
        content = json.dumps([typed.to_data(self), t5x_like.__version__], sort_keys=True)
        return f"{self.name}@{xxhash.xxh3_64_hexdigest(content.encode())}"

    def check(self) -> None:
        """Raises `UserError` where a value cannot be."""
        typed.check(self, Corpus)
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"a recipe's name names a folder: small letters, digits, dots, dashes, not {self.name!r}",
                where="name",
            )
        if not 0 <= self.validation_fraction < 1:
            raise UserError(
                f"validation_fraction is {self.validation_fraction}, expected at least 0 and below 1",
                where="validation_fraction",
            )
        if self.split == "url" and not (1000 * self.validation_fraction).is_integer():
            raise UserError(
                "split by address goes in thousandths, as C4's does; "
                f"validation_fraction is {self.validation_fraction}",
                where="validation_fraction",
                help="--set=validation_fraction=0.001, or --set=split=cluster",
            )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Rules that follow one another without a comparison between them, and the comparison behind them.

    Attributes:
      first: place of the first rule among the recipe's steps.
      rules: the rules.
      comparison: None behind the last rules.
    """

    first: int
    rules: tuple[Rule, ...]
    comparison: Comparison | None


def all_steps(recipe: Corpus) -> tuple[Step, ...]:
    """The recipe's steps, and one to mark near-duplicates where the split needs to know them and no step finds them."""
    steps = recipe.steps
    if recipe.split != "cluster" or not recipe.validation_fraction:
        return steps
    if any(isinstance(step, NearDuplicates) for step in steps):
        return steps
    return (*steps, NearDuplicates(keep="all"))


def stages(recipe: Corpus) -> tuple[Stage, ...]:
    """The recipe cut behind each comparison; the last stage has none."""
    found, rules, first = [], [], 0
    for place, step in enumerate(all_steps(recipe)):
        if is_comparison(step):
            found.append(Stage(first, tuple(rules), step))
            rules, first = [], place + 1
        else:
            rules.append(step)
    return (*found, Stage(first, tuple(rules), None))


def is_comparison(step: Any) -> TypeGuard[Comparison]:
    """Whether a step compares documents, or is a rule for each alone."""
    return hasattr(step, "rounds")
