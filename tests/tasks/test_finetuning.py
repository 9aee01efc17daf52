"""Fine-tuning end to end on tasks that are easy to learn; several seeds, resuming, what is left on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
import tiny_dataset
import tiny_tasks

from t5x_like import finetune
from t5x_like.errors import Exit, UserError
from t5x_like.models.t5 import T5
from t5x_like.tasks import finetuning, pretrained, reading, recipe, saved
from t5x_like.tasks.definitions import Task
from t5x_like.tasks.recipe import FineTune
from t5x_like.training.layerwise import LayerWise
from t5x_like.training.partitioning import Mesh
from t5x_like.training.run_dir import open_for_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneDevice(Mesh):
    """Compiles faster than a program for the eight devices of the tests."""

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        return super().build(jax.devices()[:1])


FAST = FineTune(
    epochs=15,
    batch_size=32,
    learning_rate=1.5e-3,
    dropout=0.0,
    length=64,
    evaluate_every=54,
    mesh=OneDevice(),
)
RANDOM = pretrained.of(
    tiny_tasks.ENCODER, tiny_tasks.params(tiny_tasks.ENCODER), tiny_tasks.tokenizer(), "random numbers"
)


def quiet(line: str) -> None:
    del line


def fit(task: Task, tmp_path, output=None, start=RANDOM, **change):
    data = tiny_tasks.write(tmp_path / "data", task)
    config = dataclasses.replace(FAST, task=task.name, data=str(data), **change)
    return finetuning.finetune(config, start, task=task, output=output, say=quiet)


SLOW = (tiny_tasks.REGRESSION, tiny_tasks.CHOICE)


@pytest.mark.parametrize(
    "task",
    [pytest.param(t, marks=pytest.mark.slow) if t in SLOW else t for t in tiny_tasks.TASKS[2:]],
    ids=lambda task: task.name,
)
def test_learns(task, tmp_path):
    result = fit(task, tmp_path)
    assert result.split == "test"
    assert result.median > 0.85, result


def test_seeds_are_kept_and_the_best_is_saved(tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    task = tiny_tasks.CLASSIFICATION
    first = fit(task, tmp_path, output, seeds=(0, 1))
    assert first.median > 0.9 and first.seeds[0].curve != first.seeds[1].curve
    results = json.loads((output / "results.json").read_text())
    assert results["summary"]["accuracy"]["median"] == first.median
    assert [seed["seed"] for seed in results["seeds"]] == [0, 1]

    # A third seed is added; the finished ones are not run again, and what runs is as it would have been.
    ran, run = [], finetuning.Job.run
    monkeypatch.setattr(finetuning.Job, "run", lambda job, seed: (ran.append(seed), run(job, seed))[1])
    more = fit(task, tmp_path, output, seeds=(0, 1, 2))
    assert ran == [2] and more.seeds[:2] == first.seeds
    alone = fit(task, tmp_path, seeds=(2,))
    assert alone.seeds[0].curve == more.seeds[2].curve

    with open_for_training(output), pytest.raises(UserError, match="another process works in") as caught:
        fit(task, tmp_path, output, seeds=(0, 1, 2))
    assert caught.value.code == Exit.LOCKED
    with pytest.raises(UserError, match="holds a fine-tuning with epochs 15, not 5"):
        fit(task, tmp_path, output, epochs=5)
    other = dataclasses.replace(task, metrics=("macro_f1",))
    config = dataclasses.replace(FAST, task=task.name, data=str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"definition.metrics \['accuracy', 'matthews'\], not \['macro_f1'\]"):
        finetuning.finetune(config, RANDOM, task=other, output=output, say=quiet)

    # The saved model says of the test split what the best seed said.
    fitted = saved.load(output)
    best = max(more.seeds, key=lambda seed: seed.validation["accuracy"])
    examples = reading.read_split(task, tmp_path / "data", "test")
    assert examples is not None
    fitting = fitted.layout.fitting(fitted.tokenizer)
    found = fitting.predict(fitted.params, examples, fitting.rows(examples), 32)
    assert np.mean([p.value == e.label for p, e in zip(found, examples)]) == best.test["accuracy"]
    lines = (output / "predictions-test.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [task.labels[p.value] for p in found]

    # The command predicts with it, without labels too.
    (tmp_path / "new.jsonl").write_text(
        '{"id": "x", "text": "the film was lovely"}\n{"text": "a dull story"}\n'
    )
    finetune.predict(output, tmp_path / "new.jsonl", "-")
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prediction"] for row in shown] == ["positive", "negative"] and shown[0]["id"] == "x"

    # It goes to Hugging Face's layout and comes back.
    finetune.export(output, str(tmp_path / "hf"))
    there = pretrained.load(str(tmp_path / "hf"))
    assert there.model.num_layers == 2 and there.tokenizer.vocabulary == fitted.tokenizer.vocabulary
    with pytest.raises(UserError, match="no fine-tuned model here"):
        finetune.export(tmp_path, str(tmp_path / "hf2"))

    # Another fine-tuning may begin where this one ended.
    again = pretrained.load(str(output))
    assert again.style == "bert"
    jax.tree.map(np.testing.assert_array_equal, again.params, fitted.params["encoder"])


def test_weights_that_are_not_finite_give_no_result(tmp_path):
    start = dataclasses.replace(RANDOM, params=jax.tree.map(lambda x: np.full_like(x, np.nan), RANDOM.params))
    with pytest.raises(UserError, match="none of the 108 updates of seed 0 was finite") as refused:
        fit(tiny_tasks.CLASSIFICATION, tmp_path, tmp_path / "out", start)
    assert refused.value.code == Exit.INTERNAL and not (tmp_path / "out" / "model").exists()


def test_one_program_serves_all_seeds(tmp_path):
    made = []
    original = finetuning.make_train_step

    def counting(*args, **kwargs):
        made.append(1)
        return original(*args, **kwargs)

    finetuning._train_step.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "make_train_step", counting)
        data = tiny_tasks.write(tmp_path / "data", tiny_tasks.CLASSIFICATION)
        config = dataclasses.replace(FAST, data=str(data))
        task, splits = reading.read_splits(tiny_tasks.CLASSIFICATION, data)
        jobs = [finetuning.Job(config, RANDOM, task, splits, "accuracy", quiet) for _ in range(2)]
    assert len(made) == 1 and jobs[0].step is jobs[1].step


def test_batches_are_a_function_of_seed_and_step(tmp_path):
    data = tiny_tasks.write(tmp_path / "data", tiny_tasks.CLASSIFICATION, train=40)
    config = dataclasses.replace(FAST, data=str(data), batch_size=9)
    task, splits = reading.read_splits(tiny_tasks.CLASSIFICATION, data)
    job = finetuning.Job(config, RANDOM, task, splits, "accuracy", quiet)
    rows = job.rows["train"].arrays["encoder_input_tokens"]
    assert len(rows) == 36
    seen = np.concatenate([job.batch(3, step)["encoder_input_tokens"] for step in range(8)])
    for epoch in (seen[:36], seen[36:]):
        assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, rows.tolist()))
    assert (seen[:36] != seen[36:]).any()
    assert (job.batch(3, 1)["encoder_input_tokens"] == seen[9:18]).all()
    assert (job.batch(4, 1)["encoder_input_tokens"] != seen[9:18]).any()


@pytest.mark.slow
def test_t5_learns_as_text_to_text(tmp_path):
    """With the label words of the task; what it says is read back."""
    tokenizer = tiny_dataset.tokenizer()
    model = T5(
        vocab_size=256,
        d_model=32,
        d_kv=16,
        num_heads=2,
        d_ff=64,
        num_layers=1,
        scan_layers=False,
        tie_embeddings=True,
    )
    start = pretrained.of(model, tiny_tasks.params(model), tokenizer, "random numbers")
    task = dataclasses.replace(tiny_tasks.CLASSIFICATION, labels=("rain", "ship"))
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 256), ("test", 64)):
        sides = rng.integers(2, size=count)
        words = [" ".join([*rng.choice(["the", "old", "near"], 4), ("whale", "gulls")[s]]) for s in sides]
        rows = [json.dumps({"text": t, "label": int(s)}) + "\n" for t, s in zip(words, sides)]
        (folder / f"{name}.jsonl").write_text("".join(rows))
    config = dataclasses.replace(FAST, data=str(folder), learning_rate=1e-2, epochs=20)
    result = finetuning.finetune(config, start, task=task, output=tmp_path / "out", say=quiet)
    assert result.median > 0.9
    assert json.loads((tmp_path / "out" / "predictions-test.jsonl").read_text().splitlines()[0])[
        "prediction"
    ] in (
        "rain",
        "ship",
    )


# ---- recipes and refusals ------------------------------------------------------------------------


def test_recipes():
    electra = dataclasses.replace(RANDOM, model=dataclasses.replace(tiny_tasks.ENCODER, pooler="first"))
    optimizer, schedule = recipe.recipe(FineTune(), electra, 100)
    assert (
        isinstance(optimizer, LayerWise)
        and optimizer.decay == 0.8
        and not optimizer.optimizer.bias_correction
    )
    assert (schedule.warmup, schedule.steps, schedule.form, schedule.peak) == (10, 100, "electra", 3e-4)
    optimizer, schedule = recipe.recipe(FineTune(layer_decay=0.9), RANDOM, 100)
    assert isinstance(optimizer, LayerWise) and schedule.form == "bert"
    t5 = dataclasses.replace(RANDOM, model=T5())
    optimizer, schedule = recipe.recipe(FineTune(), t5, 100)
    assert type(optimizer).__name__ == "Adafactor" and float(schedule(7)) == np.float32(1e-3)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"length": 65}, "length is 65, and the model has positions for 64"),
        ({"length": 4}, "length is 4; rows of pair have 3 special ids"),
        ({"seeds": (1, 1)}, "each may come once"),
        ({"seeds": (2**31,)}, "each is 0 to 2147483647"),
        ({"seeds": tuple(range(1001))}, "it must be 1 to 1000 numbers"),
        ({"metric": "accurcy"}, "pair is not judged by 'accurcy'"),
        ({"epochs": 0}, "epochs is 0; it must be positive"),
        ({"warmup": 2.0}, "warmup is 2.0"),
        ({"stride": 0}, "stride is 0; it must be at least 1"),
        ({"stride": 8}, "stride is for an encoder's windows"),
    ],
)
def test_refusals(tmp_path, change, told):
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        fit(tiny_tasks.PAIR, tmp_path, **change)


def test_windows_of_a_context_are_settings(tmp_path):
    with pytest.raises(UserError, match="stride is 60, and a window of a context 46 tokens"):
        fit(tiny_tasks.SPAN, tmp_path, stride=60)
    data = tiny_tasks.write(tmp_path / "data", tiny_tasks.SPAN, train=8, test=2)
    task, splits = reading.read_splits(tiny_tasks.SPAN, data)
    config = dataclasses.replace(FAST, data=str(data), length=16, stride=2, question_length=4)
    job = finetuning.Job(config, RANDOM, task, splits, "f1", quiet)
    windows = job.rows["train"].windows
    assert windows is not None and windows.offset[:3].tolist() == [0, 2, 4]


def test_models_that_do_not_fit():
    tokenizer = tiny_tasks.tokenizer()
    small = dataclasses.replace(tiny_tasks.ENCODER, vocab_size=20)
    with pytest.raises(UserError, match=f"the tokenizer has {tokenizer.vocabulary.size} ids .* for 20"):
        pretrained.of(small, None, tokenizer, "here")
    large = dataclasses.replace(tiny_tasks.ENCODER, vocab_size=tokenizer.vocabulary.size + 256)
    with pytest.raises(UserError, match=f"{tokenizer.vocabulary.size} ids .* for {large.vocab_size}"):
        pretrained.of(large, {}, tokenizer, "here")
    assert pretrained.of(large, {}, tokenizer, "here", tokenizer.fingerprint).model == large
    padded = dataclasses.replace(large, vocab_size=large.vocab_size - 1)
    assert pretrained.of(padded, {}, tokenizer, "here").model == padded
    with pytest.raises(UserError, match=f"{tokenizer.fingerprint} .* trained with {'e' * 32}"):
        pretrained.of(tiny_tasks.ENCODER, {}, tokenizer, "here", "e" * 32)
    other = dataclasses.replace(tiny_tasks.ENCODER, pad_id=1)
    with pytest.raises(UserError, match="pads with id 0, and the model with 1"):
        pretrained.of(other, None, tokenizer, "here")


def test_t5_refuses_tags(tmp_path):
    start = pretrained.of(T5(vocab_size=256), None, tiny_dataset.tokenizer(), "here")
    with pytest.raises(UserError, match="no text-to-text format"):
        fit(tiny_tasks.TAGGING, tmp_path, start=start)


@pytest.mark.parametrize("text, seeds", [("3", (0, 1, 2)), ("0,7", (0, 7)), ("5,", (5,))])
def test_seeds(text, seeds):
    assert finetune.read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "00", "²", "-1", "1001", "99999999999", "9" * 5000, "", "a"])
def test_seeds_that_cannot_be(text):
    with pytest.raises(UserError, match="seeds"):
        finetune.read_seeds(text)


def test_output_is_a_folder_of_its_own(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="directory of a training run"):
        finetuning.finetune(FineTune(init="hf"), output=tmp_path / "run")
    with pytest.raises(UserError, match="output is the directory to start from"):
        finetuning.finetune(FineTune(init=str(tmp_path / "run" / "..")), output=tmp_path)


@pytest.fixture
def flags():
    yield finetune.FLAGS
    finetune.FLAGS.unparse_flags()
    for name in finetune.FLAGS:
        finetune.FLAGS[name].unparse()


def test_a_task_of_flags(flags):
    flags(["finetune", "--kind=classification", "--text_columns=title,body", "--label_column=topic"])
    task = finetune.task_of("topics")
    assert (task.text, task.label, task.labels) == (("title", "body"), "topic", ())
    assert task.metrics == ("accuracy", "macro_f1", "matthews")


def test_flags_of_a_task_of_ones_own_need_its_kind(flags):
    flags(["finetune", "--label_column=topic"])
    with pytest.raises(UserError, match="--label_column describes a task of your own, and cola has its own"):
        finetune.task_of("cola")


def test_more_than_can_be_counted():
    with pytest.raises(UserError, match=r"epochs is 1e\+30: over 40 rows these are 1.25e\+30 steps"):
        recipe.steps_of(FineTune(epochs=1e30), 40)
    with pytest.raises(UserError, match="batch_size is 100000000000; it must be 1 to 1,048,576"):
        recipe.check(FineTune(batch_size=10**11))


def test_an_unknown_kind(flags):
    flags(["finetune", "--kind=classifcation"])
    with pytest.raises(UserError, match="no kind of task 'classifcation'") as refused:
        finetune.task_of("topics")
    assert refused.value.help == "did you mean classification?"


def test_settings(flags):
    flags(
        [
            "finetune",
            "--init=a",
            "--task=cola",
            "--data=b",
            "--seeds=0,7",
            "--set=epochs=2",
            "--set=seeds=1,2",
        ]
    )
    assert finetune.settings() == FineTune(init="a", task="cola", data="b", epochs=2.0, seeds=(1, 2))
    flags(["finetune", "--set=epoch=2", "--init=a", "--task=cola", "--data=b"])
    with pytest.raises(UserError, match="no field 'epoch'"):
        finetune.settings()


def test_known_tasks_are_listed(flags, capsys):
    flags(["finetune", "--list"])
    assert finetune.main([]) == 0
    assert "squad_v2               span            f1, exact_match" in capsys.readouterr().out


def test_the_output_is_needed(flags):
    flags(["finetune", "--init=a"])
    with pytest.raises(UserError, match="--output is missing"):
        finetune.main([])
