"""Every second of a run is filed once: within a process, over restarts, and in what a real run leaves behind."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.training.goodput import INTERVAL, KINDS, Goodput, Ledger, account


class World:
    """A clock that only moves when told to, and what a run of one-second steps leaves in events.jsonl."""

    def __init__(self):
        self.now, self.events, self.checkpoint = 1000.0, [], 0

    def clock(self):
        return self.now

    def process(self, rng, steps, killed_after):
        """Steps from the checkpoint on, a save every 4 and a validation every 6, until killed (or done)."""
        ledger = Ledger(clock=self.clock, now=self.clock)
        start = step = self.checkpoint
        self.now += rng.randint(1, 5)
        goodput = Goodput(ledger, self.events, start)
        self.tell(goodput, step)
        ledger.switch("other")
        with ledger.during("compile"):
            self.now += 3
        with ledger.during("train"):
            while step < steps and killed_after > 0:
                if step > start and step % 6 == 0:
                    with ledger.during("evaluation"):
                        self.now += 2
                if step > start and step % 4 == 0:
                    with ledger.during("checkpoint"):
                        self.now += 0.5
                    self.checkpoint = step
                    self.tell(goodput, step)
                self.now += 0.25
                ledger.move(0.25, "train", "input_wait")
                self.now += 1
                step, killed_after = step + 1, killed_after - 1
        if step == steps:
            self.checkpoint = step
            self.tell(goodput, step)
        self.now += rng.randint(0, 20)  # nobody knows when it died
        return goodput

    def tell(self, goodput, step):
        self.events.append({"event": "clock", **goodput.line(step)})


def test_the_kinds_of_a_process_add_up_to_its_wall_time():
    world = World()
    ledger = Ledger(clock=world.clock, now=world.clock)
    world.now += 2
    ledger.switch("other")
    with ledger.during("train"):
        world.now += 10
        with ledger.during("checkpoint"):
            world.now += 1
        with pytest.raises(KeyError), ledger.during("evaluation"):
            world.now += 4
            raise KeyError
        ledger.move(3, "train", "input_wait")
        world.now += 5
        assert ledger.stepping == 15
    assert ledger.seconds() == {
        "train": 12, "input_wait": 3, "start": 2, "compile": 0, "checkpoint": 1, "evaluation": 4, "other": 0,
    }  # fmt: skip


@settings(deadline=None)
@given(kills=st.lists(st.integers(0, 30), max_size=6), seed=st.integers(0, 10))
def test_restarts_add_up_and_a_step_counts_once(kills, seed):
    world, rng = World(), random.Random(seed)
    for killed_after in [*kills, 1000]:
        goodput = world.process(rng, 40, killed_after)
    found = account(world.events)
    last = world.events[-1]
    assert found.wall == pytest.approx(last["began"] + sum(last["seconds"].values()) - 1000)
    assert found.seconds["train"] == 40, "each step once, however often it was done"
    assert found.seconds["input_wait"] == 10
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert found.processes == len(kills) + 1
    assert goodput.account(40).wall >= found.wall


def test_what_was_done_behind_the_checkpoint_is_lost_and_the_time_between_is_down():
    def line(step, origin, began, **seconds):
        full = {kind: 0.0 for kind in KINDS if kind not in ("lost", "down")} | seconds
        return {"event": "clock", "step": step, "start": origin, "began": began, "seconds": full}

    lines = [
        line(0, 0, 100.0, start=5.0),
        line(8, 0, 100.0, start=5.0, train=8.0, checkpoint=1.0),
        line(11, 0, 100.0, start=5.0, train=11.0, checkpoint=1.0),  # killed some time after 117
        line(8, 8, 130.0, start=6.0),
        line(12, 8, 130.0, start=6.0, train=4.0),
    ]
    found = account(lines)
    assert {kind: seconds for kind, seconds in found.seconds.items() if seconds} == {
        "train": 12.0, "start": 11.0, "checkpoint": 1.0, "lost": 3.0, "down": 13.0,
    }  # fmt: skip
    assert found.wall == 40.0 and found.goodput == 0.3
    told = found.summary()
    assert told.startswith("40 s in 2 processes: train 30.0%") and "lost 7.5%" in told and "down" in told
    torn = [*lines, {"event": "clock", "step": 1}, {"event": "saved", "step": 12}, {"time": "?"}]
    torn += [lines[-1] | {"step": float("inf")}, lines[-1] | {"began": float("nan")}]
    assert account(torn) == found
    assert account([]).wall == 0 == account([]).goodput


def test_a_damaged_checkpoint_takes_a_whole_process_with_it():
    world, rng = World(), random.Random(0)
    world.process(rng, 40, 10)  # saves 8
    world.process(rng, 40, 10)  # 8 to 18, saves 16
    world.checkpoint = 4  # both were damaged
    world.process(rng, 40, 1000)
    found = account(world.events)
    assert found.seconds["train"] == 40 and found.seconds["lost"] > 12


def test_a_process_that_goes_back_has_lost_what_was_behind():
    """Twice to the same step, within one process."""
    world = World()
    ledger = Ledger(clock=world.clock, now=world.clock)
    for steps in (7, 9, 12):
        goodput = Goodput(ledger, world.events, 4 if world.events else 0)
        begun = 4 if world.events else 0
        world.tell(goodput, begun)
        with ledger.during("train"):
            for step in range(begun, steps):
                world.now += 1
                world.tell(goodput, step + 1)
    found = account(world.events)
    assert found.seconds["train"] == 12 and found.seconds["lost"] == (7 - 4) + (9 - 4)
    assert found.processes == 1 and found.seconds["down"] == 0 and found.wall == 7 + 5 + 8


def test_a_line_is_due_once_in_a_while():
    world = World()
    goodput = Goodput(Ledger(clock=world.clock, now=world.clock), [], 0)
    assert goodput.due()
    goodput.line(0)
    assert not goodput.due()
    world.now += INTERVAL
    assert goodput.due()
