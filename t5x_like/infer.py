"""Reads lines, writes JSON lines: fills blanks, generates, or scores, in order and resumable.

  echo 'The whale <extra_id_0> the ship.' | python -m t5x_like.infer --workdir=runs/a
  python -m t5x_like.infer --workdir=runs/a --checkpoint=best --input=in.jsonl --output=out.jsonl --beams=4
  python -m t5x_like.infer --hf=t5-v1_1-small/ --mode=score --input=pairs.jsonl --output=scores.jsonl

Input: one text a line, or JSON lines {"inputs": ..., "targets": ...} whose other fields are carried through.
--mode=fill writes `output` (the text with its <extra_id_0>, <extra_id_1>, ... filled) and `spans`;
--mode=generate writes `output`; --mode=score writes the log-probabilities of `targets`, which only it needs.
`score` is the log-probability of what was produced (beam search: divided by the length penalty).

A run that was stopped goes on where its output ends when the same command is given again; with another input or
other settings it is refused. Sampling gives a line the same text however often it is stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

if TYPE_CHECKING:
    from t5x_like.decoding.base import Strategy
    from t5x_like.decoding.text import TextModel

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory to take the model from", flag_values=FLAGS)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best or a step", flag_values=FLAGS)
_HF = flags.DEFINE_string("hf", None, "a Hugging Face T5 directory, instead of --workdir", flag_values=FLAGS)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "file or folder; default: the tokenizer beside the model", flag_values=FLAGS
)
_INPUT = flags.DEFINE_string("input", "-", "file of lines, or .jsonl; - reads stdin", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", "-", ".jsonl to write; - prints", flag_values=FLAGS)
_MODE = flags.DEFINE_enum("mode", "fill", ["fill", "generate", "score"], "what to do", flag_values=FLAGS)
_BAD_INPUT = flags.DEFINE_enum(
    "bad_input",
    "fail",
    ["fail", "skip"],
    "a line that cannot be used: stop, or report and go on",
    flag_values=FLAGS,
)
_BEAMS = flags.DEFINE_integer("beams", 4, "beam search; 1 is greedy", lower_bound=1, flag_values=FLAGS)
_PENALTY = flags.DEFINE_enum(
    "penalty",
    "gnmt",
    ["gnmt", "hf"],
    "length penalty and stopping rule of beam search, by origin",
    flag_values=FLAGS,
)
_ALPHA = flags.DEFINE_float("alpha", 0.6, "exponent of the length penalty", flag_values=FLAGS)
_TEMPERATURE = flags.DEFINE_float("temperature", None, "samples at this temperature", flag_values=FLAGS)
_TOP_K = flags.DEFINE_integer("top_k", None, "samples among the k likeliest tokens", flag_values=FLAGS)
_TOP_P = flags.DEFINE_float(
    "top_p", None, "samples from the likeliest tokens of this mass", flag_values=FLAGS
)
_MIN_P = flags.DEFINE_float(
    "min_p", None, "drops tokens below this share of the likeliest", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "of sampling", lower_bound=0, upper_bound=2**63 - 1, flag_values=FLAGS
)
_MIN_LENGTH = flags.DEFINE_integer("min_length", 0, "tokens before the end may come", flag_values=FLAGS)
_MAX_LENGTH = flags.DEFINE_integer(
    "max_length",
    None,
    "most tokens of an output (or target); default: the run's targets length",
    flag_values=FLAGS,
)
_MAX_INPUT_LENGTH = flags.DEFINE_integer(
    "max_input_length",
    None,
    "longer inputs are cut; default: the run's length",
    lower_bound=2,
    flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "rows at a time", lower_bound=1, flag_values=FLAGS)

CHUNK = 16  # batches between two writes; sorting by length happens inside
REPORTED = 10  # bad lines shown one by one
DEFAULT_INPUT_LENGTH, DEFAULT_LENGTH = 512, 128


def strategy(max_length: int) -> Strategy:
    """The way of decoding that the flags describe: sampling as soon as one of its flags is given, else beams."""
    from t5x_like.decoding.beam import Beam
    from t5x_like.decoding.sampling import Sampling, greedy

    sampling = {"temperature": _TEMPERATURE, "top_k": _TOP_K, "top_p": _TOP_P, "min_p": _MIN_P}
    given = {name: flag.value for name, flag in sampling.items() if flag.value is not None}
    if given and FLAGS["beams"].present:
        raise UserError(f"--beams and --{next(iter(given))} exclude each other", where="command line")
    if given:
        chosen = Sampling(max_length=max_length, min_length=_MIN_LENGTH.value, **given)
    elif _BEAMS.value == 1:
        chosen = greedy(max_length, _MIN_LENGTH.value)
    else:
        chosen = Beam(
            num_beams=_BEAMS.value,
            max_length=max_length,
            min_length=_MIN_LENGTH.value,
            penalty="hf" if _PENALTY.value == "hf" else "gnmt",
            alpha=_ALPHA.value,
        )
    chosen.check()
    return chosen


def load_model() -> tuple[TextModel, int]:
    """The model with its tokenizer, and the longest output."""
    from t5x_like.data.tokenizers import load_tokenizer
    from t5x_like.decoding.text import TextModel

    if (_WORKDIR.value is None) == (_HF.value is None):
        raise UserError("one of --workdir and --hf is needed", where="command line", help="--workdir=RUN")
    input_length, length = DEFAULT_INPUT_LENGTH, DEFAULT_LENGTH
    if _HF.value:
        from t5x_like.hub.t5 import import_t5

        model, params = import_t5(_HF.value)
        tokenizer = load_tokenizer(_TOKENIZER.value or _HF.value)
    else:
        from t5x_like.training import restore

        assert _WORKDIR.value is not None
        run, params = restore.restore_params(_WORKDIR.value, cli.read_step(_CHECKPOINT.value))
        model = run.model
        tokenizer = load_tokenizer(_TOKENIZER.value or Path(_WORKDIR.value) / "tokenizer")
        features = run.objective.features(tokenizer.vocabulary)
        input_length = features["encoder_input_tokens"].shape[0]
        length = features["decoder_target_tokens"].shape[0]
    text_model = TextModel(
        model=model,
        params=params,
        tokenizer=tokenizer,
        batch_size=_BATCH_SIZE.value,
        max_input_length=_MAX_INPUT_LENGTH.value or input_length,
    )
    return text_model, length if _MAX_LENGTH.value is None else _MAX_LENGTH.value


# ---- input ---------------------------------------------------------------------------------------


def open_input(path: str) -> BinaryIO:
    """The input as a file that can be read twice."""
    if path == "-":
        return io.BytesIO(sys.stdin.buffer.read())
    try:
        return Path(path).open("rb")
    except OSError as e:
        raise UserError(f"cannot read the input: {e.strerror}", where=path, code=Exit.IO_ERROR) from None


def parse(line: bytes, *, as_json: bool, mode: str, sentinels: int) -> dict[str, Any]:
    """One line as a record with `inputs` (and `targets` to score).

    Raises:
      ValueError: says in a few words why the line cannot be used.
    """
    from t5x_like.decoding.text import BLANK

    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"not valid UTF-8 (byte {e.start + 1})") from None
    record: Any = {"inputs": text}
    if as_json:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"not JSON ({e})") from None
        try:  # half a surrogate pair, or NaN in a field that is carried through: no JSON line could hold it
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no character") from None
        except ValueError:
            raise ValueError("not JSON (NaN or infinity)") from None
    if not isinstance(record, dict):
        raise ValueError('expected an object such as {"inputs": "..."}')
    for field in ("inputs", "targets")[: 2 if mode == "score" else 1]:
        if not isinstance(record.get(field), str):
            raise ValueError(f"no text in field {field!r}")
    if mode == "fill":
        blanks = [int(number[:9]) for number in BLANK.findall(record["inputs"])]
        if not blanks:
            raise ValueError("no blank: write <extra_id_0> where text is missing")
        if max(blanks) >= sentinels:
            raise ValueError(f"<extra_id_{max(blanks)}>: the tokenizer has {sentinels} sentinels, from 0")
    return record


def read(
    source: BinaryIO, parse_line: Callable[[bytes], dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """(line number, record or what is wrong with the line) for every line that is not blank, from the beginning."""
    source.seek(0)
    for number, line in enumerate(source, 1):
        if line.strip():
            try:
                yield number, parse_line(line.rstrip(b"\r\n"))
            except ValueError as error:
                yield number, error


def check_input(lines: Iterator[tuple[int, dict[str, Any] | ValueError]], name: str) -> int:
    """The number of records; bad lines stop the command before any work, or are reported, as --bad_input says."""
    good, bad = 0, 0
    for number, record in lines:
        if not isinstance(record, ValueError):
            good += 1
            continue
        if _BAD_INPUT.value == "fail":
            raise UserError(
                str(record),
                where=f"{name}:{number}",
                help="--bad_input=skip leaves such lines out",
                code=Exit.BAD_DATA,
            )
        bad += 1
        if bad <= REPORTED:
            print(f"skipped {name}:{number}: {record}", file=sys.stderr)
    if bad:
        print(f"{bad} bad line{'s' * (bad > 1)} skipped", file=sys.stderr)
    return good


# ---- output --------------------------------------------------------------------------------------


class Output:
    """A file of JSON lines that grows by whole chunks and remembers the settings that it was begun with.

    Args:
      path: the file; `path`.settings.json stands beside it.
      settings: what decides the lines. If the file was begun with others, `UserError` shows both.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        beside = path.with_name(path.name + ".settings.json")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
            if self._file.tell() == 0:
                beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        except OSError as e:
            raise UserError(
                f"cannot write the output: {e.strerror}", where=str(path), code=Exit.CANNOT_WRITE
            ) from None
        try:
            begun = json.loads(beside.read_bytes())
        except (OSError, ValueError):
            begun = None
        if not isinstance(begun, dict):
            raise UserError(
                "the output exists, and its settings are not beside it",
                where=str(path),
                help="choose another --output",
            )
        for name in settings.keys() | begun.keys():
            if settings.get(name) != begun.get(name):
                raise UserError(
                    f"the output was begun with {name} {begun.get(name)}, not {settings.get(name)}",
                    where=str(path),
                    help="choose another --output, or remove this one",
                )
        self.lines = self._count()

    def _count(self) -> int:
        """Complete lines there are; what a kill left of another one is cut off."""
        self._file.seek(0)
        lines = end = 0
        for line in self._file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        self._file.truncate(end)
        return lines

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Writes the records at the end, and waits until they are on the disk."""
        try:
            self._file.write(_lines(records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise UserError(
                f"writing failed: {e.strerror}",
                where=str(self.path),
                code=Exit.IO_ERROR,
                help="run the command again",
            ) from None


def _lines(records: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def results(
    model: TextModel, decode: Strategy, records: Sequence[dict[str, Any]], first_index: int
) -> list[tuple[dict[str, Any], bool]]:
    """Each record with its results added, and whether its text was cut to fit."""
    inputs = [record["inputs"] for record in records]
    if _MODE.value == "score":
        pairs = [(record["inputs"], record["targets"]) for record in records]
        scored = model.score(pairs, decode.max_length)
        added = [{"score": r.score, "tokens": r.pieces, "token_scores": r.token_scores} for r in scored]
        cut = [r.truncated for r in scored]
    elif _MODE.value == "fill":
        filled = model.fill(inputs, decode, seed=_SEED.value, first_index=first_index)
        added = [{"output": r.text, "spans": r.spans, "score": r.score} for r in filled]
        cut = [r.truncated for r in filled]
    else:
        generated = model.generate(inputs, decode, seed=_SEED.value, first_index=first_index)
        added = [{"output": r.text, "score": r.score} for r in generated]
        cut = [r.truncated for r in generated]
    return [({**record, **new}, c) for record, new, c in zip(records, added, cut, strict=True)]


def fingerprint(params: Any) -> str:
    """A hash of all weights: a checkpoint that moved on is not the same model."""
    import jax
    import numpy as np
    import xxhash

    digest = xxhash.xxh3_128()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return digest.hexdigest()


def main(argv: list[str]) -> int:
    del argv
    name = "stdin" if _INPUT.value == "-" else _INPUT.value
    source = open_input(_INPUT.value)
    as_json = name.endswith(".jsonl") or (name == "stdin" and source.read(4096).lstrip().startswith(b"{"))
    if _MODE.value == "score" and not as_json:
        raise UserError(
            "scoring needs JSON lines with inputs and targets",
            where=name,
            help='{"inputs": "...", "targets": "..."}',
        )
    model, length = load_model()
    decode = strategy(length)

    parse_line = functools.partial(
        parse, as_json=as_json, mode=_MODE.value, sentinels=len(model.tokenizer.vocabulary.sentinels)
    )
    total = check_input(read(source, parse_line), name)
    output = None
    if _OUTPUT.value != "-":
        source.seek(0)
        settings = {
            "mode": _MODE.value,
            "input": hashlib.file_digest(cast(io.BufferedReader, source), "sha256").hexdigest(),
            "weights": fingerprint(model.params),
            "tokenizer": model.tokenizer.fingerprint,
            "decoding": f"{decode}",
            "max_input_length": model.max_input_length,
            "seed": _SEED.value,
            "bad_input": _BAD_INPUT.value,
        }
        output = Output(Path(_OUTPUT.value), settings)
    done = output.lines if output else 0

    # Chunks begin at the same records whether the run was stopped or not, and with them the batches.
    size = min(model.batch_size, max(1, total))
    model = dataclasses.replace(model, batch_size=size)
    records = (record for _, record in read(source, parse_line) if isinstance(record, dict))
    truncated, index = 0, 0
    while chunk := list(itertools.islice(records, size * CHUNK)):
        begin, index = index, index + len(chunk)
        if index <= done:
            continue
        found = results(model, decode, chunk, begin)[max(0, done - begin) :]
        truncated += sum(cut for _, cut in found)
        if output:
            output.append([record for record, _ in found])
            print(f"{index} of {total} lines", file=sys.stderr)
        else:
            sys.stdout.write(_lines([record for record, _ in found]).decode())
    if truncated:
        print(
            f"{truncated} of {total - done} texts were longer than --max_input_length={model.max_input_length} "
            f"(or --max_length={decode.max_length}) tokens and were cut",
            file=sys.stderr,
        )
    if done:
        print(f"{done} lines were there from before", file=sys.stderr)
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
