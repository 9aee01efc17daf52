"""From crawled files to the text of their pages: `units` -> `read` -> `extract`."""

from t5x_like.data.pages.base import RawPage, Unit
from t5x_like.data.pages.extraction import Extractor, Resiliparse, Trafilatura, VisibleText
from t5x_like.data.pages.reading import find, read, units

__all__ = [
    "Extractor",
    "RawPage",
    "Resiliparse",
    "Trafilatura",
    "Unit",
    "VisibleText",
    "find",
    "read",
    "units",
]
