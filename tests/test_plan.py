"""The command: what it prints of a tiny run on simulated devices, its JSON, and how it refuses."""

import json
import os
import subprocess
import sys

import pytest

from t5x_like.planning import plans, suggestions, topologies
from t5x_like.planning.compiling import needed_bytes


def command(*flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", "t5x_like.plan", *flags],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """One compilation for all: kept by the first, taken from the folder by the second."""
    store = tmp_path_factory.mktemp("programs")
    flags = ["--config=t5/small:debug", "--topology=cpu:8", f"--programs={store}"]
    flags += ["--set=mesh.fsdp=2", "--set=mesh.tensor=2", "--set=microbatches=2", "--set=model.remat=full"]
    return command(*flags), command(*flags, "--json"), store


@pytest.mark.slow
def test_a_plan_from_the_compiled_program(planned):
    words, data, store = planned
    assert words.returncode == data.returncode == 0, words.stderr + data.stderr
    assert len(list(store.iterdir())) == 1
    plan = json.loads(data.stdout)
    (stage,) = plan["stages"]
    assert stage["how"] == "compiled" and stage["fits"] and plan["fits"]
    assert plan["mesh"]["fsdp"] == plan["mesh"]["tensor"] == 2 and plan["devices"] == 8
    memory = stage["memory"]
    assert list(memory) == ["parameters", "optimizer", "batch", "activations", "temporaries", "program"]
    assert stage["needed"] == sum(memory.values())
    assert min(memory.values()) >= 0
    # 4,310,016 parameters in float32, a quarter of nearly each on a device.
    assert 4_310_016 <= memory["parameters"] < 1.1 * 4_310_016
    # Whole layers are computed again: at least the products of both stacks, 4/3 without the head.
    ratio = stage["flops"] * 8 / stage["model_flops"]
    assert 1.0 < ratio < 4 / 3
    assert {"all-gather", "all-reduce"} <= set(stage["traffic"])
    assert stage["unknown_loops"] == 0
    assert stage["tokens"] == 8 * (64 + 14)
    times = stage["times"]
    assert times["step"] == pytest.approx(times["device"] + times["exposed"])
    assert plan["days"] == pytest.approx(20 * times["step"] / 86400)
    assert stage["tokens_per_day"] == pytest.approx(stage["tokens"] * 86400 / times["step"])
    for part in (
        "parameters",
        "activations",
        "all-gather",
        "operations a byte",
        "MFU",
        "tokens a day",
        "fits",
    ):
        assert part in words.stdout
    assert "20 steps:" in words.stdout


def test_a_plan_of_gpus_is_by_formula_and_says_so():
    done = command("--config=t5/base", "--topology=h100:8", "--set=microbatches=8")
    assert done.returncode == 0, done.stderr
    assert "by formula, nothing was compiled: an estimate" in done.stdout


@pytest.mark.slow
def test_the_formula_is_near_the_compiled_program(planned):
    """Parameters and optimizer exactly. Activations of this model are its logits: JAX keeps them and their softmax, of
    which XLA makes one again."""
    stage = json.loads(planned[1].stdout)["stages"][0]
    from t5x_like import config

    run = config.load(
        "t5/small:debug", ["mesh.fsdp=2", "mesh.tensor=2", "microbatches=2", "model.remat=full"]
    )
    guess = plans.make_plan(run, topologies.parse("cpu:8"), formula=True).stages[0]
    assert guess.how == "formula"
    for kind in ("parameters", "optimizer"):
        assert guess.memory[kind] == stage["memory"][kind]
    assert 1 <= guess.memory["activations"] / stage["memory"]["activations"] < 2.5


def test_phases_are_planned_each():
    from t5x_like import config

    plan = plans.make_plan(config.load("bert/large"), topologies.parse("h100:8"))
    assert [(s.start, s.stop) for s in plan.stages] == [(0, 900_000), (900_000, 1_000_000)]
    assert plan.stages[1].tokens == 4 * plan.stages[0].tokens
    assert plan.days == pytest.approx(sum(s.times.step * (s.stop - s.start) for s in plan.stages) / 86400)
    assert "steps 900,000 to 1,000,000" in plans.describe(plan)


def test_what_makes_a_run_fit():
    from t5x_like import config

    run = config.load("t5/base", ["model.dtype=bfloat16"])
    topology = topologies.parse("h100:8")
    asked = plans.make_plan(run, topology)
    assert not asked.fits and "--suggest looks for settings" in plans.describe(asked)
    found = suggestions.suggest(run, topology)
    assert found.chosen is not None
    best, plan = found.chosen
    assert plan.fits and "batch_size" not in best.changes
    assert found.asked.needed > topology.chip.memory
    assert found.alone["accumulation"] is not None and found.alone["fsdp"] is None
    text = suggestions.describe(found)
    assert f"suggested: {best.flags}" in text and "accumulation" in text
    # What is suggested can be given to a plan, or to training, as it stands.
    again = config.load("t5/base", ["model.dtype=bfloat16", *best.flags.replace("--set=", "").split()])
    assert plans.make_plan(again, topology).fits


def test_a_run_that_fits_is_left_as_it_is():
    from t5x_like import config

    found = suggestions.suggest(config.load("t5/small:debug"), topologies.parse("h100:8"))
    assert found.chosen is not None and found.chosen[0].changes == {}
    text = suggestions.describe(found)
    assert "it fits as it is" in text and "by itself" not in text


def test_the_smallest_batch_is_the_last_resort():
    from t5x_like import config
    from t5x_like.errors import UserError

    run = config.load("t5/11b:v1_0")
    with pytest.raises(UserError, match="nothing was found that fits h100:1") as refusal:
        suggestions.suggest(run, topologies.parse("h100:1"))
    assert "more chips" in (refusal.value.help or "")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--topology=cpu:8"], "--config is missing"),
        (["--config=t5/base"], "--topology is missing"),
        (["--config=t5/base", "--topology=v5e:4x5"], "the nearest that there is: v5e:4x4"),
        (["--config=t5/basse", "--topology=h100:8"], "did you mean t5/base?"),
        (["--config=t5/base", "--topology=h100:8", "--set=mesh.fsdp=3"], "the nearest that does"),
        (["--config=t5/base", "--topology=h100:8", "--set=batch_size=12"], "the nearest that does"),
        (
            [
                "--config=bert/base",
                "--topology=h100:8",
                "--set=mesh.sequence=8",
                "--set=objective.length=100",
            ],
            "lengths that do: 96 or 104",
        ),
        (["--compute=1e21", "--config=t5/base"], "leave --config out"),
        (["--compute=1e21", "--suggest"], "leave --suggest out"),
        (["--compute=inf"], "1e+12 to 1e+30"),
        (["--compute=nan"], "1e+12 to 1e+30"),
        (["--compute=-1"], "--compute is -1;"),
        (["--law=kaplan", "--config=t5/base", "--topology=h100:8"], "--law is of --compute"),
        (["--config=t5/base", "--topology=h100:8", "--set=mesh.slices=3"], "mesh.slices=2"),
        (["--config=t5/base", "--topology=v5e:4x4*2", "--formula", "--set=mesh.slices=4"], "lie in 2"),
        (["--config=t5/base", "--topology=h100:8", f"--programs={__file__}"], "cannot be kept here"),
    ],
)
def test_mistakes_are_told(flags, complaint, capsys):
    from t5x_like import plan
    from t5x_like.errors import UserError

    plan.FLAGS.unparse_flags()
    plan.FLAGS(["x", *flags])
    try:
        with pytest.raises(UserError) as refusal:
            plan.main([])
    finally:
        for name in plan.FLAGS:
            plan.FLAGS[name].unparse()
    assert complaint in str(refusal.value)


def test_what_a_tpu_compiler_says_it_needs():
    for message, needed in (
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (122.50G) "
            "exceeds available HBM (15.75G).",
            122.5 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 16.00G "
            "of 15.75G hbm. Exceeded hbm capacity by 256.00M.",
            16 * 2**30,
        ),
    ):
        assert needed_bytes(message) == needed
    assert needed_bytes("INTERNAL: something else") is None


def test_budgets():
    done = command("--compute=1e21", "--law=chinchilla", "--json")
    assert done.returncode == 0, done.stderr
    laws = json.loads(done.stdout)["laws"]
    assert len(laws) == 5 and all(law["source"] for law in laws)
