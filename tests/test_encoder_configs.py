"""The published recipes of BERT, RoBERTa and ELECTRA, as numbers; their debug overlays train."""

from __future__ import annotations

import dataclasses

import pytest

from t5x_like import config
from t5x_like.data.example import Vocabulary
from t5x_like.data.inputs import ElectraPairs, FullSentences, SegmentPairs
from t5x_like.training.adam import AdamW

# parameters, rows, steps, length, peak, warmup, first of the paper's tables and of the released code
PUBLISHED = {
    "bert/tiny": (4_433_468, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/mini": (11_267_900, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/small": (29_058_876, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/medium": (41_668_412, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/base": (110_106_428, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/base:cased": (108_932_934, 256, 1_000_000, 128, 1e-4, 10_000),
    "bert/large": (336_226_108, 256, 1_000_000, 128, 1e-4, 10_000),
    "roberta/base": (124_697_433, 8192, 500_000, 512, 6e-4, 24_000),
    "roberta/base:fairseq": (124_697_433, 2048, 125_000, 512, 5e-4, 10_000),
    "roberta/large": (355_412_057, 8192, 500_000, 512, 4e-4, 30_000),
    "electra/small": (14_196_219, 128, 1_000_000, 128, 5e-4, 10_000),
    "electra/small:released": (23_122_875, 128, 1_000_000, 128, 5e-4, 10_000),
    "electra/base": (119_386_427, 256, 766_000, 512, 2e-4, 10_000),
    "electra/large": (354_655_291, 2048, 400_000, 512, 2e-4, 10_000),
    "electra/large:longer": (354_655_291, 2048, 1_750_000, 512, 2e-4, 10_000),
    "electra/study:bert_small": (13_546_682, 128, 1_450_000, 128, 5e-4, 10_000),
}
SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
ENCODERS = [n for n in config.names() if n.split("/")[0] in ("bert", "roberta", "electra")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    run = config.load(name)
    found = (
        run.model.num_params(), run.batch_size, run.steps, run.objective.length, run.schedule.peak,
        run.schedule.warmup,
    )  # fmt: skip
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", ENCODERS)
def test_every_configuration_resolves_and_survives_json_and_the_printed_form(name: str) -> None:
    run = config.load(name)
    assert config.from_json(config.to_json(run)) == run
    printed = dict(line.split(" = ", 1) for line in config.describe(run, all_values=True).splitlines())
    assert printed["model"] == type(run.model).__name__ and printed["steps"] == str(run.steps)
    vocabulary = Vocabulary(size=run.model.vocab_size, **SPECIAL | {"pad": run.model.pad_id})
    for _, _, stage in run.stages():
        stage.objective.check(run.model, vocabulary)


def test_bert_is_two_phases_with_berts_optimizer_and_fixed_masks() -> None:
    run = config.load("bert/base")
    (short, longer) = run.stages()
    assert [(a, b, r.objective.length, r.objective.num_predictions) for a, b, r in (short, longer)] == [
        (0, 900_000, 128, 20),
        (900_000, 1_000_000, 512, 77),
    ]
    wanted = AdamW(eps=1e-6, weight_decay=0.01, no_decay=("bias", "norm", "scale"), bias_correction=False)
    assert (run.optimizer, run.clip_global_norm, run.schedule.form) == (wanted, 1.0, "bert")
    assert run.objective.inputs == SegmentPairs(duplicates=10) and run.objective.distinct_epochs == 1
    assert "phases.0.start = 900000" in config.describe(run)
    by_word = config.load("bert/base:whole_words")
    assert [r.objective.unit for _, _, r in by_word.stages()] == ["word", "word"]
    assert config.load("bert/base", ["steps=1000"]).stages()[0][1] == 1000  # a short trial of the recipe


def test_roberta_decays_everything_clips_nothing_and_masks_anew() -> None:
    run = config.load("roberta/base")
    assert run.optimizer == AdamW(b2=0.98, eps=1e-6, no_decay=(), epsilon_hat=True)
    assert (run.clip_global_norm, run.schedule.form, run.objective.inputs) == (
        None,
        "shifted",
        FullSentences(),
    )
    assert (run.objective.mask_specials, run.objective.random_ids, run.objective.fixed_masks) == (
        True,
        "ordinary",
        None,
    )


def test_electra_and_its_ablations() -> None:
    run = config.load("electra/base")
    assert (run.schedule.form, run.clip_global_norm, run.objective.terms) == (
        "electra",
        1.0,
        {"cross_entropy": 1.0, "detection": 50.0},
    )
    assert run.objective.inputs == ElectraPairs() and run.optimizer == config.load("bert/base").optimizer
    assert config.load("electra/large").objective.num_predictions == 130
    tasks = {
        "electra_15": "detection_masked",
        "replace_mlm": "replace_mlm",
        "all_tokens_mlm": "all_tokens_mlm",
    }
    for name, task in tasks.items():
        found = config.load(f"electra/study:{name}")
        assert found.objective.task == task
        assert dataclasses.replace(found.objective, task="detection", detection_weight=50.0) == run.objective
    for sharing in ("none", "embeddings", "all"):
        found = config.load(f"electra/study:sharing_{sharing}")
        assert (found.model.sharing, found.model.generator.hidden_size, found.steps) == (
            sharing,
            768,
            500_000,
        )
    widths = [
        config.load(f"electra/study:generator_{w}").model.generator.hidden_size for w in (64, 128, 256, 512)
    ]
    assert widths == [64, 128, 256, 512]
