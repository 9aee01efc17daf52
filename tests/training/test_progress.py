"""What the terminal shows, with and without one."""

import io
import re

import pytest

from t5x_like.training.progress import Eta, Progress, duration, quantity


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_plain_lines_are_rare_and_free_of_control_characters():
    """U14."""
    out, clock = io.StringIO(), Clock()
    with Progress(0, 1000, stream=out, clock=clock) as progress:
        progress.phase("compiling")
        for step in range(1, 1001):
            clock.now += 0.1
            progress.update(step, loss=f"{10 / step:.3f}")
    lines = out.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out.getvalue())
    assert lines[0].startswith("step 1/1000  loss 10.000") and lines[-1].startswith("step 1000/1000")


def test_the_bar_of_a_resumed_run_begins_where_it_resumes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    with Progress(1200, 5000, stream=out) as progress:
        progress.phase("compiling")
    shown = out.getvalue()
    assert "1200/5000" in shown and "\x1b" in shown


def test_eta_is_right_though_a_run_begins_with_steps_only():
    """U5: at a tenth of the run within 15 % of what it takes in the end."""
    eta, total, at_a_tenth = Eta(), 0.0, None
    for step in range(1, 1001):
        seconds = 0.1 + 0.01 * (step % 3)
        eta.stepped(1, seconds)
        total += seconds
        if step % 50 == 0:
            eta.evaluated(2.0)
            total += 2.0
        if step == 100:
            at_a_tenth = total + eta.seconds(900, 18)
    assert eta.seconds(0, 0) == 0.0
    assert at_a_tenth == pytest.approx(total, rel=0.15)
    assert Eta().seconds(10, 1) is None


def test_amounts_for_people():
    assert [duration(s) for s in (5, 720, 12000, 3 * 86400)] == ["5 s", "12 min", "3 h 20 min", "3 d 0 h"]
    assert [quantity(n) for n in (7, 950, 12345, 1.5e9, 0)] == ["7", "950", "12.3k", "1.5G", "0"]
