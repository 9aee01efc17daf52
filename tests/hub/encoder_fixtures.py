"""Directories as the Hub has them, put together from the parity fixtures of encoders."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encoders"


@functools.cache
def stored(kind: str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(FIXTURES / kind / "model.safetensors")


@functools.cache
def expected(kind: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / kind / "expected.npz") as file:
        return dict(file)


def write(folder: Path, kind: str, name: str, **settings) -> Path:
    """The directory of the class `name` ("ForMaskedLM", ...) of a family, `settings` into its config.json."""
    heads = ("cls.", "lm_head.", "discriminator_predictions.")
    arrays = {k: v for k, v in stored(kind).items() if "/" not in k}
    if name not in ("ForPreTraining", "ForMaskedLM"):
        arrays = {k: v for k, v in arrays.items() if not k.startswith(heads)}
    arrays |= {k.removeprefix(f"{name}/"): v for k, v in stored(kind).items() if k.startswith(f"{name}/")}
    if kind == "bert" and name in ("ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering"):
        arrays = {k: v for k, v in arrays.items() if "pooler" not in k and "seq_relationship" not in k}
    if name == "Model":
        arrays = {k.removeprefix(f"{kind}."): v for k, v in arrays.items()}
    config = json.loads((FIXTURES / kind / "config.json").read_text())
    architecture = {"architectures": [kind.capitalize() + name]}
    return _write(folder, arrays, config | architecture | settings)


def write_generator(folder: Path) -> Path:
    """The directory of ELECTRA's generator."""
    arrays = {k: v for k, v in stored("electra").items() if k.startswith("electra.embeddings.")}
    own = {k: v for k, v in stored("electra").items() if k.startswith("generator/")}
    config = json.loads((FIXTURES / "electra" / "generator.json").read_text())
    arrays |= {k.removeprefix("generator/"): v for k, v in own.items()}
    return _write(folder, arrays, config | {"architectures": ["ElectraForMaskedLM"]})


def _write(folder: Path, arrays: dict[str, np.ndarray], config: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
