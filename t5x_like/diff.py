"""Shows where two runs' configurations differ.

  python -m t5x_like.diff --a=runs/one --b=runs/two
  python -m t5x_like.diff --a=t5/small --b=runs/one --json

Each side is a configuration name, a config.json or a run directory. Prints `path: value in a -> value in b`.
"""

from __future__ import annotations

import json

from absl import flags

from t5x_like import cli
from t5x_like.errors import Exit, UserError

FLAGS = flags.FlagValues()
_A = flags.DEFINE_string("a", None, "the first configuration", flag_values=FLAGS)
_B = flags.DEFINE_string("b", None, "the second configuration", flag_values=FLAGS)
_JSON = flags.DEFINE_bool("json", False, "print JSON: [[path, a, b], ...]", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    del argv
    if _A.value is None or _B.value is None:
        raise UserError("two configurations are needed", where="command line", help="--a=RUN --b=RUN")
    from t5x_like import config, typed

    a, b = config.load(_A.value), config.load(_B.value)
    if _JSON.value:
        print(json.dumps(typed.diff(a, b)))
    else:
        print(config.describe_diff(a, b) or "no difference")
    return Exit.DONE


if __name__ == "__main__":
    cli.run(main, FLAGS)
