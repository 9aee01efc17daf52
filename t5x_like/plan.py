"""Plans a run before anything is rented: does it fit, what does a step cost, how long will it take?

  python -m t5x_like.plan --config=t5/11b:v5e --topology=v5e:16x16
  python -m t5x_like.plan --config=t5/base --topology=v5p:2x2x2 --set=microbatches=4 --json
  python -m t5x_like.plan --config=bert/large --topology='v5e:4x4*2' --suggest
  python -m t5x_like.plan --config=t5/3b --topology=h100:8*4
  python -m t5x_like.plan --config=t5/small:debug --topology=cpu:8 --set=mesh.fsdp=2
  python -m t5x_like.plan --compute=1e21 --law=chinchilla

The train step itself is compiled for the topology, without an array and without an accelerator: TPUs (v4, v5e, v5p,
v6e) by their own compiler, which runs on any x86 Linux machine (pip install '.[plan]'), CPU devices by ours.
GPUs, and everything with --formula, are planned by arithmetic, and the output says so. *2 after a topology means two
slices (or nodes). --suggest looks for the settings of remat, microbatches, mesh and batch that fit and cost least.
--compute asks the scaling laws how large a model and how many tokens a budget of FLOPs is best spent on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from absl import flags

from t5x_like import cli
from t5x_like.errors import UserError

FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config", None, "a configuration, a config.json or a run directory", flag_values=FLAGS
)
_SET = flags.DEFINE_multi_string("set", [], "override: path=value, as for train", flag_values=FLAGS)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "CHIP:SHAPE or CHIP:SHAPE*SLICES, such as v5e:16x16, v5p:8x8x16*2, h100:8, cpu:8",
    flag_values=FLAGS,
)  # fmt: skip
_SUGGEST = flags.DEFINE_bool(
    "suggest", False, "look for settings that fit, and compile them", flag_values=FLAGS
)
_FORMULA = flags.DEFINE_bool("formula", False, "compile nothing; an estimate in seconds", flag_values=FLAGS)
_PROGRAMS = flags.DEFINE_string(
    "programs",
    None,
    "folder that keeps compiled programs; what is in it is not compiled again",
    flag_values=FLAGS,
)
_COMPUTE = flags.DEFINE_float(
    "compute", None, "a budget of training FLOPs, for the scaling laws", flag_values=FLAGS
)
_LAW = flags.DEFINE_enum("law", "all", ["chinchilla", "kaplan", "all"], "of --compute", flag_values=FLAGS)
_JSON = flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


OF_PLANS = ("config", "set", "topology", "suggest", "formula", "programs")
LEAST, MOST = 1e12, 1e30
"""Budgets that the scaling laws are asked about; they were fitted to some 1e18 to 1e22."""


def main(argv: list[str]) -> int:
    """Reads the flags, plans, prints."""
    del argv
    if _COMPUTE.value is not None:
        if others := [f"--{flag}" for flag in OF_PLANS if FLAGS[flag].present]:
            raise UserError(
                "--compute asks the scaling laws alone",
                where="--compute",
                help=f"leave {' and '.join(others)} out",
            )
        return _scaling(_COMPUTE.value)
    if FLAGS["law"].present:
        raise UserError("--law is of --compute", where="--law", help="--compute=1e21, for example")
    for flag, example in (("config", "t5/base"), ("topology", "v5e:4x4")):
        if FLAGS[flag].value is None:
            raise UserError(
                f"--{flag} is missing", where=f"--{flag}", help=f"--{flag}={example}, for example"
            )
    from t5x_like.planning import environment, topologies

    topology = topologies.parse(_TOPOLOGY.value or "")
    if topology.chip.platform == "tpu" and not _FORMULA.value:
        environment.check(topology)
        if environment.IN_CHILD not in os.environ:
            return environment.in_child(sys.argv[1:])
    environment.prepare(topology)
    from t5x_like import config
    from t5x_like.planning import compiling, plans, suggestions

    run = config.load(_CONFIG.value or "", _SET.value)
    store = compiling.open_store(Path(_PROGRAMS.value)) if _PROGRAMS.value else None
    if _SUGGEST.value:
        found = suggestions.suggest(run, topology, formula=_FORMULA.value, store=store)
        print(json.dumps(found.data(), indent=2) if _JSON.value else suggestions.describe(found))
        return 0
    plan = plans.make_plan(run, topology, formula=_FORMULA.value, store=store)
    print(json.dumps(plan.data(), indent=2) if _JSON.value else plans.describe(plan))
    return 0


def _scaling(flops: float) -> int:
    from t5x_like.planning import scaling

    if not LEAST <= flops <= MOST:
        raise UserError(
            f"--compute is {flops:g}; the laws are asked about {LEAST:g} to {MOST:g} training FLOPs",
            where="--compute",
            help="--compute=1e21, for example",
        )
    found = scaling.data(flops, _LAW.value)  # type: ignore[arg-type]
    print(json.dumps(found, indent=2) if _JSON.value else scaling.describe(found))
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
