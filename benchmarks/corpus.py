"""Pages and megabytes a second of one core, for every step from a crawl to tokens; peers on the same pages beside them.

  python -m benchmarks.corpus
  python -m benchmarks.corpus --peer_python=/env/peers/bin/python --json=corpus.json
  python -m benchmarks.corpus --pages='crawl/*.warc.gz' --only=read,extract

read      WARC, gzip, HTTP and charsets, up to markup
extract   markup to text
clean     C4's rules, and what its successors added
language  which language, and how surely
dedup     what a comparison says and judges, in memory (what lies on disk between is not counted)
tokens    text to ids, against the tokenizer library's own batches
peers     C4's rules against tensorflow-datasets and datatrove, turn by turn in one process (benchmarks/peers/
          corpus_rules.py says what --peer_python needs)

Time is process time of the fastest round. Pages: those of benchmarks/web_pages.py, or of --pages.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import web_pages
from t5x_like import cli
from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document, Settings
from t5x_like.data.pages import RawPage, Resiliparse, Trafilatura, VisibleText, find, read, units
from t5x_like.errors import UserError, did_you_mean

PARTS = ("read", "extract", "clean", "language", "dedup", "tokens", "peers")
ROOT = Path(__file__).parents[1]
FLAGS = flags.FlagValues()
_ONLY = flags.DEFINE_list("only", list(PARTS), "parts: " + ", ".join(PARTS), flag_values=FLAGS)
_PAGES = flags.DEFINE_list("pages", [], "WARC files to measure with", flag_values=FLAGS)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "the fastest counts", lower_bound=1, flag_values=FLAGS)
_PEER_PYTHON = flags.DEFINE_string(
    "peer_python", None, "interpreter with the peers; default: this one", flag_values=FLAGS
)
_JSON = flags.DEFINE_string("json", None, "file for all figures", flag_values=FLAGS)


class Table:
    """Measures, prints a row for each thing measured, and keeps the figures.

    Args:
      rounds: of each measurement.
    """

    def __init__(self, rounds: int):
        self._rounds = rounds
        self.figures: dict[str, dict[str, float]] = {}
        print(f"{'one core':44}{'pages/s':>12}{'MB/s':>10}")

    def measure(self, name: str, pages: int, size: int, work: Callable[[], Any]) -> Any:
        """Does `work`, which goes through `pages` pages of `size` bytes; returns what it returned."""
        return self.compare(pages, size, {name: work})[0]

    def compare(
        self, pages: int, size: int, sides: dict[str, Callable[[], Any]], rounds: int = 1
    ) -> list[Any]:
        """The same for several, turn by turn, so that a busy machine is busy for all of them."""
        results = [work() for work in sides.values()]  # what is loaded at first is not counted
        least = dict.fromkeys(sides, float("inf"))
        for _ in range(rounds * self._rounds):
            for name, work in sides.items():
                begin = time.process_time()
                work()
                least[name] = min(least[name], time.process_time() - begin)
        for name, seconds in least.items():
            self.figures[name] = {"pages_per_second": pages / seconds, "mb_per_second": size / seconds / 1e6}
            print(f"{name:44}{pages / seconds:12,.0f}{size / seconds / 1e6:10,.1f}", flush=True)
        return results


def _bytes(documents: Sequence[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _each(step: Any, items: Sequence[Any]) -> list[Any]:
    return [step(item) for item in items]


def _kept(rule: Any, items: Sequence[Any]) -> list[Document]:
    return [found for found in map(rule, items) if isinstance(found, Document)]


def raw_pages(table: Table, names: Sequence[str]) -> list[RawPage]:
    """All pages of the files."""
    settings = Settings()

    def work() -> list[RawPage]:
        files, _ = find(names)
        items = (item for unit in units(files, settings) for item in read(unit, settings))
        return [item for item in items if isinstance(item, RawPage)]

    pages = work()
    size = sum(len(page.html.encode()) for page in pages)
    if "read" in _ONLY.value:
        table.measure("read: WARC to markup", len(pages), size, work)
    return pages


def extract(table: Table, pages: Sequence[RawPage]) -> None:
    """Markup to text."""
    size = sum(len(page.html.encode()) for page in pages)
    for extractor in (VisibleText(), Resiliparse(), Trafilatura()):
        name = f"extract: {type(extractor).__name__}"
        table.measure(name, len(pages), size, functools.partial(_each, extractor, pages))


def clean(table: Table, documents: Sequence[Document]) -> None:
    """Rules on the text of all pages."""
    from configs.corpus import fineweb
    from t5x_like.data.cleaning.badwords import BadWords
    from t5x_like.data.cleaning.c4 import C4Clean, LongLines, MinSentences
    from t5x_like.data.cleaning.language import FastText
    from t5x_like.data.corpus.recipe import is_comparison

    size = _bytes(documents)
    for rule in (C4Clean(), MinSentences(), BadWords(), LongLines()):
        table.measure(f"clean: {rule.name}", len(documents), size, functools.partial(_each, rule, documents))
    steps = fineweb.config().steps
    rules = [step for step in steps if not is_comparison(step) and not isinstance(step, FastText)]

    def all_rules() -> None:
        for document in documents:
            for rule in rules:
                found: Any = rule(document)
                if isinstance(found, Rejection):
                    break
                document = found

    table.measure("clean: all rules of FineWeb", len(documents), size, all_rules)


def language(table: Table, documents: Sequence[Document]) -> None:
    """Identifiers, on text that C4's rules left."""
    from t5x_like.data.cleaning.language import CLD3, FastText, LangDetect
    from t5x_like.data.cleaning.language_codes import MC4_LANGUAGES

    size = _bytes(documents)
    for rule in (LangDetect(), FastText(), CLD3(languages=MC4_LANGUAGES)):
        name = f"language: {type(rule).__name__}"
        table.measure(name, len(documents), size, functools.partial(_each, rule, documents))


def dedup(table: Table, documents: Sequence[Document]) -> None:
    """Comparisons, on text that C4's rules left."""
    from t5x_like.data.dedup.first import DuplicateLines, DuplicateTexts, DuplicateURLs
    from t5x_like.data.dedup.near import NearDuplicates

    def compared(comparison: Any) -> list[Any]:
        """What the engines do (data/dedup/base.py), in memory."""
        verdicts: dict[int, list[bytes]] = {}
        for index, each in enumerate(comparison.rounds):
            said: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
            for number, document in enumerate(documents):
                if not index or number in verdicts:
                    for key, value in each.entries(number, document, verdicts.get(number, ())):
                        said[key].append((number, value))
            found: dict[int, set[bytes]] = defaultdict(set)
            for key in sorted(said):
                if len(said[key]) > 1:
                    for number, verdict in each.decide(key, said[key]):
                        found[number].add(verdict)
            verdicts = {number: sorted(some) for number, some in found.items()}
        return [comparison.apply(each, verdicts.get(n, ())) for n, each in enumerate(documents)]

    size = _bytes(documents)
    for comparison in (DuplicateURLs(), DuplicateTexts(), DuplicateLines(), NearDuplicates()):
        name = f"dedup: {comparison.name}"
        table.measure(name, len(documents), size, functools.partial(compared, comparison))


def tokens(table: Table, documents: Sequence[Document]) -> None:
    """Tokenisation, and what the libraries do with the same texts as they have them."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core
    from t5x_like.data import byte_bpe, tokenizer_training

    texts, size = [document.text for document in documents], _bytes(documents)
    sentencepiece: Any = tokenizer_training.Training(vocab_size=4000).train(texts)
    processor = sentencepiece._processor
    bpe: Any = byte_bpe.ByteBPETraining(vocab_size=4000).train(texts)
    library = bpe._tokenizer
    kinds = (  # each kind by itself: whoever comes after another finds its own tables out of the cache
        {
            "tokens: SentencePiece": lambda: sentencepiece.encode_documents(texts),
            "  the library, lists": lambda: processor.encode(texts, num_threads=1),
            "  the library, arrays": lambda: processor.encode(texts, return_type="numpy", num_threads=1),
        },
        {
            "tokens: byte BPE": lambda: bpe.encode_documents(texts),
            "  the library, encode_batch": lambda: [each.ids for each in library.encode_batch(texts)],
            "  the library, encode_batch_fast": lambda: [e.ids for e in library.encode_batch_fast(texts)],
        },
    )
    for sides in kinds:
        table.compare(len(documents), size, sides, rounds=3)


def peers(documents: Sequence[Document], python: str, rounds: int) -> dict[str, Any]:
    """C4's rules against peers, in a process of their interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.jsonl"
        lines = (json.dumps({"text": each.text, "url": each.url}) + "\n" for each in documents)
        path.write_text("".join(lines), encoding="utf-8")
        command = [python, "-m", "benchmarks.peers.corpus_rules", str(path), str(rounds)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the peers failed: {done.stderr.strip().splitlines()[-1]}", where="--peer_python")
    found = json.loads(done.stdout)
    print(
        f"\n{'same pages, turn by turn':44}{'pages/s':>12}{'MB/s':>10}{'ours is faster by':>20}{'same':>12}"
    )
    for name, result in found.items():
        if isinstance(result, str):
            print(f"{name}: skipped, {result}")
            continue
        print(name)
        for side, seconds in result["seconds"].items():
            ratio = "" if side == "ours" else f"{seconds / result['seconds']['ours']:.1f}x"
            same = f"{result['same'][side]}/{result['pages']}" if "same" in result and ratio else ""
            print(
                f"  {side:42}{result['pages'] / seconds:12,.0f}{result['characters'] / seconds / 1e6:10,.2f}"
                f"{ratio:>20}{same:>12}"
            )
    return found


def main(argv: list[str]) -> int:
    del argv
    for part in _ONLY.value:
        if part not in PARTS:
            raise UserError(f"no part {part!r}", where="--only", help=did_you_mean(part, PARTS))
    from t5x_like.data.cleaning.c4 import C4Clean

    table = Table(_ROUNDS.value)
    with tempfile.TemporaryDirectory() as folder:
        names = list(_PAGES.value)
        if not names:
            names = [str(Path(folder) / "pages.warc.gz")]
            Path(names[0]).write_bytes(b"".join(map(web_pages.record, web_pages.pages())))
        pages = raw_pages(table, names)
    documents = _kept(VisibleText(), pages)  # what C4 began with
    cleaned = _kept(C4Clean(), documents)
    print(
        f"{len(pages)} pages, {len(documents)} with text, {len(cleaned)} left by C4's rules", file=sys.stderr
    )
    parts: dict[str, Callable[[], None]] = {
        "extract": lambda: extract(table, pages),
        "clean": lambda: clean(table, documents),
        "language": lambda: language(table, cleaned),
        "dedup": lambda: dedup(table, cleaned),
        "tokens": lambda: tokens(table, cleaned),
    }
    for name, part in parts.items():
        if name in _ONLY.value:
            part()
    figures: dict[str, Any] = {"ours": table.figures}
    if "peers" in _ONLY.value:
        figures["peers"] = peers(documents, _PEER_PYTHON.value or sys.executable, _ROUNDS.value)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
