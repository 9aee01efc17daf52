"""Writes the report of a run or of a corpus: one self-contained HTML page that opens offline.

  python -m t5x_like.report --workdir=runs/quickstart
  python -m t5x_like.report --corpus=data/c4
  python -m t5x_like.report --workdir=runs/quickstart --png=curve.png

Reads metrics.jsonl, config.json, env.json and, where they exist, evaluation.json (`t5x_like.evaluate`) and
samples.jsonl (`t5x_like.infer`). The page holds curves of loss and throughput, the figures, samples, and the
configuration; every text that comes from data is escaped. Of a corpus: the funnel of its rules, lengths, languages,
near-duplicates, what could not be read, speed, samples; the figures also go into a JSON file beside the page.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory", flag_values=FLAGS)
_CORPUS = flags.DEFINE_string(
    "corpus", None, "instead of a run: a corpus that t5x_like.corpus made", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "where the page goes; default: report.html in the folder", flag_values=FLAGS
)
_PNG = flags.DEFINE_string("png", None, "also write the curves as a picture", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    from t5x_like import corpus_report, reporting

    del argv
    if _WORKDIR.value is not None and _CORPUS.value is not None:
        raise UserError("--workdir and --corpus exclude each other", where="command line")
    if _CORPUS.value is not None:
        if _PNG.value:
            raise UserError("the report of a corpus has no curves", where="--png")
        corpus = Path(_CORPUS.value)
        output = Path(_OUTPUT.value) if _OUTPUT.value else corpus / "report.html"
        corpus_report.write(corpus, output)
        print(output)
        return Exit.DONE
    if _WORKDIR.value is None:
        raise UserError(
            "which run?", where="--workdir", help="--workdir=RUN, a directory that train has written"
        )
    workdir = Path(_WORKDIR.value)
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / "report.html"
    reporting.write(workdir, output, Path(_PNG.value) if _PNG.value else None)
    print(output)
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
