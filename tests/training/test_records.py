"""The record of a checkpoint: as it was written, or an error; pins keep what is read."""

import dataclasses
import json

import pytest

from t5x_like.training import records
from t5x_like.training.pins import pin, unpinned
from t5x_like.training.records import Record

RECORD = Record(step=12, tokens=345, validation_loss=1.25, arrays={"params/w": "float32[2]"},
                files={"params/d/0": (10, "ab" * 16)}, skips=((4, 2),), nonfinite_in_a_row=1)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    records.write(tmp_path / "12.json", RECORD)
    return tmp_path / "12.json"


def test_what_was_written_comes_back(path):
    assert records.read(path) == RECORD


def test_a_bit_flipped_anywhere_is_noticed(path):
    """F12: every bit of every byte."""
    content = path.read_bytes()
    for at in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            with pytest.raises(ValueError, match=r"12\.json"):
                records.read(path)


def test_a_record_cut_off_anywhere_is_noticed(path):
    """F13."""
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not as it was written"):
            records.read(path)


def test_records_of_before_they_had_a_checksum_are_read(path):
    old = {k: v for k, v in dataclasses.asdict(RECORD).items() if k not in ("skips", "nonfinite_in_a_row")}
    path.write_text(json.dumps(old) + "\n")
    assert records.read(path) == dataclasses.replace(RECORD, skips=(), nonfinite_in_a_row=0)


@pytest.mark.parametrize(
    "field",
    [{"step": "12"}, {"tokens": None}, {"tokens": -1}, {"validation_loss": "low"}, {"saved": 1e300}, {"saved": "x"},
     {"arrays": ["params/w"]}, {"arrays": {"params/w": 2}}, {"files": {}}, {"skips": [[5, -3]]}, {"config": 5},
     {"nonfinite_in_a_row": True}],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused_without_a_checksum_too(path, field):
    path.write_text(json.dumps(dataclasses.asdict(RECORD) | field) + "\n")
    with pytest.raises(ValueError, match="not as it was written"):
        records.read(path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_a_record_names_no_file_outside_its_checkpoint(path, name):
    records.write(path, dataclasses.replace(RECORD, files={name: (1, "00")}))
    with pytest.raises(ValueError, match="outside its checkpoint"):
        records.read(path)


def test_the_record_of_another_step_is_refused(path):
    with pytest.raises(ValueError, match="is the record of step 12"):
        records.read(path.rename(path.with_name("13.json")))


def test_a_pin_keeps_the_pruner_away_until_it_is_closed(path):
    """F35."""
    with pin(path), unpinned(path) as free:
        assert not free
    with unpinned(path) as free:
        assert free
    with pytest.raises(FileNotFoundError):
        pin(path.with_name("13.json"))
