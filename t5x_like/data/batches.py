"""The batch at step t as a pure function of (data, objective, batch size, seed, t): nothing to save, nothing to seek.

    batches = Batches(Data(sources=(Source(path="data/books"),)), SpanCorruption(), batch_size=128, seed=0)
    batches(10_000_000)              # the whole global batch of that step
    batches(41_337, slice(0, 32))    # the rows of one host

Example number g = step * batch_size + row belongs to stream `mixture(g)` as its i-th; i // count is the epoch,
i % count is shuffled by a permutation of that epoch into the number of a window (or of a packed row), and the
objective draws from a key that is named by (seed, stream, epoch, window). Every step of this is O(1) arithmetic.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from t5x_like.data import counter, packing
from t5x_like.data.counter import Keys
from t5x_like.data.example import Batch, Feature, Vocabulary, Windows
from t5x_like.data.mixture import Mixture, proportional_rates, quantise
from t5x_like.data.permutation import permute
from t5x_like.data.token_dataset import TokenDataset
from t5x_like.data.windows import WindowIndex
from t5x_like.errors import Exit, UserError

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer
    from t5x_like.objectives.base import Objective

Split = Literal["train", "validation"]
Skips = tuple[tuple[int, int], ...]
_SHUFFLE, _EXAMPLE = 1, 2  # names of the uses of an epoch's key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One token dataset of a mixture.

    Attributes:
      path: folder (or gs:// URL) that `python -m t5x_like.prepare` wrote.
      split: train split to read in place of `Data.train_split`.
      rate: share of the mixture; set for all sources or for none. Without it, rates follow the sizes.
      limit: most examples that count for a size-proportional rate, in place of `Data.limit`.
    """

    path: str
    split: str | None = None
    rate: float | None = None
    limit: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What a run reads, and how.

    Attributes:
      sources: the token datasets; all with the same tokenizer.
      train_split, validation_split: names of their splits.
      limit: examples-proportional mixing counts at most this many examples of a source (K of the T5 paper).
      temperature: flattens size-proportional rates: size ** (1 / temperature), after the limit.
      pack: several short examples in one row.
      workers: processes that make batches; 0 makes them on a thread of the trainer.
      prefetch: batches made ahead.
    """

    sources: tuple[Source, ...] = ()
    train_split: str = "train"
    validation_split: str = "validation"
    limit: int | None = None
    temperature: float = 1.0
    pack: bool = False
    workers: int = 0
    prefetch: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """One source under one plain objective: the unit that mixtures mix."""

    name: str
    dataset: TokenDataset
    objective: Objective
    windows: WindowIndex
    plan: packing.Plan | None
    features: dict[str, Feature]
    sides: tuple[str, ...]
    key: Keys
    shuffle: bool

    @property
    def count(self) -> int:
        """Rows of an epoch."""
        return self.windows.count if self.plan is None else self.plan.count

    def locate(self, index: np.ndarray) -> tuple[Windows, Keys, np.ndarray]:
        """What the rows numbered `index` [B] of this stream are made from: windows [N], their keys [N], and the
        place in `index` of the row that each belongs to [N] (N = B where nothing is packed)."""
        epoch, unit = np.divmod(index, self.count)
        epoch_keys = counter.fold(self.key, epoch)
        if self.shuffle:
            unit = permute(unit, self.count, counter.fold(epoch_keys, _SHUFFLE))
        distinct = getattr(self.objective, "distinct_epochs", None)
        if distinct is not None:  # all but the order comes round again
            epoch_keys = counter.fold(self.key, epoch % distinct)
        row = np.arange(len(index))
        if self.plan is not None:
            unit, row = self.plan.rows(unit)
            epoch_keys = epoch_keys[row]
        needs = getattr(self.objective, "needs", frozenset())
        words = self.dataset.tokenizer.word_starts if "word_starts" in needs else None
        found = self.windows.windows(unit, epoch_keys, self.dataset.vocabulary, needs, words)
        self._check_range(found.tokens)
        return found, counter.fold(counter.fold(epoch_keys, _EXAMPLE), unit), row

    def batch(self, index: np.ndarray) -> Batch:
        """The finished rows numbered `index` [B] of this stream."""
        found, keys, row = self.locate(index)
        examples = self.objective.examples(found, keys)
        for name, values in examples.items():
            if name.endswith("_tokens"):  # of any objective, also one of the user's: -100 is no label here
                self._check_range(values, name)
        if self.plan is None:
            return examples
        pad = self.dataset.vocabulary.pad
        return packing.pack_rows(examples, row, len(index), self.features, self.sides, pad)

    def _check_range(self, tokens: np.ndarray, feature: str | None = None) -> None:
        """Of the windows, and of each feature of ids: a table read at a wrong row gives NaN or nonsense, no error."""
        size = self.dataset.vocabulary.size
        if feature is not None and tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            raise UserError(
                f"{feature} holds ids from {tokens.min()} to {tokens.max()}, where the tokenizer has 0 to {size - 1}",
                where=type(self.objective).__name__,
                help="what counts for nothing has weight 0 in a *_loss_weights feature, and any id; there is no magic "
                "label such as -100",
                code=Exit.BAD_DATA,
            )
        largest = (
            int(tokens.view(np.uint32).max(initial=0)) if feature is None else 0
        )  # -1 shows as a huge id
        if largest >= size:
            raise UserError(
                f"a token id of {largest} where the tokenizer has ids below {self.dataset.vocabulary.size}",
                where=str(self.dataset.path),
                help="the token dataset is damaged or belongs to another tokenizer: prepare it again",
                code=Exit.BAD_DATA,
            )


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a row of a batch came from: its stream (and the number of that), the source tokens of its examples."""

    number: int
    stream: Stream
    tokens: tuple[np.ndarray, ...]


class Batches:
    """`batches(step)` -> Batch. See the module's first lines.

    Attributes:
      features: names, shapes and dtypes of the batches, packing included.
      streams: (source, plain objective) pairs; `rates` is the share of each in the examples.
      vocabulary, tokenizer, tokenizer_fingerprint: common to all sources.
      fingerprint: of everything that decides what examples there are: contents, splits, rates, packing.
      examples_per_epoch: rows in which every stream's split is seen once.
      num_batches: batches in which that is done; a validation run has no more than these.

    Args:
      skips: (first, count) of training batches that are left out, in the order in which that was decided: a step
        whose batch would be `first` or a later one takes the one `count` further on.

    Raises:
      UserError: no sources, sources that do not open or do not go together, an empty split, a batch that
        holds more examples than there are.
    """

    def __init__(
        self,
        data: Data,
        objective: Objective,
        batch_size: int,
        seed: int,
        *,
        split: Split = "train",
        skips: Skips = (),
    ):
        self.data, self.objective = data, objective
        self.batch_size, self.seed, self.split, self.skips = batch_size, seed, split, skips
        check(data)
        datasets = [TokenDataset.open(source.path) for source in data.sources]
        _check_same_tokenizer(datasets)
        self._dataset = datasets[0]
        self.vocabulary: Vocabulary = datasets[0].vocabulary
        self.tokenizer_fingerprint: str = datasets[0].tokenizer_fingerprint
        self.features = batch_features(data, objective, self.vocabulary)
        sides = _sides(objective, _features(objective, self.vocabulary), self.vocabulary) if data.pack else ()
        self.streams = tuple(
            self._stream(source, dataset, part, number, sides)
            for number, (source, dataset, part) in enumerate(
                (source, dataset, part)
                for source, dataset in zip(data.sources, datasets, strict=True)
                for part, _ in objective.parts()
            )
        )
        self._counts = np.array([stream.count for stream in self.streams])
        self.examples_per_epoch = int(self._counts.sum())
        self.num_batches = -(-self.examples_per_epoch // batch_size)
        self._mixture = Mixture(tuple(quantise(self._rates())))
        self.rates = tuple(share / sum(self._mixture.shares) for share in self._mixture.shares)
        self.fingerprint = self._fingerprint(datasets)
        if split == "train" and batch_size > self.examples_per_epoch:
            raise UserError(
                f"a batch of {batch_size} examples, where the whole data has {self.examples_per_epoch}: a batch "
                "would hold the same text several times",
                where="batch_size",
                help=f"batch_size={self.examples_per_epoch} at most, shorter inputs, or more text",
            )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that all sources share."""
        return self._dataset.tokenizer

    def __call__(self, step: int, rows: slice | None = None) -> Batch:
        """The global batch of `step`, or the rows of it that one host feeds."""
        stream, index = self._lookup(step, rows)
        if len(self.streams) == 1 and (stream == 0).all():
            return self.streams[0].batch(index)
        pad = self.vocabulary.pad
        batch = {name: packing.empty(f, name, len(index), pad) for name, f in self.features.items()}
        for number, part in enumerate(self.streams):
            at = np.flatnonzero(stream == number)
            if len(at):
                for name, values in part.batch(index[at]).items():
                    batch[name][(at, *map(slice, values.shape[1:]))] = values
        return batch

    def number(self, step: int) -> int:
        """Of the batch that the train step `step` takes: the step itself, unless batches are left out."""
        for first, count in self.skips:
            step += count if step >= first else 0
        return step

    def origins(self, step: int, rows: slice | None = None) -> list[Origin | None]:
        """For each row of that batch, the text it was made from; None for the empty rows that end a validation."""
        stream, index = self._lookup(step, rows)
        found: list[Origin | None] = [None] * len(index)
        for at in np.flatnonzero(stream >= 0):
            part = self.streams[stream[at]]
            source, _, _ = part.locate(index[at : at + 1])
            tokens = tuple(t[:n] for t, n in zip(source.tokens, source.lengths, strict=True))
            found[at] = Origin(int(stream[at]), part, tokens)
        return found

    def _lookup(self, step: int, rows: slice | None) -> tuple[np.ndarray, np.ndarray]:
        """Stream of each row (-1: none, behind the end of validation), and its number within the stream."""
        step = self.number(step) if self.split == "train" else step
        number = np.arange(self.batch_size, dtype=np.int64)[rows or slice(None)] + step * self.batch_size
        if self.split == "train":
            return self._mixture.lookup(number)
        if not 0 <= step < self.num_batches:
            raise UserError(
                f"validation has the batches 0 to {self.num_batches - 1}; there is no {step}", where="step"
            )
        # A fixed shuffle, so that the first few batches already stand for all of it, in any run.
        inside = np.minimum(number, self.examples_per_epoch - 1)
        inside = permute(inside, self.examples_per_epoch, counter.seed_key(0, "validation"))
        ends = np.cumsum(self._counts)
        stream = np.searchsorted(ends, inside, side="right")
        return np.where(number < self.examples_per_epoch, stream, -1), inside - (ends - self._counts)[stream]

    def _stream(
        self, source: Source, dataset: TokenDataset, objective: Objective, number: int, sides: tuple[str, ...]
    ) -> Stream:
        train = self.split == "train"
        name = (source.split or self.data.train_split) if train else self.data.validation_split
        tokens = dataset.split(name)
        if tokens.num_tokens == 0:
            raise UserError(
                f"the split {name!r} has no tokens",
                where=source.path,
                help="leave this source out, or prepare it again with more text or a larger share for this split",
                code=Exit.BAD_DATA,
            )
        key = counter.seed_key(self.seed, self.split, "stream", number)
        spans = objective.index(tokens, dataset.vocabulary, key, not train)
        plan = None
        if sides:
            capacity = {s: self.features[packing.length_feature(s, self.features)].shape[0] for s in sides}
            takes = objective.example_lengths(np.arange(objective.window_length() + 1))
            plan = packing.plan_rows(spans.lengths(), takes, capacity, counter.seed_key(0, "packing", number))
        return Stream(
            name=f"{Path(source.path).name}:{name}/{type(objective).__name__}",
            dataset=dataset, objective=objective, windows=spans, plan=plan,
            features=self.features, sides=sides, key=key, shuffle=train,
        )  # fmt: skip

    def _rates(self) -> list[float]:
        """The share of each stream: that of its source times that of its part of the objective."""
        sources, parts = self.data.sources, [rate for _, rate in self.objective.parts()]
        by_source = self._counts.reshape(len(sources), len(parts))
        if sources[0].rate is not None:
            rates = [source.rate or 0.0 for source in sources]
        else:
            sizes = np.maximum(by_source @ np.array(parts) / sum(parts), 1).round().astype(int).tolist()
            limits = [self.data.limit if source.limit is None else source.limit for source in sources]
            rates = proportional_rates(sizes, limits, self.data.temperature)
        return [rate * part for rate in rates for part in parts]

    def _fingerprint(self, datasets: list[TokenDataset]) -> str:
        facts = [
            [dataset.fingerprint, source.split or self.data.train_split, self.data.validation_split]
            for dataset, source in zip(datasets, self.data.sources, strict=True)
        ]
        text = json.dumps([facts, self._mixture.shares, self.data.pack])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---- what is refused ----------------------------------------------------------------------------


def check(data: Data) -> None:
    """Raises `UserError` for a `Data` that no files could make right."""
    if not data.sources:
        raise UserError(
            "the run names no token dataset",
            where="data.sources",
            help="python -m t5x_like.prepare makes one from text; then --set=data.sources=FOLDER",
        )
    rates = [source.rate for source in data.sources]
    if any(r is not None for r in rates) and any(r is None for r in rates):
        missing = data.sources[rates.index(None)].path
        raise UserError(
            f"some sources have a rate and {missing} has none",
            where="data.sources",
            help="set rate on every source, or on none (rates then follow the sizes)",
        )
    positive = [
        ("data.temperature", data.temperature),
        ("data.limit", data.limit),
        ("data.prefetch", data.prefetch),
    ]
    for i, source in enumerate(data.sources):
        positive += [(f"data.sources.{i}.rate", source.rate), (f"data.sources.{i}.limit", source.limit)]
    for where, value in positive:
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{where} is {value}; it must be positive", where=where)
    if data.workers < 0:
        raise UserError(f"data.workers is {data.workers}; 0 stands for a thread", where="data.workers")


def batch_features(data: Data, objective: Objective, vocabulary: Vocabulary) -> dict[str, Feature]:
    """Names, shapes and dtypes of the batches, packing included; opens nothing."""
    features = _features(objective, vocabulary)
    return packing.pack_features(features, _sides(objective, features, vocabulary)) if data.pack else features


def _features(objective: Objective, vocabulary: Vocabulary) -> dict[str, Feature]:
    """The features of all parts; of one that several have, the largest shape."""
    features: dict[str, Feature] = {}
    for part, _ in objective.parts():
        for name, feature in part.features(vocabulary).items():
            shape = np.maximum(features.get(name, feature).shape, feature.shape)
            features[name] = Feature(tuple(shape.tolist()), feature.dtype)
    return features


def _sides(objective: Objective, features: dict[str, Feature], vocabulary: Vocabulary) -> tuple[str, ...]:
    """The sides that packing has to fit; refuses what cannot be packed."""
    if vocabulary.pad == vocabulary.eos:
        raise UserError(
            "data.pack needs a padding id of its own: this tokenizer pads with its end-of-sequence id",
            where="data.pack",
            help="data.pack=false, or a tokenizer with a padding piece",
        )
    sides = tuple(objective.example_lengths(np.arange(1)))
    for name in features:
        if not name.startswith(tuple(f"{side}_" for side in sides)):
            raise UserError(
                f"{type(objective).__name__} cannot be packed: {name} belongs to none of {', '.join(sides)}",
                where="data.pack",
                help="data.pack=false",
            )
    return sides


def _check_same_tokenizer(datasets: list[TokenDataset]) -> None:
    first = datasets[0]
    for other in datasets[1:]:
        if other.tokenizer_fingerprint != first.tokenizer_fingerprint:
            raise UserError(
                f"two sources with different tokenizers: {first.tokenizer_fingerprint} in {first.path}, "
                f"{other.tokenizer_fingerprint} in {other.path}",
                where="data.sources",
                help=f"prepare the second again with the tokenizer of the first: --tokenizer={first.path}/tokenizer",
                code=Exit.BAD_DATA,
            )
