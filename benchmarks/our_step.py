"""Our side of the step benchmark: the train step of `t5x_like.train`, driven by `shape.serve`.

python -m benchmarks.our_step [--weights=DIR]     writes the initial weights there for the peer
"""

from __future__ import annotations

import argparse
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="folder for the initial weights, as Hugging Face has them")
    parser.add_argument("--scan", action="store_true", help="scanned layers")
    parser.add_argument("--remat", default="none", choices=["none", "attention", "full"])
    parser.add_argument(
        "--broadcast", action="store_true", help="dropout masks shared along the length, as in T5X"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()

    import jax

    from benchmarks import shape
    from t5x_like.models.t5 import T5
    from t5x_like.objectives.span_corruption import SpanCorruption
    from t5x_like.training import partitioning, state, step
    from t5x_like.training.optimizers import Adafactor
    from t5x_like.training.schedules import Constant

    model = T5(
        vocab_size=shape.VOCABULARY,
        d_model=shape.D_MODEL,
        d_kv=shape.D_KV,
        num_heads=shape.HEADS,
        d_ff=shape.D_FF,
        num_layers=shape.LAYERS,
        dropout=shape.DROPOUT,
        dropout_broadcast=args.broadcast,
        scan_layers=args.scan,
        remat=args.remat,
        dtype=args.dtype,
    )
    objective = SpanCorruption(inputs_length=shape.INPUTS, z_loss=0.0)
    optimizer, schedule = Adafactor(), Constant(rate=shape.LEARNING_RATE)
    mesh = partitioning.Mesh().build()
    train_step = step.make_train_step(model, objective, optimizer, schedule, mesh)
    current = state.create(model, optimizer, schedule, mesh, seed=0)
    batches = [partitioning.shard_batch(features(*shape.batch(i)), mesh) for i in range(4)]

    tick = time.perf_counter()
    loss, weight = step.make_eval_step(model, objective, mesh)(current.params, batches[0])["cross_entropy"]
    parity_loss = float(loss / weight)
    if args.weights:
        from t5x_like.hub.t5 import export_t5

        export_t5(model, current.params, args.weights)
    not_counted = time.perf_counter() - tick

    def run(number: int) -> float:
        nonlocal current
        current, sums = train_step(current, batches[number % 4])
        total, weight = sums["cross_entropy"]
        return float(total / weight)

    lengths = {name: rows.shape[1:] for name, rows in batches[0].items()}
    shape.serve(
        run,
        what=f"t5x_like, jax {jax.__version__}, {len(jax.devices())} {jax.default_backend()} devices",
        parameters=model.num_params(),
        gflop=3 * shape.BATCH * model.flops(lengths) / 1e9,
        loss_without_dropout=parity_loss,
        not_counted_s=not_counted,
    )


def features(inputs, targets):
    """The batch of `shape.batch` under our names."""
    import numpy as np

    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }


if __name__ == "__main__":
    main()
