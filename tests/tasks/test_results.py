"""Finished seeds on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from t5x_like.errors import Exit, UserError
from t5x_like.tasks import results
from t5x_like.tasks.results import SeedResult


def test_a_seed_that_diverged_is_read_back_as_it_was(tmp_path: Path) -> None:
    seed = SeedResult(
        seed=3,
        validation={"mse": math.nan},
        test=None,
        step=4,
        seconds=1.0,
        curve=({"step": 4, "loss": math.inf},),
    )
    results.finish(tmp_path, seed)
    stored = json.loads((tmp_path / "seeds" / "3.json").read_text())
    assert stored["validation"] == {"mse": None}  # not 0, the best that there is
    (tmp_path / "seeds" / "4.json").write_text('{"seed": 4, "curve": [')
    (tmp_path / "seeds" / "5.json").write_text("{}")
    found = results.finished(tmp_path)
    assert list(found) == [3]
    assert (
        math.isnan(found[3].validation["mse"])
        and found[3].test is None
        and math.isnan(found[3].curve[0]["loss"])
    )


def finish(folder: Path) -> None:
    results.finish(folder, SeedResult(seed=0, validation={}, test=None, step=1, seconds=1.0, curve=()))


def test_two_fine_tunings_do_not_mix(tmp_path: Path) -> None:
    asked = {"epochs": 3.0, "definition": {"name": "mine", "metrics": ["accuracy"]}}
    results.agree(tmp_path, {**asked, "epochs": 1e30})
    results.agree(tmp_path, asked)  # nothing was finished: there is nothing to mix with
    results.agree(tmp_path, asked)
    finish(tmp_path)
    other = {**asked, "definition": {"name": "mine", "metrics": ["macro_f1"]}}
    with pytest.raises(UserError, match=r"definition.metrics \['accuracy'\], not \['macro_f1'\]"):
        results.agree(tmp_path, other)
    with pytest.raises(UserError, match="with added None, not 1"):
        results.agree(tmp_path, {**asked, "added": 1})


@pytest.mark.parametrize("text", ['{"epochs": 3', "[]", ""])
def test_a_damaged_description_is_told_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "finetune.json").write_text(text)
    finish(tmp_path)
    with pytest.raises(UserError, match="damaged") as refused:
        results.agree(tmp_path, {"epochs": 3.0})
    assert refused.value.where == str(tmp_path / "finetune.json") and refused.value.code == Exit.CORRUPT
