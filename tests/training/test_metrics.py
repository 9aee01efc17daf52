"""Metric writers: JSON lines and TensorBoard files; none of them can stop a run."""

import json

import numpy as np

from t5x_like.data.example import Feature
from t5x_like.training import metrics
from t5x_like.training.meter import Meter, mean
from t5x_like.training.run_dir import RunDir


def test_lines_and_event_files(tmp_path):
    writer = metrics.Metrics(RunDir(tmp_path), start=0)
    writer.write(10, "train", {"loss": 2.5, "grad_norm": float("nan")})
    writer.write(20, "eval", {"loss": 2.0})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 10, "kind": "train", "loss": 2.5, "grad_norm": None},
        {"step": 20, "kind": "eval", "loss": 2.0},
    ]
    (event_file,) = (tmp_path / "tb").iterdir()
    assert b"train/loss" in event_file.read_bytes() and b"eval/loss" in event_file.read_bytes()


def test_a_resumed_run_forgets_the_steps_it_does_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": "x", "kind": "train"}\n[1]\n{"step": 1}\n'
        + "".join(json.dumps({"step": s, "kind": "train"}) + "\n" for s in (1, 2, 3))
        + '{"step": 4, "ki'
    )
    metrics.Metrics(RunDir(tmp_path), start=2).close()
    assert [line["step"] for line in metrics.read(path)] == [1, 2]


def test_a_failing_writer_warns_once_and_its_lines_are_kept(tmp_path, capsys):
    """F09."""
    writer = metrics.Metrics(RunDir(tmp_path), start=0)
    (tmp_path / "metrics.jsonl").mkdir()  # stands for a full disk
    writer.write(1, "train", {"loss": 3.0})
    writer.write(2, "train", {"loss": 2.0})
    assert capsys.readouterr().err.count("metrics are not being written by JsonLines") == 1
    (tmp_path / "metrics.jsonl").rmdir()
    writer.write(3, "train", {"loss": 1.0})
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_means_are_of_sums():
    steps = [
        {"loss": (np.float32(6), np.float32(2))},
        {"loss": (np.float32(1), np.float32(6))},
        {"loss": (0.0, 0.0)},
    ]
    assert mean(steps, {"loss": 1.0}) == {"loss": 7 / 8}
    assert mean([{"loss": (0.0, 0.0)}], {"loss": 1.0}) == {}


def test_the_loss_of_several_terms_is_the_sum_of_their_means():
    terms = {"cross_entropy": 1.0, "detection": 50.0}
    steps = [
        {"cross_entropy": (6.0, 2.0), "detection": (3.0, 30.0), "accuracy": (1.0, 2.0)},
        {"cross_entropy": (2.0, 6.0), "detection": (1.0, 10.0), "accuracy": (1.0, 6.0)},
    ]
    assert mean(steps, terms) == {"cross_entropy": 1.0, "detection": 0.1, "accuracy": 0.25, "loss": 6.0}
    assert mean([{"cross_entropy": (1.0, 1.0), "detection": (0.0, 0.0)}], terms) == {"cross_entropy": 1.0}


def test_meter_counts_tokens_and_skipped_updates():
    time = iter(range(0, 1000, 2)).__next__
    features = {
        "encoder_input_tokens": Feature((4,)),
        "decoder_input_tokens": Feature((2,)),
        "decoder_target_tokens": Feature((2,)),
    }
    meter = Meter(
        100, 1, flops=10.0, pad=0, features=features, terms={"loss": 1.0}, clock=lambda: float(time())
    )
    batch = {
        "encoder_input_tokens": np.array([[5, 6, 0, 0]]),
        "decoder_input_tokens": np.array([[0, 7]]),
        "decoder_target_tokens": np.array([[7, 1]]),
    }
    one, zero = np.float32(1), np.float32(0)
    meter.add({"loss": (np.float32(3), one), "nonfinite": (zero, one)}, batch, waited=0.5)
    meter.add({"loss": (zero, zero), "nonfinite": (one, one)}, batch, waited=0.5)
    values, seconds = meter.report()
    assert (seconds, values["loss"], values["tokens_seen"], values["skipped_updates"]) == (2.0, 3.0, 108, 2)
    assert (values["tokens_per_second"], values["step_seconds"], values["padding"]) == (4.0, 1.0, 1 - 8 / 12)
    assert (values["data_wait"], values["model_flops_per_second"]) == (0.5, 10.0)
    assert meter.nonfinite_in_a_row == 1 and meter.steps == 0
