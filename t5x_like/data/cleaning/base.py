"""What a rule of cleaning is: `document -> document | rejection`, and nothing else.

A rule is a frozen dataclass that can be pickled and called. It keeps no state between documents, so that a corpus
comes out the same however many workers, machines and restarts it took. Steps that compare documents with each
other (deduplication) are no rules: they are in data/dedup/.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

from t5x_like.data.documents import Document


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Why a document was left out.

    Attributes:
      rule: name of the rule that said so.
      reason: one word for the funnel, such as `too_few_sentences`; from a fixed set for each rule.
      detail: what was seen, for people; may hold text of the page.
    """

    rule: str
    reason: str
    detail: str = ""


class Rule(Protocol):
    """One step of cleaning."""

    name: ClassVar[str]

    def __call__(self, document: Document, /) -> Document | Rejection:
        """The document, changed or as it was, or why it is left out. Never raises because of what it is given."""
        ...
