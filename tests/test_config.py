"""Every shipped configuration, and what is refused before anything is compiled."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest

from t5x_like import config, typed
from t5x_like.data.example import Vocabulary
from t5x_like.errors import UserError
from t5x_like.training import restore

PUBLISHED = {  # t5x/examples/t5 and the paper, appendix; counts as in the specs of tests/models
    "t5/small:v1_0": 60_506_624,
    "t5/base:v1_0": 222_903_552,
    "t5/large:v1_0": 737_668_096,
    "t5/3b:v1_0": 2_851_598_336,
    "t5/11b:v1_0": 11_307_321_344,
    "t5/small:v1_1": 76_961_152,
    "t5/base:v1_1": 247_577_856,
    "t5/large:v1_1": 783_150_080,
    "t5/3b:v1_1": 2_849_757_184,
    "t5/11b:v1_1": 11_135_332_352,
}


@pytest.mark.parametrize("name", config.names())
def test_shipped_configurations_are_valid_and_survive_json(name: str) -> None:
    run = config.load(name)
    assert config.from_json(config.to_json(run)) == run
    assert config.describe(run)


@pytest.mark.parametrize("name, parameters", PUBLISHED.items())
def test_published_sizes(name: str, parameters: int) -> None:
    run = config.load(name)
    assert run.model.num_params() == parameters
    assert run.model.dropout == (0.1 if "1_0" in name else 0.0)
    assert (run.batch_size, run.steps, run.objective.window_length()) == (2048, 1_000_000, 568)


@pytest.mark.parametrize("name", [n for n in config.names() if n.startswith("t5/")])
def test_objectives_fit_the_published_tokenizer(name: str) -> None:
    run = config.load(name)
    sentinels = tuple(32099 - i for i in range(100))
    model = dataclasses.replace(run.model, vocab_size=32128)
    run.objective.check(model, Vocabulary(size=32100, sentinels=sentinels))


def test_the_command_line_of_the_readme() -> None:
    run = config.load("t5/small:tiny", ["model.num_layers=2", "optimizer=AdamW", "schedule=Cosine"])
    assert run.model.num_layers == 2
    assert type(run.optimizer).__name__ == "AdamW"


def typos(word: str, rng: random.Random) -> str:
    """One slip of the finger: two letters swapped, one dropped, one doubled, or one wrong."""
    i = rng.randrange(len(word) - 1)
    slip = rng.randrange(4)
    if slip == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if slip == 1:
        return word[:i] + word[i + 1 :]
    if slip == 2:
        return word[:i] + word[i] + word[i:]
    return word[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz_") + word[i + 1 :]


def test_a_typo_in_any_key_is_refused_with_the_right_key() -> None:
    """U3: 100 sampled typos, all rejected before anything is compiled, at least 90 with the right suggestion."""
    run = config.load("t5/tiny")
    paths = [path for path, _ in typed.leaves(run) if len(path.rpartition(".")[2]) >= 4]
    rng = random.Random(0)
    right = tried = 0
    while tried < 100:
        path = rng.choice(paths)
        head, dot, last = path.rpartition(".")
        wrong = head + dot + typos(last, rng)
        if wrong in dict(typed.leaves(run)):
            continue  # the slip wrote the same word, or another key
        tried += 1
        with pytest.raises(UserError) as e:
            config.load("t5/tiny", [f"{wrong}=1"])
        right += f"did you mean {path}?" in str(e.value)
    assert right >= 90, f"{right} of 100 suggestions were right"


@pytest.mark.parametrize(
    "name, overrides, says",
    [
        ("t5/smal", [], "did you mean t5/small?"),
        ("t5/small:tinny", [], "did you mean t5/small:tiny?"),
        ("nowhere.py:f", [], "no file nowhere.py"),
        ("t5/tiny", ["batch_size=0"], "batch_size is 0; it must be at least 1"),
        ("t5/tiny", ["batch_size=30", "microbatches=4"], "microbatches=3"),
        ("t5/tiny", ["model.d_model=abc"], "model.d_model wants a whole number, not 'abc'"),
        ("t5/tiny", ["objective.noise_density=1.5"], "noise_density"),
        ("t5/tiny", ["objective.targets_length=5"], "targets_length"),
        ("t5/tiny", ["optimizer=Adam"], "did you mean AdamW?"),
        ("t5/tiny", ["clip_global_norm=-1"], "clip_global_norm must be positive"),
        ("t5/tiny", ["model.dropout=2"], "dropout"),
        ("t5/tiny", ["model.d_model=1e9"], "must be at most 16,777,216"),
        ("t5/tiny", ["model.num_layers=1e6"], "must be at most 1,024"),
        ("t5/tiny", ["objective.targets_length=1e12"], "targets_length is 1,000,000,000,000"),
        ("t5/tiny", ['optimizer={"type": "Optax", "name": "lamb", "arguments": {"b1": "x"}}'], "optax.lamb"),
        (
            "t5/tiny",
            ['optimizer={"type": "Optax", "name": "lion", "arguments": {"bb": 1}}'],
            "no argument 'bb'",
        ),
        ("t5/tiny", ["model.num_heads=0"], "num_heads"),
        ("t5/tiny", ["microbatches=1e15"], "does not divide"),
        ("t5/tiny", ["objective.inputs_length=1e30"], "objective.inputs_length is 1e+30"),
        ("t5/tiny", ["clip_global_norm=nan"], "clip_global_norm is nan"),
        ("t5/tiny", ["optimizer.epsilon=inf"], "optimizer.epsilon is inf"),
        ("t5/tiny", ["data.sources=a\0b"], "NUL"),
        ("t5/tiny", ["data.sources=" + "[" * 100_000], "too deep"),
    ],
)
def test_impossible_configurations(name: str, overrides: list[str], says: str) -> None:
    with pytest.raises(UserError) as e:
        config.load(name, overrides)
    assert says in str(e.value)


def test_a_configuration_file_of_ones_own(tmp_path: Path) -> None:
    good = tmp_path / "mine.py"
    good.write_text(
        "import dataclasses\nfrom configs.t5 import tiny\nfrom t5x_like.config import Run\n"
        "def config() -> Run:\n    return dataclasses.replace(tiny.config(), name='mine', steps=3)\n"
    )
    assert config.load(str(good)).name == "mine"
    for line, says in [
        ("    return dataclasses.replace(tiny.config(), stesp=3)", "stesp"),
        ("    return dataclasses.replace(tiny.config(), steps='3')", "steps wants a whole number"),
        ("    return nothing", "nothing"),
        ("    return (", "never closed"),
    ]:
        bad = tmp_path / "bad.py"
        bad.write_text(good.read_text().rpartition("\n    return")[0] + "\n" + line + "\n")
        with pytest.raises(UserError) as e:
            config.load(str(bad))
        assert says in str(e.value)
    bad.write_text(good.read_text().replace(" -> Run", ""))
    with pytest.raises(UserError) as e:
        config.load(str(bad))
    assert e.value.help == "it has to say what it returns: def config() -> Run"


def test_a_saved_run_is_loaded_from_its_directory(tmp_path: Path) -> None:
    run = dataclasses.replace(config.load("t5/tiny"), seed=7)
    (tmp_path / "config.json").write_text(config.to_json(run))
    assert config.load(str(tmp_path)) == config.load(str(tmp_path / "config.json")) == run
    (tmp_path / "config.json").write_text(config.to_json(run).replace('"seed": 7', '"sead": 7'))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="cannot read the configuration"):
        restore.open_run(tmp_path / "other")
    with pytest.raises(UserError, match="sead") as e:
        config.load(str(tmp_path))
    assert "did you mean seed?" in str(e.value) and "config.json" in str(e.value)


def test_diff_of_two_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "t5x_like.diff", "--a=t5/tiny", "--b=t5/tiny:v1_0"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert "model.dropout: 0.0 -> 0.1" in out.stdout and "model.gated: True -> False" in out.stdout
