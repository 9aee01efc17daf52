"""T5 11B (1.0, 11,307,321,344 parameters) and T5 1.1 xxl (11,135,332,352).

Paper: Raffel et al. 2020, arXiv:1910.10683; 1.1 after Shazeer 2020, arXiv:2002.05202.
Command: python -m t5x_like.train --config=t5/11b --data=DIR --workdir=DIR      (T5 1.1)
         python -m t5x_like.train --config=t5/11b:v1_0 --data=DIR --workdir=DIR (T5 1.0)
         python -m t5x_like.train --config=t5/11b:v5e --data=DIR --workdir=DIR  (T5 1.0 laid out for a slice)
Hardware: `v5e`: 256 chips of TPU v5e (v5e:16x16); `v5p`: 128 of TPU v5p (v5p:4x4x8); any laptop for `t5/11b:debug`.
Expected: published GLUE average 90.3 (1.0, test).
Measured here: parameter counts, parity and lowering; never trained to the end in this project.
"""

from __future__ import annotations

import dataclasses

from configs.t5 import _recipe
from t5x_like.config import Run
from t5x_like.models.t5 import t5_1_0, t5_1_1
from t5x_like.training.partitioning import Mesh


def v1_0() -> Run:
    return _recipe.pretrain("t5-1.0-11b", t5_1_0("11B"))


def v1_1() -> Run:
    return _recipe.pretrain("t5-1.1-xxl", t5_1_1("xxl"))


def config() -> Run:
    return v1_1()


def _laid_out(mesh: Mesh, microbatches: int) -> Run:
    """T5 1.0 in bfloat16, whole layers recomputed."""
    run = v1_0()
    model = dataclasses.replace(run.model, dtype="bfloat16", remat="full")
    return dataclasses.replace(run, model=model, mesh=mesh, microbatches=microbatches)


def v5e() -> Run:
    """For v5e:16x16: docs/plans.md has its plan."""
    return _laid_out(Mesh(data=1, fsdp=32, tensor=8), microbatches=4)


def v5p() -> Run:
    """For v5p:4x4x8: docs/plans.md has its plan."""
    return _laid_out(Mesh(data=1, fsdp=32, tensor=4), microbatches=2)


def debug() -> Run:
    return _recipe.debug(config())
