"""Learning rates against published golden values and closed forms."""

import math

import jax
import pytest

from t5x_like.errors import UserError
from t5x_like.training.schedules import Constant, Cosine, Linear, Rsqrt, WarmupStableDecay


def rates(schedule, steps):
    return [float(schedule(s)) for s in steps]


def test_rsqrt_is_t5s():
    # Golden values: 1/sqrt(max(step, 10^4)), flat from step 0 on, no ramp (T5 paper section 3.1.2).
    found = rates(Rsqrt(), [0, 1, 10_000, 40_000, 1_000_000])
    assert found == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.001], rel=1e-6)


def test_constant():
    assert rates(Constant(rate=1e-3), [0, 10**6]) == pytest.approx([1e-3, 1e-3])


def test_linear():
    schedule = Linear(peak=1.0, warmup=4, steps=14, final=0.5)
    assert rates(schedule, [0, 1, 3, 4, 9, 14, 99]) == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.75, 0.5, 0.5])


def test_cosine():
    schedule = Cosine(peak=1.0, warmup=2, steps=10, final=0.2)
    quarter = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))
    assert rates(schedule, [0, 1, 2, 4, 6, 10, 11]) == pytest.approx([0.5, 1.0, 1.0, quarter, 0.6, 0.2, 0.2])


def test_warmup_stable_decay():
    schedule = WarmupStableDecay(peak=1.0, warmup=2, steps=20, decay=0.5)
    assert rates(schedule, [0, 1, 5, 10, 15, 20]) == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("schedule", [Constant(), Rsqrt(), Linear(), Cosine(), WarmupStableDecay()])
def test_traced_and_plain_steps_agree_and_the_run_sets_the_length(schedule):
    schedule = schedule.over(3_000)
    for step in (0, 500, 2_000, 2_999):
        assert float(jax.jit(schedule)(step)) == pytest.approx(float(schedule(step)), rel=1e-6)
    assert schedule.over(77) == schedule


def test_no_warmup_starts_at_the_peak():
    assert rates(Linear(peak=0.3, warmup=0, steps=10), [0]) == pytest.approx([0.3])


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="does not know when it ends"):
        Cosine()(0)
    with pytest.raises(UserError, match="before its warm-up"):
        Linear(warmup=100).over(50)
    with pytest.raises(UserError, match="at least 1"):
        Rsqrt(warmup=0)
    with pytest.raises(UserError, match="at least 0"):
        Constant(rate=float("nan"))
    with pytest.raises(UserError, match="share of the run"):
        WarmupStableDecay(decay=1.5)


def test_berts_line_begins_at_update_0_and_jumps_at_the_end_of_the_warm_up():
    schedule = Linear(peak=1.0, warmup=4, steps=16, form="bert")
    wanted = [0.0, 0.25, 0.75, 1 - 4 / 16, 0.5, 0.0, 0.0]
    assert rates(schedule, [0, 1, 3, 4, 8, 16, 20]) == pytest.approx(wanted)
    published = Linear(peak=1e-4, warmup=10_000, form="bert").over(1_000_000)
    assert rates(published, [10_000]) == pytest.approx([1e-4 * 0.99])


def test_electras_rate_is_the_product_of_ramp_and_line():
    schedule = Linear(peak=2.0, warmup=4, steps=16, form="electra")
    wanted = [0.0, 2 * (1 / 4) * (15 / 16), 2 * (3 / 4) * (13 / 16), 2 * 12 / 16, 1.0, 0.0]
    assert rates(schedule, [0, 1, 3, 4, 8, 16]) == pytest.approx(wanted)


@pytest.mark.parametrize("form", ["bert", "electra"])
def test_other_forms_without_warm_up_and_with_a_final_rate(form):
    schedule = Linear(peak=1.0, warmup=0, steps=10, final=0.5, form=form)
    assert rates(schedule, [0, 5, 10, 11]) == pytest.approx([1.0, 0.75, 0.5, 0.5])
    with pytest.raises(UserError, match="does not know when it ends"):
        Linear(form=form)(0)
