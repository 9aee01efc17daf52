"""Finished seeds on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

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
