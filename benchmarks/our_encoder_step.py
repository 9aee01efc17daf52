"""Our side of the encoder benchmarks: the train step of `t5x_like.train`, driven by `shape.serve`.

python -m benchmarks.our_encoder_step --model=bert-mini [--weights=DIR]     writes the initial weights there
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

from benchmarks import encoder_shape, shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, choices=list(encoder_shape.SHAPES))
    parser.add_argument("--weights", help="folder for the initial weights, as Hugging Face has them")
    parser.add_argument("--scan", action="store_true", help="scanned layers")
    parser.add_argument("--remat", default="attention", choices=["none", "attention", "full"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()

    import jax

    from t5x_like.data.inputs import Contiguous
    from t5x_like.models.electra import Electra
    from t5x_like.models.encoder import Encoder
    from t5x_like.objectives.masked_lm import MaskedLM
    from t5x_like.objectives.replaced_token_detection import ReplacedTokenDetection
    from t5x_like.training import partitioning, state, step
    from t5x_like.training.optimizers import AdamW
    from t5x_like.training.schedules import Constant

    work = encoder_shape.SHAPES[args.model]
    encoder = Encoder(
        vocab_size=encoder_shape.VOCABULARY,
        hidden_size=work.hidden,
        embedding_size=work.embedding,
        num_layers=work.layers,
        num_heads=work.heads,
        d_ff=4 * work.hidden,
        activation="gelu",
        dropout=encoder_shape.DROPOUT,
        attention_dropout=encoder_shape.DROPOUT,
        pooler="none",
        pair_head=False,
        scan_layers=args.scan,
        remat=args.remat,
        dtype=args.dtype,
    )
    model: Any = encoder
    objective: Any = MaskedLM(
        length=encoder_shape.LENGTH, inputs=Contiguous(), max_predictions=encoder_shape.PREDICTIONS
    )
    if work.generator:
        discriminator = dataclasses.replace(encoder, mlm_head=False, pooler="first")
        model = Electra(encoder=discriminator, generator_hidden=work.generator)
        objective = ReplacedTokenDetection(length=encoder_shape.LENGTH)
    optimizer, schedule = AdamW(weight_decay=0.01), Constant(rate=encoder_shape.LEARNING_RATE)
    mesh = partitioning.Mesh().build()
    train_step = step.make_train_step(model, objective, optimizer, schedule, mesh)
    current = state.create(model, optimizer, schedule, mesh, seed=0)
    batches = [partitioning.shard_batch(features(encoder_shape.batch(work, i)), mesh) for i in range(4)]

    tick = time.perf_counter()
    total, weight = step.make_eval_step(model, objective, mesh)(current.params, batches[0])["cross_entropy"]
    parity = float(total / weight)
    if args.weights:
        from t5x_like.hub.encoders import export_encoder

        export_encoder(model, current.params, args.weights)
    not_counted = time.perf_counter() - tick

    def run(number: int) -> float:
        nonlocal current
        current, sums = train_step(current, batches[number % 4])
        total, weight = sums["cross_entropy"]
        return float(total / weight)

    shapes = {name: value.shape[1:] for name, value in features(encoder_shape.batch(work, 0)).items()}
    shape.serve(
        run,
        what=f"t5x_like, jax {jax.__version__}, {len(jax.devices())} {jax.default_backend()} devices",
        parameters=model.num_params(),
        gflop=3 * work.rows * model.flops(shapes) / 1e9,
        loss_without_dropout=parity,
        not_counted_s=not_counted,
    )


def features(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch of `encoder_shape.batch` under our names."""
    return {
        "encoder_input_tokens": made["tokens"],
        "encoder_token_types": np.zeros_like(made["tokens"]),
        "masked_positions": made["positions"],
        "masked_targets": made["targets"],
        "masked_weights": np.ones(made["positions"].shape, np.float32),
    }


if __name__ == "__main__":
    main()
