"""Makes a token dataset from text: reads, checks, trains or takes a tokenizer, tokenises, splits.

  python -m t5x_like.prepare --input=embedded --output=data/embedded --vocab_size=8192
  python -m t5x_like.prepare --input='texts/*.jsonl.gz,notes/' --output=data/mine --validation_fraction=0.01
  python -m t5x_like.prepare --input=embedded --model_type=wordpiece --lowercase --vocab_size=8192 \\
      --output=data/embedded-bert
  python -m t5x_like.prepare --input=tfds:c4/en:train --tfds_data_dir=/data/tfds --tokenizer=spiece.model \\
      --output=data/c4

Input: .txt, .jsonl, .json (one object a line), also with .gz, .zst or .xz behind; .parquet; globs, folders, URLs
(gs://...); a TFDS dataset by name or by its folder; `embedded`, the corpus that comes with the package. Killed at
any moment, the same command continues; given again when all is done, it says so. Any number of workers gives the
same bytes. Documents that cannot be used are counted in the summary and listed in OUTPUT/rejections.jsonl.
"""

from __future__ import annotations

import json

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError
from t5x_like.reading_flags import ReadingFlags
from t5x_like.tokenizer_flags import TokenizerFlags

FLAGS = flags.FlagValues()
_READING = ReadingFlags(FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "local folder to make", flag_values=FLAGS)
_TOKENIZER = TokenizerFlags(FLAGS)
_VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction",
    0.02,
    "share of the documents, by a hash of their text, held out",
    flag_values=FLAGS,
)
_VALIDATION_INPUT = flags.DEFINE_list(
    "validation_input",
    None,
    "sources that are the validation split; everything in --input is then for training",
    flag_values=FLAGS,
)
_WRITE_TEXT = flags.DEFINE_string(
    "write_text_dataset",
    None,
    "also write the documents as a TFDS dataset into this folder",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer("workers", 0, "processes; 0: one for each core", flag_values=FLAGS)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "replace what was made with other arguments", flag_values=FLAGS
)
_JSON = flags.DEFINE_bool("json", False, "print the summary as JSON", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    del argv
    from t5x_like.data.preparation import Arguments, prepare

    _TOKENIZER.check()
    if _VALIDATION_INPUT.value and FLAGS["validation_fraction"].present:
        raise UserError(
            "--validation_fraction is for splitting --input, and --validation_input is a split already",
            where="command line",
            help="leave one of the two out",
        )
    summary = prepare(
        Arguments(
            input=_READING.input,
            output=_OUTPUT.value or "",
            tokenizer=_TOKENIZER.existing,
            training=_TOKENIZER.training(),
            tokenizer_sample_bytes=_TOKENIZER.sample_bytes,
            read=_READING.settings(),
            tfds_data_dir=_READING.tfds_data_dir,
            validation_fraction=_VALIDATION_FRACTION.value,
            validation_input=tuple(_VALIDATION_INPUT.value or ()),
            write_text_dataset=_WRITE_TEXT.value,
            workers=_WORKERS.value,
            overwrite=_OVERWRITE.value,
        )
    )
    print(json.dumps(summary.as_json()) if _JSON.value else summary)
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
