"""What `prepare` and `corpus` read: names on the command line become a list of files with known formats.

A name is a file, a glob, a folder, a URL of fsspec (`gs://bucket/*.jsonl.gz`), the word `embedded`, a TFDS dataset
(`tfds:c4/en:train`) or a folder that TFDS prepared. Nothing is read here but listings, a probe of each file's
first and last bytes, and TFDS's descriptions.
"""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

import xxhash
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from t5x_like.data import text_dataset
from t5x_like.data.compression import SUFFIXES, Compression
from t5x_like.errors import Exit, UserError, nearest

Format = Literal["text", "jsonl", "parquet", "array_record", "warc", "wet", "html"]
PAGES = ("warc", "wet", "html")
Absence = Literal["missing_file", "unreadable_file", "link_not_followed"]

EMBEDDED = Path(__file__).parent / "corpora" / "public_domain_english.jsonl.xz"
_FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".array_record": "array_record",
}
_PAGE_FORMATS: dict[str, Format] = {
    ".warc": "warc",
    ".wet": "wet",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".shtml": "html",
}
_PROBE = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of text or of pages.

    Attributes:
      name: as messages and the manifest call it.
      url: what fsspec opens.
      format, compression: how it is read.
      size: bytes as stored.
      probe: xxh3 of the first and last 64 KiB; with the size it stands for the content.
      records: for ArrayRecord, the records [first, last) to read.
    """

    name: str
    url: str
    format: Format
    compression: Compression | None
    size: int
    probe: str
    records: tuple[int, int] | None = None

    def open(self) -> IO[bytes]:
        """Opens the stored bytes.

        Raises:
          UserError: the file has disappeared or cannot be read.
        """
        try:
            fs, path = url_to_fs(self.url)
            return fs.open(path, "rb")
        except OSError as error:
            raise unreadable(self.name, error) from None


class NotThere(UserError):
    """A file or folder that the user named is not there, or is not read.

    Attributes:
      kind: of the problem that it is where others are read.
    """

    def __init__(self, what: str, *, where: str, help: str | None = None, kind: Absence = "missing_file"):
        super().__init__(what, where=where, help=help, code=Exit.BAD_DATA)
        self.kind: Absence = kind


def unreadable(name: str, error: Exception) -> NotThere:
    """The file that was there when the run began, or that the user named, cannot be read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return NotThere(
        f"cannot read this file: {reason}",
        where=name,
        help="put it back or leave it out of --input; the same command then continues where it stopped",
        kind="missing_file" if isinstance(error, FileNotFoundError) else "unreadable_file",
    )


def printable(path: str) -> str:
    """A path as text that can be written: bytes of a file's name that are no UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find(
    names: Sequence[str],
    *,
    text_field: str = "text",
    tfds_data_dir: str | None = None,
    pages: bool = False,
    absent: list[NotThere] | None = None,
) -> list[SourceFile]:
    """The files that `names` stand for, in the order given, sorted within a glob or folder, each once.

    Args:
      names: see the module's description.
      text_field: the feature of TFDS datasets that must exist.
      tfds_data_dir: where TFDS keeps prepared datasets; TFDS's own default otherwise.
      pages: also WARC, WET and HTML files.
      absent: takes what is not there or cannot be read; None raises it.

    Raises:
      UserError: a name that stands for nothing, an unknown format, a missing package.
    """
    if not names:
        raise UserError(
            "--input is missing", help="--input=embedded, or files such as --input='texts/*.jsonl.gz'"
        )
    found: dict[str, SourceFile] = {}
    look = _Look(text_field, tfds_data_dir, {**_FORMATS, **_PAGE_FORMATS} if pages else _FORMATS, absent)
    for name in names:
        try:
            files = look.expand(name)
        except NotThere as error:
            look.refuse(error)
            continue
        for file in files:
            found.setdefault(f"{file.url} {file.records}", file)
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class _Look:
    """What is looked for: the arguments of `find`, and the formats."""

    text_field: str
    tfds_data_dir: str | None
    known: dict[str, Format]
    absent: list[NotThere] | None

    def refuse(self, error: NotThere) -> None:
        """Raises it, or notes it."""
        if self.absent is None:
            raise error
        self.absent.append(error)

    def expand(self, name: str) -> list[SourceFile]:
        if name == "embedded":
            return [_describe(str(EMBEDDED), self.known, name="embedded")]
        if name.startswith("tfds:"):
            missing = None if self.absent is None else []
            spec = name.removeprefix("tfds:")
            shards = text_dataset.dataset_shards(spec, self.text_field, self.tfds_data_dir, missing)
            return self._shards(shards, missing)
        try:
            fs, root = url_to_fs(name)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"cannot open this URL: {error}",
                where=name,
                help="gs:// needs the package gcsfs, s3:// s3fs: pip install '.[gcs]', '.[s3]'",
            ) from None
        try:
            literal = isinstance(fs, LocalFileSystem) and Path(root).exists()  # a file may be called [1].txt
            if any(c in name for c in "*?[") and not literal:
                paths = self._glob(fs, root, name)
            elif fs.isdir(root):
                return self._folder(fs, root, name)
            elif fs.exists(root):
                paths = [root]
            else:
                if isinstance(fs, LocalFileSystem) and Path(root).is_symlink():
                    raise NotThere("a link to nothing", where=name)
                raise NotThere("no such file or folder", where=name, help=_near(fs, root))
        except OSError as error:
            raise unreadable(name, error) from None
        return self._files(fs, paths, name)

    def _glob(self, fs: Any, root: str, name: str) -> list[str]:
        """The files that match; what fsspec passes over without a word is refused by name."""
        matched = fs.glob(root)
        paths = sorted(path for path in matched if fs.isfile(path))
        refused = []
        if isinstance(fs, LocalFileSystem):
            for path in map(Path, matched):
                if path.is_symlink() and not path.exists():
                    refused.append(NotThere("a link to nothing", where=str(path)))
            refused += _passed_over(fs, root, paths)
        for error in refused:
            self.refuse(error)
        if not paths and not refused:
            raise NotThere("no file matches", where=name, help=_near(fs, root))
        return paths

    def _folder(self, fs: Any, root: str, name: str) -> list[SourceFile]:
        if "://" not in name and (Path(root) / "corpus.json").is_file():
            _refuse_corpus(Path(root), name)
        if "://" not in name and text_dataset.is_tfds(Path(root)):
            missing = None if self.absent is None else []
            return self._shards(
                text_dataset.folder_shards(Path(name), None, self.text_field, missing), missing
            )
        closed: list[OSError] = []
        links: list[str] = []
        if isinstance(fs, LocalFileSystem):  # fsspec passes over folders that it may not list
            listed = []
            for folder, inside, files in os.walk(root, onerror=closed.append):
                base = folder.rstrip("/")
                listed += [f"{base}/{file}" for file in files]
                links += [path for path in (f"{base}/{name}" for name in inside) if Path(path).is_symlink()]
        else:
            listed = fs.find(root)
        paths = [
            path
            for path in sorted(listed)
            if _format(path, self.known) and not _hidden(path.removeprefix(root))
        ]
        for error in closed:
            folder = error.filename or root
            if not _hidden(folder.removeprefix(root)):
                self.refuse(_closed(folder, error.strerror or str(error)))
        for link in sorted(links):
            if not _hidden(link.removeprefix(root)):
                self.refuse(_not_followed(link))
        if not paths and not closed and not links:
            raise UserError(
                "no text in this folder",
                where=name,
                help="files end in "
                + ", ".join(self.known)
                + ", optionally followed by "
                + ", ".join(SUFFIXES),
                code=Exit.BAD_DATA,
            )
        return self._files(fs, paths, name)

    def _files(self, fs: Any, paths: Sequence[str], name: str) -> list[SourceFile]:
        found = []
        for path in paths:
            try:
                found.append(_describe(_spell(fs, path, name), self.known))
            except NotThere as error:
                self.refuse(error)
        return found

    def _shards(
        self, shards: Sequence[text_dataset.Shard], missing: Sequence[str] | None
    ) -> list[SourceFile]:
        for path in missing or ():
            self.refuse(NotThere("a shard that dataset_info.json names is missing", where=path))
        return [_describe(shard.path, self.known, records=(shard.first, shard.last)) for shard in shards]


def _refuse_corpus(folder: Path, name: str) -> None:
    """A corpus also holds descriptions and samples, which are no documents of it."""
    for info in sorted(folder.glob("t5x_like_corpus/*/*/dataset_info.json")):
        dataset = "/".join(info.parts[-4:-2])
        raise UserError(
            "this folder is a corpus; its documents are a dataset in it",
            where=name,
            help=f"--input=tfds:{dataset}:train --tfds_data_dir={name}",
        )


def _passed_over(fs: Any, root: str, paths: Sequence[str]) -> Iterator[NotThere]:
    """Folders that a pattern of local files leads into and that were left out: links, and what may not be read."""
    parts = root.split("/")
    first = next(place for place, part in enumerate(parts) if set(part) & set("*?["))
    # The folder before the first wildcard is listed, then all that match up to the last part.
    for end in range(first, len(parts) + ("**" in parts[-1])):
        pattern = "/".join(parts[:end]) or "/"
        for folder in fs.glob(pattern) if end > first else [pattern]:
            if not fs.isdir(folder):
                continue
            if end > first and Path(folder).is_symlink():
                if not any(path.startswith(f"{folder}/") for path in paths):
                    yield _not_followed(folder)
            elif not os.access(folder, os.R_OK | os.X_OK):
                yield _closed(folder, os.strerror(errno.EACCES))


def _closed(folder: str, why: str) -> NotThere:
    return NotThere(f"cannot read this folder: {why}", where=folder, kind="unreadable_file")


def _not_followed(link: str) -> NotThere:
    help = "name the folder itself in --input, or remove the link"
    return NotThere("a link to a folder is not followed", where=link, help=help, kind="link_not_followed")


def _spell(fs: Any, path: str, name: str) -> str:
    """A listed path as the user would write it: a URL for a URL, relative for a relative name."""
    if "://" in name:
        return fs.unstrip_protocol(path)
    return path if Path(name).is_absolute() else os.path.relpath(path)


def _hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(relative).parts)


def _format(path: str, known: dict[str, Format]) -> tuple[Format, Compression | None] | None:
    pure = PurePosixPath(path)
    compression = SUFFIXES.get(pure.suffix.lower())
    if compression:
        pure = pure.with_suffix("")
    if "array_record" in pure.suffix:
        return ("array_record", None) if not compression else None
    format = known.get(pure.suffix.lower())
    if format is None or (compression and format == "parquet"):
        return None
    return format, compression


def _describe(
    url: str, known: dict[str, Format], *, name: str | None = None, records: tuple[int, int] | None = None
) -> SourceFile:
    found = _format(url, known)
    if found is None:
        choices = [*known, *(a + b for a in known for b in SUFFIXES)]
        suffix = "".join(PurePosixPath(url).suffixes[-2:])
        near = nearest(suffix, choices)
        raise UserError(
            f"unknown kind of file {suffix!r}",
            where=url,
            help="python -m t5x_like.corpus makes text of pages"
            if known is _FORMATS and _format(url, _PAGE_FORMATS)
            else (f"did you mean {near}? " if near else "") + "known: " + ", ".join(known) + "; also with "
            + ", ".join(SUFFIXES),
            code=Exit.BAD_DATA,
        )  # fmt: skip
    format, compression = found
    try:
        fs, path = url_to_fs(url)
        if format == "array_record" and "://" in url:
            raise UserError(
                "ArrayRecord files are read from a local disk only", where=url, help="copy the folder first"
            )
        if "://" not in url and Path(path).exists() and not Path(path).is_file():
            raise NotThere(  # to open a pipe would wait for its writer
                "not a regular file", where=url, help="write it into a file first", kind="unreadable_file"
            )
        with fs.open(path, "rb") as file:
            digest = xxhash.xxh3_64(file.read(_PROBE))
            size = file.seek(0, 2)
            if size > _PROBE:
                file.seek(max(_PROBE, size - _PROBE))
                digest.update(file.read(_PROBE))
    except OSError as error:
        raise unreadable(url, error) from None
    if format == "array_record" and records is None:
        records = (0, text_dataset.count(url)) if size else (0, 0)
    return SourceFile(
        name=name or printable(url),
        url=url,
        format=cast(Format, format),
        compression=compression,
        size=cast(int, size),
        probe=digest.hexdigest(),
        records=records,
    )


def _near(fs: Any, root: str) -> str:
    """A file in the same folder with a name like the missing one."""
    parent, _, wanted = root.rstrip("/").rpartition("/")
    try:
        names = [PurePosixPath(path).name for path in fs.ls(parent or "/", detail=False)]
    except OSError:
        return f"the folder {parent} does not exist either"
    similar = fnmatch.filter(names, wanted) or [near for near in [nearest(wanted, names)] if near]
    return f"did you mean {parent}/{similar[0]}?" if similar else f"{parent} holds nothing of a similar name"
