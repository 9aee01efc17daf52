"""Classification without training: a text put into a template, and the label word that fits there best.

A masked language model is asked for the probability of each label word at the place of the label. A discriminator is
asked how likely each label word is a replaced one, and the class is the least likely (Ni & Kao 2022, "ELECTRA is a
Zero-Shot Learner, Too", arXiv:2207.08141; code nishiwen1214/Zero-Few-Shot-ELECTRA).
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from t5x_like.data.tokenizers import Tokenizer
from t5x_like.decoding.encoder_text import DetectorText, MaskedText, Row
from t5x_like.errors import UserError, did_you_mean

LABEL = "label"
SEPARATORS = ("[SEP]", "</s>")


class Part(NamedTuple):
    """A piece of a template: words of its own, or the name of a field; `spaced`: a space stands in front of it."""

    text: str
    field: str | None
    spaced: bool


class Prompt(NamedTuple):
    """A filled template: the row, the columns of the label in it, and whether a text was cut to fit."""

    row: Row
    label: tuple[int, ...]
    truncated: bool


class Choice(NamedTuple):
    """`label`: the name of the best class; `probabilities`: of each class, summing to 1; `value`: the mean of the
    classes' values under them (None without values); `truncated`: a text was cut to fit."""

    label: str
    probabilities: dict[str, float]
    value: float | None
    truncated: bool


@dataclasses.dataclass(frozen=True)
class Template:
    """`{inputs} It was {label}.`: fields of a record in braces, one of them the label; `[SEP]` divides segments."""

    text: str

    @property
    def segments(self) -> tuple[tuple[Part, ...], ...]:
        """The parts of each segment.

        Raises:
          UserError: braces that do not close, not exactly one label, no field, more than two segments.
        """
        text = self.text
        for separator in SEPARATORS[1:]:
            text = text.replace(separator, SEPARATORS[0])
        segments = tuple(self._parts(segment) for segment in text.split(SEPARATORS[0]))
        fields = [part.field for segment in segments for part in segment if part.field is not None]
        if fields.count(LABEL) != 1:
            near = [f for f in fields if f not in (LABEL, "inputs")]
            raise UserError(
                f"the template has {{{LABEL}}} {fields.count(LABEL)} times; the label word goes to one place",
                where=f"--template={self.text}",
                help=did_you_mean(near[0], [LABEL, "inputs"])
                if near
                else "--template='{inputs} It was {label}.'",
            )
        if len(fields) < 2:
            raise UserError(
                "the template names no text",
                where=f"--template={self.text}",
                help="--template='{inputs} It was {label}.'",
            )
        if len(segments) > 2:
            raise UserError(
                f"the template has {len(segments)} segments; two are possible",
                where=f"--template={self.text}",
            )
        return segments

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that a record must have."""
        names = (part.field for segment in self.segments for part in segment)
        return tuple(dict.fromkeys(name for name in names if name not in (None, LABEL)))

    def _parts(self, segment: str) -> tuple[Part, ...]:
        parts: list[Part] = []
        spaced = False
        try:
            for words, field, form, conversion in string.Formatter().parse(segment):
                if words.strip():
                    parts.append(Part(words.strip(), None, spaced or (bool(parts) and words[0].isspace())))
                    spaced = False
                spaced = spaced or words[-1:].isspace()
                if field is None:
                    continue
                if form or conversion or not field.isidentifier():
                    raise ValueError(f"{{{field}}} is no field name")
                parts.append(Part("", field, spaced and bool(parts)))
                spaced = False
        except ValueError as e:
            raise UserError(
                f"this template cannot be read: {e}", where=f"--template={self.text}", help="{{ stands for {"
            ) from None
        return tuple(parts)

    def fill(
        self, record: Mapping[str, str], label: Sequence[int], model: MaskedText | DetectorText
    ) -> Prompt:
        """The template with the record's texts and a label's ids in it; the longest text gives way first.

        Raises:
          UserError: the template alone is longer than the model.
        """
        segments, tokenizer = self.segments, model.tokenizer
        room = model.room(pair=len(segments) > 1)
        parts = [part for segment in segments for part in segment]
        ids = [
            list(label)
            if part.field == LABEL
            else tokenizer.encode(" " * part.spaced + (part.text or record[part.field or ""]).strip())
            for part in parts
        ]
        over = sum(map(len, ids)) - room
        texts = [i for i, part in enumerate(parts) if part.field not in (None, LABEL)]
        for _ in range(max(0, over)):
            longest = max(texts, key=lambda i: len(ids[i]))
            if not ids[longest]:
                raise UserError(
                    f"the template alone has {sum(map(len, ids))} tokens; the model takes {room}",
                    where=f"--template={self.text}",
                )
            ids[longest].pop()
        at = next(i for i, part in enumerate(parts) if part.field == LABEL)
        begin = sum(map(len, ids[:at]))
        first = sum(map(len, ids[: len(segments[0])]))
        row = Row(tuple(i for part in ids for i in part), first)
        return Prompt(row, tuple(range(begin, begin + len(label))), over > 0)

    def encode_label(self, word: str, tokenizer: Tokenizer) -> tuple[int, ...]:
        """A label word as ids, as it stands in the template."""
        part = next(p for segment in self.segments for p in segment if p.field == LABEL)
        ids = tuple(tokenizer.encode(" " * part.spaced + word.strip()))
        unknown = tokenizer.vocabulary.unk
        if not ids or (unknown is not None and unknown in ids):
            raise UserError(f"the tokenizer cannot spell the label word {word!r}", where="--labels")
        return ids


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chooser:
    """Classes by prompt.

    Attributes:
      template: where the text and the label word go.
      labels: name of a class -> its word.
      values: of the classes, for regression. A discriminator also takes one class and two values: then the value is
        v1 + (v2 - v1) P(replaced) at the word, the published rule.
    """

    template: Template
    labels: tuple[tuple[str, str], ...]
    values: tuple[float, ...] | None = None

    def check(self, model: MaskedText | DetectorText) -> None:
        """Raises `UserError` where template, labels, values and model do not go together."""
        tokenizer, detects = model.tokenizer, isinstance(model, DetectorText)
        names = [name for name, _ in self.labels]
        if len(set(names)) < len(names):
            raise UserError(
                "two classes have one name", where="--labels", help="--labels=NAME=WORD,NAME=WORD"
            )
        anchored = detects and len(names) == 1 and self.values is not None and len(self.values) == 2
        if len(names) < 2 and not anchored:
            more = "; with --values=V1,V2 one word is enough" if detects else ""
            raise UserError(
                f"{len(names)} label words; a choice needs two{more}",
                where="--labels",
                help="--labels=great,terrible",
            )
        if self.values is not None and len(self.values) != len(names) and not anchored:
            raise UserError(f"{len(self.values)} values for {len(names)} label words", where="--values")
        for _, word in self.labels:
            ids = self.template.encode_label(word, tokenizer)
            if detects and len(ids) > 1:
                pieces = " ".join(map(tokenizer.id_to_piece, ids))
                raise UserError(
                    f"the label word {word!r} is {len(ids)} pieces ({pieces}); a discriminator judges one",
                    where="--labels",
                    help="choose words that the vocabulary has whole",
                )
        if not detects and tokenizer.vocabulary.mask is None:
            raise UserError("the tokenizer has no mask token", where="--mode=choose")

    def uneven(self, model: MaskedText | DetectorText) -> str | None:
        """What to tell a person whose label words differ in their number of pieces: the longer ones lose by length."""
        sizes = [len(self.template.encode_label(word, model.tokenizer)) for _, word in self.labels]
        if len(set(sizes)) < 2:
            return None
        shown = ", ".join(f"{word} {n}" for (_, word), n in zip(self.labels, sizes, strict=True))
        return f"the label words differ in pieces ({shown}): more pieces, less probability"

    def choose(self, model: MaskedText | DetectorText, records: Sequence[Mapping[str, str]]) -> list[Choice]:
        """The class of each record."""
        if isinstance(model, DetectorText):
            scores, cut = self._by_detection(model, records)
        else:
            scores, cut = self._by_likelihood(model, records)
        names = [name for name, _ in self.labels]
        out = []
        for row, truncated in zip(scores, cut, strict=True):
            value = None
            if (
                self.values is not None and len(names) == 1
            ):  # the published rule; the score is 1 - P(replaced)
                low, high = self.values
                value = low + (high - low) * (1 - float(row[0]))
            shares = row / max(row.sum(), np.finfo(np.float64).tiny)
            if self.values is not None and len(names) > 1:
                value = float(shares @ np.array(self.values))
            found = dict(zip(names, map(float, shares), strict=True))
            out.append(Choice(names[int(np.argmax(row))], found, value, truncated))
        return out

    def _by_detection(
        self, model: DetectorText, records: Sequence[Mapping[str, str]]
    ) -> tuple[Float[np.ndarray, "B C"], list[bool]]:
        """1 - P(replaced) at each label word."""
        words = [self.template.encode_label(word, model.tokenizer) for _, word in self.labels]
        prompts = [self.template.fill(record, ids, model) for record in records for ids in words]
        found = model.replaced([prompt.row for prompt in prompts])
        kept = [1 - float(row[prompt.label[0]]) for row, prompt in zip(found, prompts, strict=True)]
        cut = [prompt.truncated for prompt in prompts[:: len(words)]]
        return np.array(kept, np.float64).reshape(-1, len(words)), cut

    def _by_likelihood(
        self, model: MaskedText, records: Sequence[Mapping[str, str]]
    ) -> tuple[Float[np.ndarray, "B C"], list[bool]]:
        """The probability of each label word, relative to the likeliest. A word of several pieces is read from left to
        right: each piece with itself and those behind it hidden (Kauf & Ivanova 2023), as pieces that see the rest
        of their word are nearly certain."""
        mask = model.tokenizer.vocabulary.mask
        assert mask is not None
        words = [self.template.encode_label(word, model.tokenizer) for _, word in self.labels]
        # One row serves all words that agree in length and in the pieces in front.
        contexts: dict[tuple[tuple[int, ...], int], list[tuple[int, int]]] = {}
        for number, ids in enumerate(words):
            for k in range(len(ids)):
                contexts.setdefault((ids[:k], len(ids)), []).append((number, ids[k]))
        asked = list(contexts.items())
        prompts = [
            self.template.fill(record, (*known, *[mask] * (size - len(known))), model)
            for record in records
            for (known, size), _ in asked
        ]
        columns = [(prompt.label[len(asked[i % len(asked)][0][0])],) for i, prompt in enumerate(prompts)]
        found = model.at(
            [prompt.row for prompt in prompts],
            columns,
            lambda i, log_probs: [(n, float(log_probs[0, piece])) for n, piece in asked[i % len(asked)][1]],
        )
        totals = np.zeros((len(records), len(words)))
        for i, values in enumerate(found):
            for number, value in values:
                totals[i // len(asked), number] += value
        cut = [prompt.truncated for prompt in prompts[:: len(asked)]]
        return np.exp(totals - totals.max(axis=1, keepdims=True, initial=-np.inf)), cut
