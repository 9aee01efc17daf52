"""Writing token datasets (data/token_dataset.py describes the format)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from jaxtyping import Integer

from t5x_like.data.example import Vocabulary
from t5x_like.data.tokenizers import Tokenizer

FORMAT = "t5x_like token dataset"
VERSION = 1
SHARD_TOKENS = 1 << 28
"""Tokens in a shard file (512 MiB of uint16)."""


class TokenDatasetWriter:
    """Writes a token dataset file by file; `finish` writes the manifest. The folder must exist and be empty.

    Args:
      folder: a local folder.
      tokenizer: saved beside the tokens.
      splits: names of the splits, also of those that stay empty.
      shard_tokens: tokens in a shard file.
    """

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, splits: Sequence[str], *, shard_tokens: int = SHARD_TOKENS
    ):
        self._folder, self._tokenizer = folder, tokenizer
        self._dtype = token_dtype(tokenizer.vocabulary)
        self._splits = {name: _SplitWriter(folder, name, self._dtype, shard_tokens) for name in splits}
        tokenizer.save(folder / "tokenizer")

    def append(
        self,
        split: str,
        ids: Integer[np.ndarray, "T"],
        documents: Integer[np.ndarray, "D"],
        sentences: Integer[np.ndarray, "S"],
    ) -> None:
        """Adds documents: their tokens end to end, and where documents and sentences begin in `ids`."""
        self._splits[split].append(ids, documents, sentences)

    def finish(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Closes the files and writes manifest.json, which it returns."""
        splits = {name: writer.finish() for name, writer in self._splits.items()}
        tokenizer_files = [
            _entry(name, len(content), xxhash.xxh3_128_hexdigest(content))
            for name, content in sorted(self._tokenizer.files.items())
        ]
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self._dtype.name,
            "vocabulary": dataclasses.asdict(self._tokenizer.vocabulary),
            "tokenizer": {"fingerprint": self._tokenizer.fingerprint, "files": tokenizer_files},
            "splits": splits,
            "provenance": dict(provenance),
        }
        manifest["fingerprint"] = content_fingerprint(manifest)
        write_durably(self._folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
        return manifest


class _SplitWriter:
    def __init__(self, folder: Path, name: str, dtype: np.dtype, shard_tokens: int):
        self._folder, self._name, self._dtype, self._shard_tokens = folder, name, dtype, shard_tokens
        self._tokens = self._documents = self._sentences = 0
        self._shards: list[dict[str, Any]] = []
        self._shard: _HashedFile | None = None
        self._document_file = _HashedFile(folder / f"{name}.documents")
        self._sentence_file = _HashedFile(folder / f"{name}.sentences")

    def append(self, ids: np.ndarray, documents: np.ndarray, sentences: np.ndarray) -> None:
        self._document_file.write((documents + self._tokens).astype("<i8"))
        self._sentence_file.write((sentences + self._tokens).astype("<i8"))
        self._documents += len(documents)
        self._sentences += len(sentences)
        self._tokens += len(ids)
        ids = ids.astype(self._dtype.newbyteorder("<"))
        while len(ids):
            if self._shard is None:
                self._shard = _HashedFile(self._folder / f"{self._name}-{len(self._shards):05d}.tokens")
            room = self._shard_tokens - self._shard.size // self._dtype.itemsize
            self._shard.write(ids[:room])
            ids = ids[room:]
            if len(ids):
                self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            entry = self._shard.finish()
            self._shards.append(entry | {"tokens": entry["bytes"] // self._dtype.itemsize})
            self._shard = None

    def finish(self) -> dict[str, Any]:
        self._close_shard()
        self._document_file.write(np.array([self._tokens], "<i8"))
        return {
            "tokens": self._tokens,
            "documents": self._documents,
            "sentences": self._sentences,
            "shards": self._shards,
            "document_offsets": self._document_file.finish(),
            "sentence_offsets": self._sentence_file.finish(),
        }


class _HashedFile:
    """A file being written, with its running checksum."""

    def __init__(self, path: Path):
        self._path, self._file, self._digest = path, path.open("wb"), xxhash.xxh3_128()
        self.size = 0

    def write(self, array: np.ndarray) -> None:
        content = array.tobytes()
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)

    def finish(self) -> dict[str, Any]:
        _sync(self._file)
        self._file.close()
        return _entry(self._path.name, self.size, self._digest.hexdigest())


def token_dtype(vocabulary: Vocabulary) -> np.dtype:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocabulary.size <= 1 << 16 else np.uint32)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that it is either absent or whole, also after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        _sync(file)
    temporary.replace(path)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def content_fingerprint(manifest: Mapping[str, Any]) -> str:
    digest = xxhash.xxh3_128(manifest["tokenizer"]["fingerprint"].encode())
    for name, split in sorted(manifest["splits"].items()):
        digest.update(f"{name}:{split['tokens']}:{split['documents']}:".encode())
        for entry in [*split["shards"], split["document_offsets"], split.get("sentence_offsets") or {}]:
            digest.update(entry.get("xxh3", "").encode())
    return digest.hexdigest()


def _entry(name: str, size: int, checksum: str) -> dict[str, Any]:
    return {"file": name, "bytes": size, "xxh3": checksum}
