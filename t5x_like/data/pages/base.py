"""What passes between the readers of pages and the extraction of their text."""

from __future__ import annotations

import dataclasses

from t5x_like.data.documents import Block
from t5x_like.data.sources import SourceFile


@dataclasses.dataclass(frozen=True)
class RawPage:
    """A page as it was fetched, decoded.

    Attributes:
      html: its markup, without NUL characters.
      url: its address, where it is known. It is data: never a path, never opened.
      timestamp: when it was fetched, ISO 8601 in UTC; empty where unknown.
      source: name of the file that it was read from.
      position: byte of its record in that file as stored.
    """

    html: str
    url: str = ""
    timestamp: str = ""
    source: str = ""
    position: int = 0


@dataclasses.dataclass(frozen=True)
class Unit:
    """Work for one process: some whole records of the input. Plain data; depends on the input alone.

    Attributes:
      number: from 0, in the order of the input.
      pieces: stretches of files, in order.
    """

    number: int
    pieces: tuple[tuple[SourceFile, Block], ...]

    @property
    def consumed(self) -> int:
        """Stored bytes that this unit stands for; over all units the size of the input."""
        return sum(block.consumed for _, block in self.pieces)
