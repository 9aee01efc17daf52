"""Loads an exported directory as its users will, and compares logits and token ids with what was saved beside it.

    python tests/hub/check_with_transformers.py FOLDER...       # needs torch and transformers, not this package

Each folder holds an export and `expected.npz`: `inputs`, `inputs_mask`, `decoder_inputs`, `logits`, and where a
tokenizer was exported `texts` and `ids` (padded with -1).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


def check(folder: Path) -> None:
    expected = np.load(folder / "expected.npz", allow_pickle=False)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], (kind, info[kind])
    with torch.no_grad():
        logits = model.eval()(
            input_ids=torch.from_numpy(expected["inputs"]).long(),
            attention_mask=torch.from_numpy(expected["inputs_mask"]).long(),
            decoder_input_ids=torch.from_numpy(expected["decoder_inputs"]).long(),
        ).logits.numpy()
    error = np.abs(logits - expected["logits"]).max() / np.abs(logits).max()
    print(f"{folder}: relative error of logits {error:.2e}")
    assert error < 1e-5
    assert model.generation_config.decoder_start_token_id == 0
    if "texts" in expected:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text, ids in zip(expected["texts"], expected["ids"]):
            assert tokenizer(str(text)).input_ids == ids[ids >= 0].tolist(), text
        print(f"{folder}: {type(tokenizer).__name__} gives the same ids for {len(expected['texts'])} texts")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        check(Path(name))
