"""Makes a corpus of pages: finds their text, cleans, deduplicates, splits, and tokenises it if asked to.

  python -m t5x_like.corpus --config=corpus/c4 --input='pages/*.warc.gz' --output=data/c4 --vocab_size=32100
  python -m t5x_like.corpus --config=corpus/fineweb --input=pages/ --output=data/web --set=split=url
  python -m t5x_like.corpus --config=data/c4/recipe.json --input='more/*.wet.gz' --output=data/more \\
      --tokenizer=data/c4/tokens/tokenizer
  python -m t5x_like.corpus --config=corpus/c4 --input='gs://bucket/*.wet.gz' --output=data/c4 --engine=beam \\
      --beam_folder=gs://bucket/work --beam_options='--runner=DataflowRunner --project=P --region=R'

Input: WARC, WET, HTML, and all that `prepare` reads; .gz and .zst; globs, folders, URLs (gs://..., s3://...). A
recipe is a configuration (configs/corpus/) or a recipe.json. Killed at any moment, the same command continues; any
number of workers gives the same bytes. OUTPUT holds a text dataset that TFDS reads by name, a token dataset where a
tokenizer is given or trained (--vocab_size or another of its flags), corpus.json and samples.jsonl.

What cannot be read is counted, listed in OUTPUT/rejections.jsonl, and left out. Ends with 66 if that were whole files
or parts of them, and with 65 if no document is left.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, cast

from absl import flags

from t5x_like import cli
from t5x_like.reading_flags import ReadingFlags
from t5x_like.tokenizer_flags import TokenizerFlags

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "recipe: corpus/c4, corpus/c4:noblocklist, my/file.py:name, recipe.json",
    flag_values=FLAGS,
)
_SET = flags.DEFINE_multi_string(
    "set", [], "overrides a field of the recipe: --set=split=url; may be repeated", flag_values=FLAGS
)
_READING = ReadingFlags(FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "local folder to make", flag_values=FLAGS)
_TOKENIZER = TokenizerFlags(FLAGS)
_COUNT_TOKENS = flags.DEFINE_bool(
    "count_tokens",
    True,
    "count the tokens that go into every step and come out, where there is a tokenizer; if not, they are estimated "
    "from the characters",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer("workers", 0, "processes; 0: one for each core", flag_values=FLAGS)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "replace what was made with other arguments", flag_values=FLAGS
)
_ENGINE = flags.DEFINE_enum(
    "engine",
    "local",
    ["local", "beam"],
    "several processes here, or an Apache Beam pipeline",
    flag_values=FLAGS,
)
_BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    "",
    "of the pipeline: --beam_options='--runner=DataflowRunner --project=...'",
    flag_values=FLAGS,
)
_BEAM_FOLDER = flags.DEFINE_string(
    "beam_folder",
    "",
    "folder that Beam's workers and this machine see, such as gs://bucket/folder",
    flag_values=FLAGS,
)
_JSON = flags.DEFINE_bool("json", False, "print the summary as JSON", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    del argv
    from t5x_like import config
    from t5x_like.data.corpus.making import Arguments, make
    from t5x_like.data.corpus.recipe import Corpus
    from t5x_like.errors import UserError

    if not _CONFIG.value:
        raise UserError(
            "--config is missing", help="--config=corpus/c4, corpus/mc4, corpus/fineweb, corpus/none"
        )
    _TOKENIZER.check()
    train = _TOKENIZER.given and not _TOKENIZER.existing
    summary = make(
        Arguments(
            input=_READING.input,
            output=_OUTPUT.value or "",
            recipe=config.load_as(_CONFIG.value, Corpus, _SET.value),
            read=_READING.settings(),
            tokenizer=_TOKENIZER.existing,
            training=_TOKENIZER.training() if train else None,
            tokenizer_sample_bytes=_TOKENIZER.sample_bytes,
            count_tokens=_COUNT_TOKENS.value,
            tfds_data_dir=_READING.tfds_data_dir,
            workers=_WORKERS.value,
            overwrite=_OVERWRITE.value,
            engine=cast(Any, _ENGINE.value),
            beam_options=_beam_options(),
            beam_folder=_BEAM_FOLDER.value,
        )
    )
    print(json.dumps(summary.as_json()) if _JSON.value else summary)
    return summary.code


def _beam_options() -> tuple[str, ...]:
    from t5x_like.errors import UserError

    try:
        return tuple(shlex.split(_BEAM_OPTIONS.value))
    except ValueError as error:
        raise UserError(
            f"cannot be cut into options: {str(error).lower()}",
            where=f"--beam_options={_BEAM_OPTIONS.value}",
            help="--beam_options='--runner=DataflowRunner --project=...'",
        ) from None


if __name__ == "__main__":
    cli.run(main, FLAGS)
