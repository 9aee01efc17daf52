"""Reads lines, writes JSON lines: fills blanks, generates, scores, detects, classifies, in order and resumable.

  echo 'The whale <extra_id_0> the ship.' | python -m t5x_like.infer --workdir=runs/t5
  echo 'The whale [MASK] the ship.' | python -m t5x_like.infer --workdir=runs/bert --candidates=3
  echo 'The whale sang the ship.' | python -m t5x_like.infer --hf=electra-small/ --mode=detect
  python -m t5x_like.infer --workdir=runs/bert --mode=choose --template='{inputs} It was {label}.' \\
      --labels=good=great,bad=terrible --input=reviews.txt --output=classes.jsonl
  python -m t5x_like.infer --workdir=runs/t5 --checkpoint=best --input=in.jsonl --output=out.jsonl --beams=4
  python -m t5x_like.infer --hf=t5-v1_1-small/ --mode=score --input=pairs.jsonl --output=scores.jsonl

Input: one text a line, or JSON lines {"inputs": ..., "targets": ...} whose other fields are carried through.

  fill      T5: `output`, the text with its <extra_id_0>, <extra_id_1>, ... filled, and `spans`. Encoders: any number
            of [MASK] (or <mask>); `output`, and in `blanks` the likeliest candidates of each with their probabilities,
            each blank judged with all of them hidden. ELECTRA fills by its generator.
  generate  T5: `output`.
  score     T5: the log-probabilities of `targets`, which only this mode needs.
  detect    ELECTRA: the probability of each token that it was replaced; `output` marks *words* above --threshold.
  choose    BERT, RoBERTa, ELECTRA: `choice` among --labels (words, or NAME=WORD) and `probabilities`. --template
            names fields of the record in braces, {label} once, and [SEP] between two segments. BERT takes the likeliest
            label word at {label}; ELECTRA the one that looks least replaced. --values=1,5 gives the classes numbers
            and each record a `value` between them; for ELECTRA one label word and two values are enough.

`score` is the log-probability of what was produced (beam search: divided by the length penalty).

A run that was stopped goes on where its output ends when the same command is given again; with another input or
other settings it is refused. Sampling gives a line the same text however often it is stopped.
"""

from __future__ import annotations

import hashlib
import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from absl import flags

from t5x_like import cli, inference
from t5x_like.errors import Exit, UserError

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer
    from t5x_like.decoding.base import Strategy
    from t5x_like.decoding.encoder_text import DetectorText, MaskedText
    from t5x_like.inference import Use

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory to take the model from", flag_values=FLAGS)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best or a step", flag_values=FLAGS)
_HF = flags.DEFINE_string("hf", None, "a Hugging Face directory, instead of --workdir", flag_values=FLAGS)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "file or folder; default: the tokenizer beside the model", flag_values=FLAGS
)
_INPUT = flags.DEFINE_string("input", "-", "file of lines, or .jsonl; - reads stdin", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", "-", ".jsonl to write; - prints", flag_values=FLAGS)
_MODE = flags.DEFINE_enum(
    "mode", "fill", ["fill", "generate", "score", "detect", "choose"], "what to do", flag_values=FLAGS
)
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

_CANDIDATES = flags.DEFINE_integer("candidates", 5, "shown for each [MASK]", lower_bound=1, flag_values=FLAGS)
_THRESHOLD = flags.DEFINE_float(
    "threshold", 0.5, "probability above which a word counts as replaced", flag_values=FLAGS
)
_TEMPLATE = flags.DEFINE_string(
    "template", None, "of --mode=choose, such as '{inputs} It was {label}.'", flag_values=FLAGS
)
_LABELS = flags.DEFINE_list("labels", [], "label words, or NAME=WORD pairs", flag_values=FLAGS)
_VALUES = flags.DEFINE_list("values", [], "a number for each label, for regression", flag_values=FLAGS)

OWN_FLAGS = {
    "generate": ("beams", "penalty", "alpha", "temperature", "top_k", "top_p", "min_p", "seed", "min_length"),
    "fill an encoder's blanks": ("candidates",),
    "detect": ("threshold",),
    "choose": ("template", "labels", "values"),
}
"""Flags that serve one purpose alone, by it."""

DEFAULT_INPUT_LENGTH, DEFAULT_LENGTH = 512, 128


class Loaded(NamedTuple):
    """A model as it was stored; the longest input and output where that is known."""

    model: Any
    params: Any
    tokenizer: Tokenizer
    input_length: int | None
    output_length: int | None


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


def load_model() -> Loaded:
    """The model that the flags name, with its tokenizer."""
    from t5x_like.data.tokenizers import load_tokenizer

    if (_WORKDIR.value is None) == (_HF.value is None):
        raise UserError("one of --workdir and --hf is needed", where="command line", help="--workdir=RUN")
    if _HF.value:
        from t5x_like.hub.pretrained import load_pretrained

        tokenizer = load_tokenizer(_TOKENIZER.value or _HF.value)
        model, params = load_pretrained(_HF.value, tokenizer=tokenizer)
        return Loaded(model, params, tokenizer, None, None)
    from t5x_like.training import restore

    assert _WORKDIR.value is not None
    run, store, record = restore.open_run(_WORKDIR.value, cli.read_step(_CHECKPOINT.value))
    beside = Path(_WORKDIR.value) / "tokenizer"
    tokenizer = load_tokenizer(_TOKENIZER.value or beside)
    if _TOKENIZER.value and tokenizer.fingerprint != record.tokenizer:
        check_stand_in(tokenizer, load_tokenizer(beside))
    params = restore.load_params(run, store, record)
    features = run.objective.features(tokenizer.vocabulary)
    lengths = (
        features[name].shape[0] if name in features else None
        for name in ("encoder_input_tokens", "decoder_target_tokens")
    )
    return Loaded(run.model, params, tokenizer, *lengths)


def check_stand_in(tokenizer: Tokenizer, own: Tokenizer) -> None:
    """Raises `UserError` where --tokenizer has other ids than the run's own."""
    given, wanted = tokenizer.vocabulary, own.vocabulary
    for what, there, here in (("ids", given.size, wanted.size), ("as its padding", given.pad, wanted.pad)):
        if there != here:
            raise UserError(
                f"this tokenizer has {there} {what}, and the run's {here}",
                where=f"--tokenizer={_TOKENIZER.value}",
                help="leave --tokenizer out: the run keeps its own",
                code=Exit.BAD_DATA,
            )


def make_use(loaded: Loaded) -> Use:
    """What --mode does with this model; refuses what the model cannot do, and flags that have no meaning then."""
    from t5x_like import uses

    mode, kind = _MODE.value, getattr(loaded.model, "kind", "")
    able = {
        "encoder-decoder": ("fill", "generate", "score"),
        "encoder": ("fill", "choose"),
        "generator-discriminator": ("fill", "detect", "choose"),
    }.get(kind, ())
    if mode not in able:
        fitting = f"--mode={able[0]}" if able else None
        raise UserError(
            f"{type(loaded.model).__name__} cannot {mode}; it can {' or '.join(able) or 'do none of these'}",
            where=f"--mode={mode}",
            help=fitting,
        )
    decodes = kind == "encoder-decoder"
    purpose = "generate" if decodes else "fill an encoder's blanks" if mode == "fill" else mode
    for other, names in OWN_FLAGS.items():
        given = [name for name in names if FLAGS[name].present]
        if given and other != purpose:
            raise UserError(
                f"--{given[0]} serves to {other}, which is not asked for here", where="command line"
            )
    if decodes:
        from t5x_like.decoding.text import TextModel

        length = loaded.output_length or DEFAULT_LENGTH
        return uses.TextToText(
            model=TextModel(
                model=loaded.model,
                params=loaded.params,
                tokenizer=loaded.tokenizer,
                batch_size=_BATCH_SIZE.value,
                max_input_length=_MAX_INPUT_LENGTH.value or loaded.input_length or DEFAULT_INPUT_LENGTH,
            ),
            mode=cast(Any, mode),
            strategy=strategy(length if _MAX_LENGTH.value is None else _MAX_LENGTH.value),
            seed=_SEED.value,
        )
    if mode == "detect" or (mode == "choose" and kind == "generator-discriminator"):
        model = detector(loaded)
    else:
        model = masked(loaded)
    if mode == "choose":
        return uses.Choose(model=model, chooser=chooser(model))
    if mode == "detect":
        return uses.Detect(model=cast("DetectorText", model), threshold=_THRESHOLD.value)
    if loaded.tokenizer.vocabulary.mask is None:
        raise UserError("the tokenizer has no mask token, so no text can have a blank", where="--mode=fill")
    return uses.Cloze(model=cast("MaskedText", model), top=_CANDIDATES.value)


def chooser(model: MaskedText | DetectorText) -> Any:
    """The template and the labels that the flags give."""
    from t5x_like.decoding.prompts import Chooser, Template

    for name, flag in (("template", _TEMPLATE.value), ("labels", _LABELS.value)):
        if not flag:
            raise UserError(
                f"--mode=choose needs --{name}",
                where="command line",
                help="--template='{inputs} It was {label}.' --labels=great,terrible",
            )
    try:
        values = tuple(map(float, _VALUES.value)) or None
    except ValueError:
        values = (math.nan,)
    if values and not all(map(math.isfinite, (*values, max(values) - min(values)))):
        raise UserError(
            "--values takes finite numbers, such as 1,5", where=f"--values={','.join(_VALUES.value)}"
        )
    pairs = (label.partition("=") for label in _LABELS.value)
    labels = tuple((name.strip(), (word or name).strip()) for name, _, word in pairs)
    chosen = Chooser(template=Template(cast(str, _TEMPLATE.value)), labels=labels, values=values)
    chosen.check(model)
    if warning := chosen.uneven(model):
        print(f"warning: {warning}", file=sys.stderr)
    return chosen


def masked(loaded: Loaded) -> MaskedText:
    """The masked language model of an encoder, which in ELECTRA is the generator."""
    from t5x_like.decoding.encoder_text import MaskedText

    model, params = loaded.model, loaded.params
    if model.kind == "generator-discriminator":
        if "generator" not in params:
            raise UserError(
                "this ELECTRA came without its generator, and only that fills blanks",
                where=f"--hf={_HF.value}",
                help="--mode=detect, or the directory of the generator",
            )
        model, params = model.generator, model.generator_params(params)
    if not model.mlm_head:
        raise UserError(
            "the model has no head over the vocabulary, so it cannot fill blanks", where="--mode=fill"
        )
    return MaskedText(model=model, params=params, **_shared(loaded, model))


def detector(loaded: Loaded) -> DetectorText:
    """ELECTRA's discriminator."""
    from t5x_like.decoding.encoder_text import DetectorText

    if loaded.model.head != "detection":
        raise UserError(
            f"this discriminator was trained with head={loaded.model.head}, which tells no replaced tokens",
            where="--mode",
        )
    return DetectorText(model=loaded.model, params=loaded.params, **_shared(loaded, loaded.model.encoder))


def _shared(loaded: Loaded, encoder: Any) -> dict[str, Any]:
    """What both kinds of text models take."""
    asked = _MAX_INPUT_LENGTH.value
    if asked and asked > encoder.max_length:
        raise UserError(
            f"--max_input_length is {asked}; the model has {encoder.max_length} positions",
            where="command line",
            help=f"--max_input_length={encoder.max_length} at most",
        )
    if loaded.tokenizer.vocabulary.size > encoder.vocab_size:
        raise UserError(
            f"the tokenizer has {loaded.tokenizer.vocabulary.size} ids and the model's table {encoder.vocab_size} rows",
            where="--tokenizer",
        )
    return {
        "tokenizer": loaded.tokenizer,
        "max_length": asked or loaded.input_length or encoder.max_length,
        "batch_size": _BATCH_SIZE.value,
        "double_separator": encoder.double_separator,
    }


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
    source = inference.open_input(_INPUT.value)
    as_json = inference.is_json(source, _INPUT.value)
    if _MODE.value == "score" and not as_json:
        raise UserError(
            "scoring needs JSON lines with inputs and targets",
            where=name,
            help='{"inputs": "...", "targets": "..."}',
        )
    loaded = load_model()
    use = make_use(loaded)
    lines = inference.read(source, use, as_json=as_json)
    total = inference.check_input(lines, name, skip=_BAD_INPUT.value == "skip")
    output = None
    if _OUTPUT.value != "-":
        source.seek(0)
        settings = {
            "mode": _MODE.value,
            "input": hashlib.file_digest(cast(io.BufferedReader, source), "sha256").hexdigest(),
            "weights": fingerprint(loaded.params),
            "tokenizer": loaded.tokenizer.fingerprint,
            **use.settings(),
            "bad_input": _BAD_INPUT.value,
        }
        output = inference.Output(Path(_OUTPUT.value), settings)
    done = output.lines if output else 0
    use = use.resized(min(use.batch_size, max(1, total)))
    records = (r for _, r in inference.read(source, use, as_json=as_json) if isinstance(r, dict))
    truncated = inference.process(use, records, total, output)
    if truncated:
        print(
            f"{truncated} of {total - done} texts were longer than {use.limits} tokens and were cut",
            file=sys.stderr,
        )
    if done:
        print(f"{done} lines were there from before", file=sys.stderr)
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
