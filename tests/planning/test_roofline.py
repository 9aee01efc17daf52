"""Times by hand: rings, tori, slices, nodes."""

import pytest

from t5x_like.planning import roofline, topologies
from t5x_like.planning.collectives import Collective
from t5x_like.planning.costs import Costs, Work

V5E = topologies.parse("v5e:16x16")
HUNDRED_MB = 100_000_000


def seconds(kind, topology, group, size=HUNDRED_MB):
    collective = Collective(kind, size, 1, tuple(group), False)
    return roofline.collective_seconds(collective, roofline.places(topology, None), topology)


def test_a_ring_of_a_whole_axis_uses_both_directions():
    row = range(16)  # row-major: the last axis of the torus
    links, network = seconds("all-gather", V5E, row)
    assert links == pytest.approx(100e6 * 15 / 16 / (2 * 50e9)) and network == 0
    assert seconds("all-reduce", V5E, row)[0] == pytest.approx(2 * links)
    assert seconds("reduce-scatter", V5E, row)[0] == pytest.approx(links)


def test_an_open_line_has_one_direction_and_a_plane_two_axes():
    half = topologies.parse("v5e:8x8")
    assert seconds("all-gather", half, range(8))[0] == pytest.approx(100e6 * 7 / 8 / 50e9)
    assert seconds("all-gather", V5E, range(256))[0] == pytest.approx(100e6 * 255 / 256 / (4 * 50e9))
    assert seconds("all-gather", V5E, ()) == seconds("all-gather", V5E, range(256))


def test_between_slices_goes_what_is_left_of_the_reduction_inside():
    two = topologies.parse("v5e:16x16*2")
    links, network = seconds("all-reduce", two, ())
    assert links == pytest.approx(2 * 100e6 * 255 / 256 / (4 * 50e9))
    assert network == pytest.approx(2 * 100e6 / 256 * (1 / 2) / 3.125e9)


def test_what_is_sent_to_another_slice_goes_over_the_network():
    assert seconds("send", topologies.parse("v5e:16x16*2"), ()) == (0, pytest.approx(100e6 / 3.125e9))


def test_nodes_of_gpus():
    nodes = topologies.parse("h100:8*2")
    assert seconds("all-gather", nodes, range(8)) == (pytest.approx(100e6 * 7 / 8 / 450e9), 0)
    assert seconds("all-gather", nodes, (0, 8)) == (0, pytest.approx(100e6 / 2 / 50e9))


def test_what_runs_beside_the_work_counts_where_it_outlasts_it():
    def step(overlaps, flops):
        gather = Collective("all-gather", HUNDRED_MB, 10, tuple(range(16)), overlaps)
        return roofline.times(
            flops=flops, bytes=1.0, device=None, collectives=[gather], where=roofline.places(V5E, None), topology=V5E,
            rate=197e12,
        )  # fmt: skip

    spent = 10 * 100e6 * 15 / 16 / 100e9
    assert step(False, 197e12).step == pytest.approx(1 + spent)
    assert step(True, 197e12).step == pytest.approx(1)
    assert step(True, 0.0).step == pytest.approx(spent)


def test_every_instruction_is_bound_by_its_own():
    work = (Work(flops=100.0, bytes=1.0, times=3, scope=""), Work(flops=1.0, bytes=100.0, times=2, scope=""))
    costs = Costs(work, (), 0)
    assert costs.seconds(10.0, 20.0) == pytest.approx(3 * 10 + 2 * 5)
    assert (costs.flops, costs.bytes) == (302.0, 203.0)
