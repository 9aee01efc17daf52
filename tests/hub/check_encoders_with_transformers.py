"""Whether transformers loads exported encoders and computes what we do.

python tests/hub/check_encoders_with_transformers.py FOLDER ...     # made by test_hub_encoders.write_exports
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

# Theirs -> ours; a class has some of them.
OUTPUTS = {
    "last_hidden_state": "hidden",
    "prediction_logits": "mlm_logits",
    "seq_relationship_logits": "pair_logits",
}


def check(folder: Path) -> None:
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    lost = [k for k in (*info["missing_keys"], *info["unexpected_keys"]) if "pooler" not in k]
    assert not lost, f"{folder}: {lost}"
    base = getattr(transformers, "AutoModel").from_pretrained(folder)  # noqa: B009
    assert type(base).__name__.endswith("Model")
    expected = np.load(folder / "expected.npz")
    with torch.no_grad():
        out = model.eval()(
            input_ids=torch.from_numpy(expected["tokens"]),
            attention_mask=torch.from_numpy(expected["mask"].astype(np.int64)),
        )
    compared = 0
    for key, array in out.items():
        found = array.numpy()
        if key in ("start_logits", "end_logits"):
            wanted = expected["logits"][..., int(key == "end_logits")]
        elif key == "logits":
            ours = next(
                k for k in ("logits", "detection_logits", "mlm_logits", "pair_logits") if k in expected
            )
            wanted = expected[ours].reshape(found.shape)
        elif key in OUTPUTS and OUTPUTS[key] in expected:
            wanted = expected[OUTPUTS[key]]
        else:
            continue
        compared += 1
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error < 1e-5, f"{folder} {name} {key}: {error}"
    assert compared, f"{folder}: nothing to compare"
    if (folder / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for index, text in enumerate(expected["texts"]):
            assert tokenizer(str(text)).input_ids == expected[f"ids{index}"].tolist(), text
    print(name, compared)


for argument in sys.argv[1:]:
    check(Path(argument))
    if (Path(argument) / "generator").is_dir():
        transformers.AutoModelForMaskedLM.from_pretrained(Path(argument) / "generator")
