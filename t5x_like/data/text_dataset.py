"""Text datasets in the layout of TensorFlow Datasets, read and written without TensorFlow.

A folder holds `dataset_info.json`, `features.json` and ArrayRecord shards of serialised `tf.train.Example`s;
`tfds.builder_from_directory` opens what is written here, and what TFDS prepared with `file_format=array_record`
is read here. Source of the layout: tensorflow/datasets, core/dataset_info.py and core/utils/shard_utils.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from t5x_like.data import example_proto
from t5x_like.errors import Exit, UserError, did_you_mean

_BATCH = 256
# TFDS imports its legacy builders in one try-block that stops at the first module whose dependency is missing
# (core/registered.py), so "c4" is unknown until its package has been imported by name.
_LEGACY = ("text", "question_answering", "translate", "summarization", "text_simplification")
_CONVERT = "tfds convert_format --dataset=NAME --out_file_format=array_record --out_path=DIR"

VERSION = "1.0.0"
"""Of the datasets that are written here, as TFDS spells versions."""
TEXT_AND_URL = {"text": str, "url": str}


def _scalar(dtype: str) -> dict[str, Any]:
    tensor = {"shape": {}, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar", "tensor": tensor}


_FEATURES: dict[type, dict[str, Any]] = {
    str: {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}},
    int: _scalar("int64"),
    float: _scalar("float32"),
}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Records [first, last) of an ArrayRecord file."""

    path: str
    first: int
    last: int


def is_tfds(folder: Path) -> bool:
    """Whether TFDS, or `write_description`, prepared this folder."""
    return (folder / "dataset_info.json").is_file() and (folder / "features.json").is_file()


def count(path: str | Path) -> int:
    """Records of an ArrayRecord file; 0 where it is damaged (reading it then says so)."""
    try:
        with _reader(path) as reader:
            return reader.num_records()
    except ValueError:
        return 0


def read_records(path: str | Path, first: int, last: int) -> Iterator[bytes | None]:
    """Records [first, last) of an ArrayRecord file, None for one that is damaged.

    Raises:
      ValueError: the file is damaged as a whole, or ends early; what can be read has been yielded.
    """
    with _reader(path) as reader:
        there = min(last, reader.num_records())
        for begin in range(first, there, _BATCH):
            end = min(begin + _BATCH, there)
            try:
                yield from reader.read(begin, end)
            except (
                Exception
            ):  # whatever absl::Status maps to; one bad record must not take 255 good ones with it
                yield from (_read_one(reader, index) for index in range(begin, end))
        if there < last:
            raise ValueError(f"holds {there} records where {last} are expected")


def _read_one(reader: Any, index: int) -> bytes | None:
    try:
        return reader.read(index, index + 1)[0]
    except Exception:
        return None


@contextlib.contextmanager
def _reader(path: str | Path) -> Iterator[Any]:
    try:
        reader = ArrayRecordReader(str(path))
    except Exception as error:
        raise ValueError(f"not an ArrayRecord file: {error}") from None
    try:
        yield reader
    finally:
        with contextlib.suppress(Exception):  # closing repeats the error of a file that could not be read
            reader.close()


class ShardWriter:
    """Writes Examples into one ArrayRecord file.

    Attributes:
      records, bytes: written so far, serialised.
    """

    def __init__(self, path: str | Path):
        # group_size:1 is what TFDS writes: every record can be read alone.
        self._writer = ArrayRecordWriter(str(path), "group_size:1")
        self.records = self.bytes = 0

    def write(self, features: Mapping[str, bytes | int | float]) -> None:
        """Adds an Example of one value for each feature."""
        record = example_proto.write(features)
        self.records += 1
        self.bytes += len(record)
        self._writer.write(record)

    def close(self) -> None:
        """The file is whole only after this."""
        self._writer.close()


def write_shard(path: str | Path, documents: Iterable[tuple[str, str]]) -> int:
    """Writes (text, url) pairs as Examples into one ArrayRecord file; returns their serialised bytes."""
    writer = ShardWriter(path)
    try:
        for text, url in documents:
            writer.write({"text": text.encode(), "url": url.encode()})
    finally:
        writer.close()
    return writer.bytes


def shard_name(dataset: str, split: str, index: int, shards: int) -> str:
    """TFDS's name of a shard file."""
    return f"{dataset}-{split}.array_record-{index:05d}-of-{shards:05d}"


def write_description(
    folder: Path,
    dataset: str,
    splits: Mapping[str, Sequence[tuple[int, int]]],
    description: str,
    *,
    config: str | None = None,
    features: Mapping[str, type] = TEXT_AND_URL,
) -> None:
    """Writes dataset_info.json and features.json beside the shards.

    Args:
      folder: holds the shards.
      dataset: name in TFDS's spelling: lower case, digits, underscores.
      splits: split -> (documents, bytes) of each shard.
      description: goes into dataset_info.json.
      config: name of the dataset's configuration, where it has one.
      features: feature -> str, int or float.
    """
    info = {
        "name": dataset,
        **({"configName": config} if config else {}),
        "version": VERSION,
        "description": description,
        "fileFormat": "array_record",
        "moduleName": "t5x_like",
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(documents) for documents, _ in shards],
                "numBytes": str(sum(size for _, size in shards)),
            }
            for split, shards in splits.items()
            if shards
        ],
    }
    described = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {name: _FEATURES[kind] for name, kind in features.items()}},
    }
    (folder / "features.json").write_text(json.dumps(described, indent=4, sort_keys=True))
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2, sort_keys=True))


def folder_shards(
    folder: Path, split: str | None, text_field: str | None, missing: list[str] | None = None
) -> list[Shard]:
    """The shards of a prepared TFDS folder.

    Args:
      folder: holds dataset_info.json.
      split: a split's name; by default `train`, or all where there is none of this name.
      text_field: must be a Text feature; None: not looked at.
      missing: takes the paths of shards that are not there; None refuses the dataset.

    Raises:
      UserError: not ArrayRecord, no such split, no such text feature, missing shards.
    """
    try:
        info = json.loads((folder / "dataset_info.json").read_bytes())
        features = json.loads((folder / "features.json").read_bytes())
        splits = [str(entry["name"]) for entry in info["splits"]]
        lengths = {str(entry["name"]): [int(n) for n in entry["shardLengths"]] for entry in info["splits"]}
        text_features = _text_features(features["featuresDict"]["features"])
        name, file_format = str(info["name"]), str(info.get("fileFormat", "tfrecord"))
        if any(set(part) & set("/\\\0") for part in (name, *splits)):
            raise ValueError("a name in it is a path")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"dataset_info.json or features.json cannot be understood ({error!r})",
            where=str(folder),
            help="prepare the dataset again with TFDS",
            code=Exit.BAD_DATA,
        ) from None
    if file_format != "array_record":
        raise _wrong_format(str(folder), file_format)
    if text_field is not None:
        _check_field(text_field, text_features, str(folder))
    if split is not None and split not in splits:
        raise UserError(
            f"this dataset has no split {split!r}",
            where=str(folder),
            help=did_you_mean(split, splits),
            code=Exit.BAD_DATA,
        )
    chosen = [split] if split is not None else ["train"] if "train" in splits else splits
    shards = []
    for each in chosen:
        total = len(lengths[each])
        for index, records in enumerate(lengths[each]):
            path = folder / shard_name(name, each, index, total)
            if not path.is_file() and missing is not None:
                missing.append(str(path))
                continue
            if not path.is_file():
                raise UserError(
                    "a shard that dataset_info.json names is missing", where=str(path), code=Exit.BAD_DATA
                )
            shards.append(Shard(str(path), 0, records))
    return shards


def dataset_shards(
    spec: str, text_field: str, data_dir: str | None, missing: list[str] | None = None
) -> list[Shard]:
    """The shards of a dataset that TFDS knows by name.

    Args:
      spec: `NAME[/CONFIG][:SPLIT]`, such as `c4/en:train` or `c4/en:train[:10%]`, or `FOLDER[:SPLIT]`; the split
        is `train` by default.
      text_field: must be a Text feature.
      data_dir: where TFDS keeps prepared data; its own default (~/tensorflow_datasets) otherwise.
      missing: as for `folder_shards`.

    Raises:
      UserError: TFDS is not installed, unknown dataset, not prepared, not ArrayRecord, no such split or feature.
    """
    name, _, split = spec.partition(":")
    if is_tfds(Path(name)):
        return folder_shards(Path(name), split or None, text_field, missing)
    where = "tfds:" + spec
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError(
            "reading a TFDS dataset by name needs the tensorflow-datasets package (TensorFlow is not needed)",
            where=where,
            help="pip install '.[text]'",
        ) from None
    for module in _LEGACY:
        try:
            importlib.import_module("tensorflow_datasets." + module)
        except ImportError:
            continue  # its datasets stay unknown; the others do not
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # builders raise what they like: unknown configs, versions, missing packages
        known = tfds.list_builders(with_community_datasets=False)  # those would ask the network
        if name.split("/")[0] not in known:
            raise UserError(
                f"TFDS knows no dataset {name!r}", where=where, help=did_you_mean(name.split("/")[0], known)
            ) from None
        raise UserError(
            f"TFDS cannot build {name!r}: {str(error).strip().splitlines()[0]}", where=where
        ) from None
    if not builder.info.splits:
        raise UserError(
            f"the TFDS dataset {name!r} is not prepared in {builder.data_path}",
            where=where,
            help=f"tfds build {name} --file_format=array_record --data_dir=DIR (c4 needs '.[beam]'), "
            "then --tfds_data_dir=DIR",
            code=Exit.BAD_DATA,
        )
    file_format = str(getattr(builder.info.file_format, "value", builder.info.file_format))
    if file_format != "array_record":
        raise _wrong_format(str(builder.data_path), file_format)
    features: Any = builder.info.features
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    _check_field(text_field, texts, where)
    try:
        instructions = builder.info.splits[split or "train"].file_instructions
    except (KeyError, ValueError) as error:
        raise UserError(
            f"TFDS finds no split {split or 'train'!r}: {str(error).strip().splitlines()[0]}",
            where=where,
            help=did_you_mean(split or "train", list(builder.info.splits)),
        ) from None
    return [
        Shard(str(file.filename), file.skip, file.skip + _taken(file.take, file.skip, file.examples_in_shard))
        for file in instructions
    ]


def _taken(take: int, skip: int, examples: int) -> int:
    return examples - skip if take < 0 else take


def _text_features(features: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in features.items() if feature["pythonClassName"].endswith(".Text")]


def _check_field(field: str, texts: Sequence[str], where: str) -> None:
    if field not in texts:
        raise UserError(
            f"this dataset has no text feature {field!r}",
            where=where,
            help=did_you_mean(field, texts, prefix="--text_field=")
            if texts
            else "it has no text feature at all",
            code=Exit.BAD_DATA,
        )


def _wrong_format(where: str, file_format: str) -> UserError:
    return UserError(
        f"this TFDS dataset is stored as {file_format}; without TensorFlow only array_record can be read",
        where=where,
        help=_CONVERT,
        code=Exit.BAD_DATA,
    )
