"""Hugging Face BERT and ELECTRA on torch: forward, backward and AdamW update in float32, driven by `shape.serve`.

python -m benchmarks.peers.torch_encoder_step --model=bert-mini [--weights=DIR] [--threads=2]
                                                                            needs torch and transformers
"""

from __future__ import annotations

import argparse
import time

from benchmarks import encoder_shape, shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, choices=list(encoder_shape.SHAPES))
    parser.add_argument("--weights", help="folder with the initial weights; default: random")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import numpy as np
    import torch
    import transformers
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        ElectraConfig,
        ElectraForMaskedLM,
        ElectraForPreTraining,
    )

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    work = encoder_shape.SHAPES[args.model]
    rate = encoder_shape.DROPOUT
    common = {
        "vocab_size": encoder_shape.VOCABULARY,
        "num_hidden_layers": work.layers,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": rate,
        "attention_probs_dropout_prob": rate,
    }

    class Electra(torch.nn.Module):
        """Generator and discriminator trained jointly; tables and their norm shared, as released."""

        def __init__(self) -> None:
            super().__init__()

            def config(share: float) -> ElectraConfig:
                return ElectraConfig(
                    hidden_size=int(work.hidden * share),
                    num_attention_heads=max(1, int(work.heads * share)),
                    intermediate_size=int(4 * work.hidden * share),
                    embedding_size=work.embedding,
                    **common,
                )

            if args.weights:
                self.generator = ElectraForMaskedLM.from_pretrained(f"{args.weights}/generator")
                self.discriminator = ElectraForPreTraining.from_pretrained(args.weights)
            else:
                self.generator = ElectraForMaskedLM(config(work.generator))
                self.discriminator = ElectraForPreTraining(config(1.0))
            ours, theirs = self.discriminator.electra.embeddings, self.generator.electra.embeddings
            for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
                setattr(theirs, name, getattr(ours, name))
            self.generator.generator_lm_head.weight = ours.word_embeddings.weight

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.generator(input_ids=input_ids, labels=labels)
            at = labels >= 0
            with torch.no_grad():
                logits = out.logits[at]
                noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)))
                guess, truth = (logits + noise).argmax(-1), labels[at]
                corrupted = torch.where(at, labels, input_ids)
                corrupted[at] = guess
                replaced = torch.zeros_like(input_ids, dtype=torch.float32)
                replaced[at] = (guess != truth).float()
            detection = self.discriminator(input_ids=corrupted, labels=replaced).loss
            return out.loss, out.loss + encoder_shape.DETECTION_WEIGHT * detection

    class MaskedLM(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if args.weights:
                self.model = BertForMaskedLM.from_pretrained(args.weights)
            else:
                self.model = BertForMaskedLM(
                    BertConfig(
                        hidden_size=work.hidden,
                        num_attention_heads=work.heads,
                        intermediate_size=4 * work.hidden,
                        **common,
                    )
                )

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            loss = self.model(input_ids=input_ids, labels=labels).loss
            return loss, loss

    net = Electra() if work.generator else MaskedLM()
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=encoder_shape.LEARNING_RATE, weight_decay=0.01, fused=True
    )
    batches = []
    for i in range(4):
        made = encoder_shape.batch(work, i)
        labels = np.full_like(made["tokens"], -100)
        np.put_along_axis(labels, made["positions"], made["targets"], axis=1)
        batches.append((torch.from_numpy(made["tokens"]).long(), torch.from_numpy(labels).long()))

    tick = time.perf_counter()
    net.eval()
    with torch.no_grad():
        parity = float(net(*batches[0])[0])
    net.train()
    not_counted = time.perf_counter() - tick

    def run(number: int) -> float:
        _, loss = net(*batches[number % 4])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    shape.serve(
        run,
        what=f"Hugging Face {transformers.__version__}, torch {torch.__version__}, {args.threads} threads",
        parameters=sum(p.numel() for p in net.parameters()),
        loss_without_dropout=parity,
        not_counted_s=not_counted,
    )


if __name__ == "__main__":
    main()
