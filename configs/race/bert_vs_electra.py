"""Does ELECTRA learn faster than BERT at equal compute? The claim of its paper, at the scale of a desk.

Paper: Clark et al. 2020, arXiv:2003.10555, figures 2 and 4 and section 3.4.
Command: python -m benchmarks.labelled_tasks data/tasks
         python -m t5x_like.prepare --input=embedded,data/tasks/text/ --output=data/race --model_type=wordpiece \\
             --lowercase --vocab_size=1024
         python -m t5x_like.race --config=race/bert_vs_electra --data=data/race --tasks=data/tasks \\
             --workdir=races/bert-vs-electra
Hardware: a CPU core.
Expected: the paper's ELECTRA-Small is 4.8 points of GLUE above its BERT-Small at equal compute.
Measured here: docs/race-bert-electra/.

Both have one encoder (ELECTRA's discriminator is BERT), one text, one optimizer, one learning rate and one input
format, as the paper's BERT-Small and ELECTRA-Small have. ELECTRA's two networks are one (paper section 3.2), without
which its discriminator stays at its base rate at this scale. To add a contestant, add a line to `config`.

What differs from the publication, for both alike, is what lets models of this size learn anything at all from some
million tokens: rows of 24 places and a vocabulary of 1,024 pieces (with 64 places and 8,192 pieces both stayed for
8 million tokens where all that is used of a row is the hidden token itself, where it shows), wider initial values (0.05
for 0.02) and sinusoids for positions, a quarter of the tokens hidden (as in ELECTRA-Large), a shorter memory of the
squared gradients (b2 0.98, RoBERTa's), no dropout, a higher learning rate.
"""

from __future__ import annotations

import dataclasses

from t5x_like.data.inputs import ElectraPairs
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.t5 import T5
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.race_plan import Contestant, Race
from t5x_like.tasks.recipe import FineTune
from t5x_like.training.optimizers import Adafactor, AdamW
from t5x_like.training.run import Evaluation, Run
from t5x_like.training.schedules import Linear

LENGTH = 24
POSITIONS = 48  # room for longer rows in fine-tuning: --set=finetune.length=48
VOCABULARY = 1024
MASKED = 0.25
ENCODER = Encoder(
    vocab_size=VOCABULARY,
    hidden_size=128,
    num_layers=2,
    num_heads=2,
    d_ff=512,
    max_positions=POSITIONS,
    activation="gelu",
    pooler="first",
    dropout=0.0,
    attention_dropout=0.0,
    stddev=0.05,
    position_init="sinusoid",
    mlm_head=False,
    pair_head=False,
    scan_layers=False,
)


def _run(name: str, model: Encoder | Electra, objective: MaskedLM | ReplacedTokenDetection) -> Run:
    """What all contestants share. Steps, seed, data and points are the race's to set."""
    return Run(
        name=name,
        model=model,
        objective=objective,
        batch_size=48,
        steps=1,
        optimizer=AdamW(eps=1e-6, b2=0.98, bias_correction=False),
        schedule=Linear(peak=2e-3, warmup=100),
        clip_global_norm=1.0,
        evaluation=Evaluation(batches=20),
        log_every=50,
    )


def bert() -> Run:
    """Masked language modelling, without next sentence prediction, as the paper's BERT-Small."""
    objective = MaskedLM(length=LENGTH, mask_rate=MASKED, inputs=ElectraPairs())
    return _run("bert", dataclasses.replace(ENCODER, mlm_head=True), objective)


def electra() -> Run:
    """Replaced token detection by one network in both roles (paper section 3.2, "all"). Detection weighs 10, not 50, so
    that it does not drown the generator's gradients in what they share."""
    objective = ReplacedTokenDetection(
        length=LENGTH, mask_rate=MASKED, inputs=ElectraPairs(), detection_weight=10.0
    )
    return _run("electra", Electra(encoder=ENCODER, generator_hidden=1.0, sharing="all"), objective)


def config() -> Race:
    """The race."""
    return Race(
        name="BERT and ELECTRA at equal compute",
        contestants=(
            Contestant(name="bert", run=bert()),
            Contestant(name="electra", run=electra()),
        ),
        budget=5e13,
        points=4,
        seeds=(0, 1),
        tasks=("rotten_tomatoes", "conll2003_ner"),
        # One rate for both, that of narrow encoders, and ELECTRA's layer-wise decay for neither.
        finetune=FineTune(
            epochs=3.0,
            batch_size=32,
            learning_rate=3e-4,
            layer_decay=1.0,
            length=LENGTH,
            max_examples=2000,
            seeds=(0, 1),
        ),
        probes=("rotten_tomatoes", "sentiment_regression", "bbc_topics"),
        probe_examples=2000,
    )


def t5() -> Run:
    """A T5 of about that size, by span corruption. Its token dataset needs sentinels: prepare the same text with
    --vocab_size=1024 and no --model_type, and name it by --set=contestants.2.run.data.sources=DIR."""
    model = T5(
        vocab_size=VOCABULARY,
        d_model=128,
        d_kv=64,
        num_heads=2,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=1,
        dropout=0.1,
        dropout_broadcast=False,
        scan_layers=False,
    )
    objective = SpanCorruption(inputs_length=LENGTH)
    return dataclasses.replace(
        bert(),
        name="t5",
        model=model,
        objective=objective,
        optimizer=Adafactor(),
        schedule=Linear(peak=0.02, warmup=200),
    )


def with_t5() -> Race:
    """The race with a third contestant, without the tagging of entities, for which T5 has no format."""
    race = config()
    contestants = (*race.contestants, Contestant(name="t5", run=t5()))
    return dataclasses.replace(race, contestants=contestants, tasks=("rotten_tomatoes",))


def tiny() -> Race:
    """The same on a model that trains in a blink: for tests and for trying things out."""
    small = dataclasses.replace(ENCODER, vocab_size=512, hidden_size=32, num_layers=2, num_heads=2, d_ff=64)

    def shrunk(run: Run) -> Run:
        model = run.model
        if isinstance(model, Electra):
            model = dataclasses.replace(model, encoder=small)
        else:
            model = dataclasses.replace(small, mlm_head=True)
        return dataclasses.replace(run, model=model, batch_size=8, schedule=Linear(peak=1e-3, warmup=1))

    return dataclasses.replace(
        config(),
        name="a tiny race",
        contestants=tuple(
            dataclasses.replace(contestant, run=shrunk(contestant.run)) for contestant in config().contestants
        ),
        budget=2e9,
        points=2,
        seeds=(0,),
        tasks=("rotten_tomatoes",),
        finetune=FineTune(epochs=1.0, batch_size=8, length=LENGTH, seeds=(0,)),
        probes=("rotten_tomatoes",),
        probe_seeds=(0,),
    )
