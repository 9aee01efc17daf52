"""What a rule of cleaning is: `document -> document | rejection`, and nothing else.

A rule is a frozen dataclass that can be pickled and called. It keeps no state between documents, so that a corpus
comes out the same however many workers, machines and restarts it took. Steps that compare documents with each
other (deduplication) are no rules: they are in data/dedup/.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

from t5x_like.data.documents import Document
from t5x_like.errors import UserError


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


def at_least(rule: Rule, field: str, least: float) -> None:
    """Raises `UserError` where a number of a rule is too small."""
    if (value := getattr(rule, field)) < least:
        raise UserError(f"{field} of {rule.name} is {value}, expected at least {least}", where=field)


def in_unit(rule: Rule, *fields: str) -> None:
    """Raises `UserError` where a share of a rule is not between 0 and 1."""
    for field in fields:
        if not 0 <= getattr(rule, field) <= 1:
            raise UserError(
                f"{field} of {rule.name} is {getattr(rule, field)}, expected a share between 0 and 1",
                where=field,
            )
