"""Hugging Face T5 on torch: forward, backward and Adafactor update in float32, driven by `shape.serve`.

python -m benchmarks.peers.torch_step [--weights=DIR] [--threads=2]      needs torch and transformers
"""

from __future__ import annotations

import argparse
import time

from benchmarks import shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="Hugging Face directory to start from; default: random")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    import transformers
    from transformers import Adafactor, T5Config, T5ForConditionalGeneration

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.weights:
        model = T5ForConditionalGeneration.from_pretrained(args.weights, dropout_rate=shape.DROPOUT)
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=shape.VOCABULARY,
                d_model=shape.D_MODEL,
                d_kv=shape.D_KV,
                num_heads=shape.HEADS,
                d_ff=shape.D_FF,
                num_layers=shape.LAYERS,
                num_decoder_layers=shape.LAYERS,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                dropout_rate=shape.DROPOUT,
                decoder_start_token_id=0,
            )
        )
    optimizer = Adafactor(
        model.parameters(),
        lr=shape.LEARNING_RATE,
        scale_parameter=True,
        relative_step=False,
        warmup_init=False,
    )
    batches = []
    for i in range(4):
        inputs, targets = map(torch.from_numpy, shape.batch(i))
        batches.append({"input_ids": inputs.long(), "labels": targets.long(), "use_cache": False})

    tick = time.perf_counter()
    model.eval()
    with torch.no_grad():
        loss = float(model(**batches[0]).loss)
    model.train()
    not_counted = time.perf_counter() - tick

    def run(number: int) -> float:
        loss = model(**batches[number % 4]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    shape.serve(
        run,
        what=f"Hugging Face {transformers.__version__}, torch {torch.__version__}, {args.threads} threads",
        parameters=sum(p.numel() for p in model.parameters()),
        loss_without_dropout=loss,
        not_counted_s=not_counted,
    )


if __name__ == "__main__":
    main()
