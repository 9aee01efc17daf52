"""The rows of the fault battery that are about what is read hold, and each of them can fail."""

import pytest

from t5x_like.data import changes
from t5x_like.data.documents import Document
from t5x_like.faulting import inputs
from t5x_like.faulting.trials import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults") / "bench")


@pytest.mark.parametrize(
    "number", [row[0] for row in inputs.ROWS if row[0] not in ("F26", "F37")]
)  # 100 MB, and another process: in the command; tests/data has both in small
def test_it_holds(bench, number):
    (inject,) = [row[2] for row in inputs.ROWS if row[0] == number]
    outcome = inject(bench)
    assert outcome.verdict == "holds", outcome


def test_a_row_can_fail(bench, monkeypatch):
    monkeypatch.setattr(changes, "differences", lambda old, new: [])
    assert inputs.changed(bench).verdict == "fails"
    monkeypatch.setattr("t5x_like.data.lines.json_documents", lambda *_: iter([Document("a b c")]))
    monkeypatch.setattr("t5x_like.data.lines.text_documents", lambda *_: iter([Document("a b c")]))
    for inject in (inputs.broken_json, inputs.bad_utf8, inputs.odd_characters, inputs.nothing_there):
        assert inject(bench).verdict == "fails"
