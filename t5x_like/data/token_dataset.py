"""The token dataset: flat token arrays with document and sentence offsets, a tokenizer and a manifest.

A folder holds
  manifest.json             counts, sizes, checksums, vocabulary, provenance; written last
  tokenizer/                the tokenizer's files
  train-00000.tokens ...    ids, little-endian uint16 (uint32 from 65,537 ids on), documents end to end
  train.documents           int64: first token of each document, then the number of tokens
  train.sentences           int64: first token of each sentence
and the same for every other split. A local folder is memory-mapped, a URL (`gs://...`) is read by ranges.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from jaxtyping import Int32, Int64, Integer
from numpy.lib.stride_tricks import sliding_window_view

from t5x_like.data.example import Vocabulary
from t5x_like.data.token_writer import FORMAT, SHARD_TOKENS, VERSION, TokenDatasetWriter, content_fingerprint
from t5x_like.data.tokenizers import Tokenizer, load_tokenizer
from t5x_like.errors import Exit, UserError, did_you_mean

_MAX_MANIFEST = 64 << 20
_PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a range that could not be read from a remote place is asked for again."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TokenSplit:
    """One split: a flat array of tokens, addressed by position.

    Attributes:
      num_tokens, num_documents: counts.
      document_offsets: [D+1] first token of each document, then `num_tokens`.
      sentence_offsets: [S] first token of each sentence, ascending.
    """

    def __init__(self, folder: _Folder, name: str, entry: Mapping[str, Any], dtype: np.dtype):
        self.name = name
        self.num_tokens: int = entry["tokens"]
        self.num_documents: int = entry["documents"]
        self._folder, self._entry, self._dtype = folder, entry, dtype
        self._names = [shard["file"] for shard in entry["shards"]]
        sizes = [shard["tokens"] for shard in entry["shards"]]
        self._bounds = np.cumsum([0, *sizes])
        self._arrays = None if folder.remote else [folder.array(name, dtype) for name in self._names]

    @functools.cached_property
    def document_offsets(self) -> Int64[np.ndarray, "D+1"]:
        return self._folder.array(self._entry["document_offsets"]["file"], np.dtype("<i8"))

    @functools.cached_property
    def sentence_offsets(self) -> Int64[np.ndarray, "S"] | None:
        entry = self._entry.get("sentence_offsets")
        return None if entry is None else self._folder.array(entry["file"], np.dtype("<i8"))

    def gather(self, starts: Integer[np.ndarray, "B"], length: int) -> Int32[np.ndarray, "B {length}"]:
        """Spans of `length` tokens; positions are taken modulo `num_tokens`, so a span may run past the end.

        Raises:
          UserError: the split is empty.
        """
        if not self.num_tokens:
            raise UserError(
                f"split {self.name!r} has no tokens",
                where=self._folder.path,
                help="prepare with a larger --validation_fraction, or from more documents",
                code=Exit.BAD_DATA,
            )
        starts = np.asarray(starts, np.int64) % self.num_tokens
        out = np.empty((len(starts), length), np.int32)
        shards = np.searchsorted(self._bounds, starts, side="right") - 1
        slow = np.ones(len(starts), bool)
        if self._arrays is not None:
            self._folder.check_uncut(self._names, self._arrays)
            inside = starts + length <= self._bounds[shards + 1]
            for shard in np.unique(shards[inside]):
                rows = np.flatnonzero(inside & (shards == shard))
                windows = sliding_window_view(self._arrays[shard], length)
                out[rows] = windows[starts[rows] - self._bounds[shard]]
            slow = ~inside
        pieces = [
            (row, *piece)
            for row in np.flatnonzero(slow).tolist()
            for piece in self._pieces(int(starts[row]), length)
        ]
        for (row, column, *_), tokens in zip(pieces, self._read(pieces), strict=True):
            out[row, column : column + len(tokens)] = tokens
        return out

    def _pieces(self, start: int, length: int) -> list[tuple[int, int, int, int]]:
        """(column, shard, begin, end) of the stretches that make up a span across shards or past the end."""
        pieces, column = [], 0
        while column < length:
            shard = int(np.searchsorted(self._bounds, start, side="right")) - 1
            begin = start - int(self._bounds[shard])
            end = min(begin + length - column, int(self._bounds[shard + 1] - self._bounds[shard]))
            pieces.append((column, shard, begin, end))
            column += end - begin
            start = (start + end - begin) % self.num_tokens
        return pieces

    def _read(self, pieces: Sequence[tuple[int, int, int, int, int]]) -> list[np.ndarray]:
        if self._arrays is not None:
            return [self._arrays[shard][begin:end] for _, _, shard, begin, end in pieces]
        width = self._dtype.itemsize
        ranges = [(self._names[shard], begin * width, end * width) for _, _, shard, begin, end in pieces]
        return [np.frombuffer(content, self._dtype) for content in self._folder.ranges(ranges)]


class TokenDataset:
    """An open token dataset.

    Attributes:
      path: as given to `open`.
      manifest: the parsed manifest.json.
      vocabulary: ids of the tokenizer that made it.
      fingerprint: of the content: tokens, offsets and tokenizer; not of names, times or machines.
      tokenizer_fingerprint: of the tokenizer.
    """

    def __init__(self, folder: _Folder, manifest: dict[str, Any]):
        self._folder = folder
        self.path = folder.path
        self.manifest = manifest
        ids: dict[str, Any] = dict(manifest["vocabulary"])
        self.vocabulary = Vocabulary(sentinels=tuple(ids.pop("sentinels")), **ids)
        self.fingerprint: str = manifest["fingerprint"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]["fingerprint"]
        dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[manifest["dtype"]])
        self._splits = {
            name: TokenSplit(folder, name, entry, dtype) for name, entry in manifest["splits"].items()
        }

    @classmethod
    def open(cls, path: str) -> TokenDataset:
        """Opens a local folder or an fsspec URL, and checks every file's size against the manifest.

        Raises:
          UserError: no dataset there, or one that is damaged, names the file.
        """
        folder = _Folder(str(path))
        manifest = _read_manifest(folder)
        try:
            _check_manifest(folder, manifest)
            return cls(folder, manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(
                folder, "manifest.json", f"does not describe a token dataset ({error!r})"
            ) from None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use.

        Raises:
          UserError: its files are not those that the manifest names.
        """
        with tempfile.TemporaryDirectory() as temporary:
            for entry in self.manifest["tokenizer"]["files"]:
                content = self._folder.read("tokenizer/" + entry["file"])
                (Path(temporary) / entry["file"]).write_bytes(content)
            tokenizer = load_tokenizer(temporary)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise _damaged(self._folder, "tokenizer", "is not the tokenizer that made the tokens")
        return tokenizer

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._splits)

    def split(self, name: str) -> TokenSplit:
        """A split by name.

        Raises:
          UserError: there is none of this name; the message names those there are.
        """
        if name not in self._splits:
            raise UserError(
                f"this token dataset has no split {name!r}",
                where=self.path,
                help=did_you_mean(name, self._splits),
                code=Exit.BAD_DATA,
            )
        return self._splits[name]

    def verify(self) -> None:
        """Reads every file and compares checksums, offsets and ids with what the manifest says.

        Raises:
          UserError: names the first file that differs.
        """
        for entry in _file_entries(self.manifest):
            if self._folder.checksum(entry["file"]) != entry["xxh3"]:
                raise _damaged(self._folder, entry["file"], "has not the checksum that the manifest gives")
        for split in self._splits.values():
            offsets = split.document_offsets
            sane = offsets[0] == 0 and offsets[-1] == split.num_tokens and (np.diff(offsets) >= 0).all()
            if not sane:
                raise _damaged(
                    self._folder, f"{split.name}.documents", "does not ascend from 0 to the last token"
                )


def from_documents(
    path: str | Path,
    tokenizer: Tokenizer,
    documents: Mapping[str, Sequence[str]],
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenDataset:
    """Writes a token dataset from texts in memory and opens it.

    Args:
      path: folder to make; it must not exist or be empty.
      tokenizer: encodes the texts.
      documents: split name -> texts.
      shard_tokens: tokens in a shard file.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(
            "the folder of a new token dataset must be empty", where=str(folder), code=Exit.CANNOT_WRITE
        )
    writer = TokenDatasetWriter(folder, tokenizer, list(documents), shard_tokens=shard_tokens)
    for split, texts in documents.items():
        writer.append(split, *tokenizer.encode_documents(texts))
    writer.finish({})
    return TokenDataset.open(str(folder))


class _Folder:
    """The files of a dataset, local or remote, by name."""

    def __init__(self, path: str):
        self.path = path.rstrip("/") or path
        try:
            self._fs, self._root = url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"cannot open this URL: {error}", where=path, help="gs:// needs: pip install '.[gcs]'"
            ) from None
        self.remote = not isinstance(self._fs, LocalFileSystem)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it is missing or no plain file inside the folder."""
        if not self.remote:
            target = Path(self._at(name)).resolve()
            if not target.is_relative_to(Path(self._root).resolve()) or not target.is_file():
                return None
            return target.stat().st_size
        try:
            info = self._fs.info(self._at(name))
        except FileNotFoundError:
            return None
        return info["size"] if info["type"] == "file" else None

    def read(self, name: str, limit: int = _MAX_MANIFEST) -> bytes:
        try:
            with self._fs.open(self._at(name), "rb") as file:
                content: bytes = file.read(limit + 1)
        except OSError as error:
            raise _damaged(self, name, f"cannot be read ({error})") from None
        if len(content) > limit:
            raise _damaged(self, name, f"is larger than {limit} bytes")
        return content

    def array(self, name: str, dtype: np.dtype) -> np.ndarray:
        """A whole file as an array: memory-mapped where local."""
        if not self.remote:
            path = Path(self._at(name))
            return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
        return np.frombuffer(self.read(name, limit=1 << 62), dtype)

    def check_uncut(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        """Refuses files that became shorter while they were mapped: reading behind their end would kill the process
        (SIGBUS). One that was removed stays readable for as long as it is mapped."""
        for name, array in zip(names, arrays, strict=True):
            try:
                size = Path(self._at(name)).stat().st_size
            except OSError:
                continue
            if size < array.nbytes:
                raise UserError(
                    f"{name} has been cut to {size} bytes while it was being read; it had {array.nbytes}",
                    where=self.path,
                    help="copy the dataset again; the same command then goes on",
                    code=Exit.IO_ERROR,
                )

    def ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Byte ranges (file, begin, end), fetched together."""
        if not ranges:
            return []
        names, begins, ends = zip(*ranges, strict=True)
        for pause in (*_PAUSES, None):
            try:
                return self._fs.cat_ranges(
                    [self._at(n) for n in names], list(begins), list(ends), on_error="raise"
                )
            except OSError as error:
                if pause is None:
                    raise UserError(
                        f"reading the token dataset failed {len(_PAUSES) + 1} times: {error}",
                        where=self.path,
                        help="the same command goes on when it can be read again",
                        code=Exit.IO_ERROR,
                    ) from None
                time.sleep(pause)
        raise AssertionError

    def checksum(self, name: str) -> str:
        digest = xxhash.xxh3_128()
        with self._fs.open(self._at(name), "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
        return digest.hexdigest()


def _read_manifest(folder: _Folder) -> dict[str, Any]:
    if folder.size("manifest.json") is None:
        raise UserError(
            "no token dataset here: there is no manifest.json",
            where=folder.path,
            help="python -m t5x_like.prepare --input=... --output=" + folder.path,
            code=Exit.BAD_DATA,
        )
    try:
        manifest = json.loads(folder.read("manifest.json"))
    except (ValueError, RecursionError):
        raise _damaged(folder, "manifest.json", "is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(folder, "manifest.json", "is not the manifest of a token dataset")
    if manifest.get("version") != VERSION:
        raise UserError(
            f"this token dataset has format version {manifest.get('version')!r}; this program reads {VERSION}",
            where=folder.path,
            help="prepare it again, or use the version of t5x_like that made it",
            code=Exit.BAD_DATA,
        )
    return manifest


def _check_manifest(folder: _Folder, manifest: Mapping[str, Any]) -> None:
    width = np.dtype(manifest["dtype"]).itemsize
    for split in manifest["splits"].values():
        if sum(shard["tokens"] for shard in split["shards"]) != split["tokens"]:
            raise ValueError("shards do not add up to the split")
        if any(shard["bytes"] != shard["tokens"] * width for shard in split["shards"]):
            raise ValueError("a shard's bytes are not its tokens")
        if split["document_offsets"]["bytes"] != 8 * (split["documents"] + 1):
            raise ValueError("document offsets do not fit the number of documents")
    if manifest["fingerprint"] != content_fingerprint(manifest):
        raise ValueError("fingerprint does not fit the checksums")
    for entry in _file_entries(manifest):
        name = entry["file"]
        if not _NAME.fullmatch(name.removeprefix("tokenizer/")):
            raise _damaged(folder, "manifest.json", f"names a file outside the dataset: {name!r}")
        size = folder.size(name)
        if size is None:
            raise _damaged(folder, name, "is missing")
        if size != entry["bytes"]:
            raise _damaged(folder, name, f"has {size} bytes where the manifest says {entry['bytes']}")


def _file_entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every file of the dataset: {file, bytes, xxh3}, names relative to the folder."""
    entries = [entry | {"file": "tokenizer/" + entry["file"]} for entry in manifest["tokenizer"]["files"]]
    for split in manifest["splits"].values():
        entries += [*split["shards"], split["document_offsets"]]
        if split.get("sentence_offsets"):
            entries.append(split["sentence_offsets"])
    return entries


def _damaged(folder: _Folder, name: str, why: str) -> UserError:
    return UserError(
        f"{name} {why}",
        where=f"{folder.path}/{name}",
        help="prepare the dataset again with --overwrite, or copy it again",
        code=Exit.BAD_DATA,
    )
