"""What can be done with a text after pretraining: the modes of `infer`, each a `Use` (`inference.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self

from t5x_like.decoding import cloze
from t5x_like.decoding.base import Strategy
from t5x_like.decoding.encoder_text import DetectorText, MaskedText
from t5x_like.decoding.prompts import Chooser
from t5x_like.decoding.text import BLANK, TextModel
from t5x_like.errors import UserError
from t5x_like.inference import Record, text_field


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToText:
    """An encoder-decoder fills `<extra_id_0>` blanks, generates, or scores `targets`.

    Attributes:
      model, mode: the model, and what it does.
      strategy: of decoding; scoring takes its length alone.
      seed: of sampling.
    """

    model: TextModel
    mode: Literal["fill", "generate", "score"]
    strategy: Strategy
    seed: int = 0

    @property
    def batch_size(self) -> int:
        """See `Use`."""
        return self.model.batch_size

    @property
    def limits(self) -> str:
        """See `Use`."""
        return (
            f"--max_input_length={self.model.max_input_length} (or --max_length={self.strategy.max_length})"
        )

    def settings(self) -> dict[str, Any]:
        """See `Use`."""
        return {
            "decoding": f"{self.strategy}",
            "max_input_length": self.model.max_input_length,
            "seed": self.seed,
        }

    def resized(self, batch_size: int) -> TextToText:
        """See `Use`."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, batch_size=batch_size))

    def check(self, record: Record) -> None:
        """Raises `ValueError` for a record without its texts, or with blanks that cannot be filled."""
        text = text_field(record)
        if self.mode == "score":
            text_field(record, "targets")
        if self.mode == "fill":
            sentinels = len(self.model.tokenizer.vocabulary.sentinels)
            blanks = [int(number[:9]) for number in BLANK.findall(text)]
            if not blanks:
                raise ValueError("no blank: write <extra_id_0> where text is missing")
            if max(blanks) >= sentinels:
                raise ValueError(f"<extra_id_{max(blanks)}>: the tokenizer has {sentinels} sentinels, from 0")

    def results(self, records: Sequence[Record], first_index: int) -> list[tuple[Record, bool]]:
        """See `Use`."""
        inputs = [record["inputs"] for record in records]
        if self.mode == "score":
            pairs = [(record["inputs"], record["targets"]) for record in records]
            scored = self.model.score(pairs, self.strategy.max_length)
            return [
                ({"score": r.score, "tokens": r.pieces, "token_scores": r.token_scores}, r.truncated)
                for r in scored
            ]
        if self.mode == "fill":
            filled = self.model.fill(inputs, self.strategy, seed=self.seed, first_index=first_index)
            return [({"output": r.text, "spans": r.spans, "score": r.score}, r.truncated) for r in filled]
        generated = self.model.generate(inputs, self.strategy, seed=self.seed, first_index=first_index)
        return [({"output": r.text, "score": r.score}, r.truncated) for r in generated]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EncoderUse:
    """What the uses of an encoder share."""

    model: Any

    @property
    def batch_size(self) -> int:
        """See `Use`."""
        return self.model.batch_size

    @property
    def limits(self) -> str:
        """See `Use`."""
        return f"--max_input_length={self.model.max_length}"

    def settings(self) -> dict[str, Any]:
        """See `Use`."""
        own = {f.name: f"{getattr(self, f.name)}" for f in dataclasses.fields(self) if f.name != "model"}
        return own | {"max_input_length": self.model.max_length}

    def resized(self, batch_size: int) -> Self:
        """See `Use`."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, batch_size=batch_size))

    def check(self, record: Record) -> None:
        """Raises `ValueError` for a record without text."""
        text_field(record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cloze(_EncoderUse):
    """A masked language model fills `[MASK]`; `top`: candidates a blank."""

    model: MaskedText
    top: int = 5

    def check(self, record: Record) -> None:
        """Raises `ValueError` for a record without blanks, or with blanks further apart than the model sees."""
        cloze.find_blanks(text_field(record), self.model.tokenizer, self.model.room())

    def results(self, records: Sequence[Record], first_index: int) -> list[tuple[Record, bool]]:
        """See `Use`."""
        del first_index
        filled = cloze.fill(self.model, [record["inputs"] for record in records], self.top)
        return [
            (
                {
                    "output": r.text,
                    "blanks": [[candidate._asdict() for candidate in blank] for blank in r.blanks],
                    "score": r.score,
                },
                r.truncated,
            )
            for r in filled
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detect(_EncoderUse):
    """A discriminator tells which tokens were replaced; words above `threshold` are marked."""

    model: DetectorText
    threshold: float = 0.5

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:  # not so either for NaN
            raise UserError(f"threshold={self.threshold} cannot be, as probabilities go from 0 to 1")

    def results(self, records: Sequence[Record], first_index: int) -> list[tuple[Record, bool]]:
        """See `Use`."""
        del first_index
        out = []
        for found in cloze.detect(self.model, [record["inputs"] for record in records]):
            alarms = [word.probability > self.threshold for word in found.words]
            added = {
                "output": " ".join(f"*{w.text}*" if a else w.text for w, a in zip(found.words, alarms)),
                "replaced": [w._asdict() for w, alarm in zip(found.words, alarms) if alarm],
                "words": [w._asdict() for w in found.words],
                "tokens": found.tokens,
                "probabilities": found.probabilities,
            }
            out.append((added, found.truncated))
        return out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choose(_EncoderUse):
    """The class whose label word fits the template best."""

    model: MaskedText | DetectorText
    chooser: Chooser

    def check(self, record: Record) -> None:
        """Raises `ValueError` for a record without the texts of the template."""
        for field in self.chooser.template.fields:
            text_field(record, field)

    def results(self, records: Sequence[Record], first_index: int) -> list[tuple[Record, bool]]:
        """See `Use`."""
        del first_index
        out = []
        for choice in self.chooser.choose(self.model, records):
            added: Record = {"choice": choice.label, "probabilities": choice.probabilities}
            if len(choice.probabilities) == 1:  # one word between two values: there is nothing to choose
                added = {}
            if choice.value is not None:
                added["value"] = choice.value
            out.append((added, choice.truncated))
        return out
