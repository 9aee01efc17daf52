"""The laws against the tables of their papers."""

import pytest

from t5x_like.planning import scaling

TABLES = {  # parameters: (FLOPs, tokens); Hoffmann et al. 2022, table 3 and table A3
    0: {400e6: (1.92e19, 8.0e9), 1e9: (1.21e20, 20.2e9), 10e9: (1.23e22, 205.1e9), 67e9: (5.76e23, 1.5e12),
        175e9: (3.85e24, 3.7e12), 280e9: (9.90e24, 5.9e12), 520e9: (3.43e25, 11.0e12), 1e12: (1.27e26, 21.2e12),
        10e12: (1.30e28, 216.2e12)},
    1: {400e6: (1.84e19, 7.7e9), 1e9: (1.20e20, 20.0e9), 10e9: (1.32e22, 219.5e9), 67e9: (6.88e23, 1.7e12),
        175e9: (4.54e24, 4.3e12), 280e9: (1.18e25, 7.1e12), 520e9: (4.19e25, 13.4e12), 1e12: (1.59e26, 26.5e12),
        10e12: (1.75e28, 292.0e12)},
    2: {400e6: (2.21e19, 9.2e9), 1e9: (1.62e20, 27.1e9), 10e9: (2.46e22, 410.1e9), 67e9: (1.71e24, 4.1e12),
        # The paper prints 1.26e24 for 175e9: its tokens and the rows around it say 1.26e25.
        175e9: (1.26e25, 12.0e12), 280e9: (3.52e25, 20.1e12), 520e9: (1.36e26, 43.5e12), 1e12: (5.65e26, 94.1e12)},
}  # fmt: skip


@pytest.mark.parametrize("approach", TABLES)
def test_chinchilla_gives_its_tables(approach):
    for parameters, (flops, tokens) in TABLES[approach].items():
        n, d = scaling.CHINCHILLA[approach].optimum(flops)
        assert n == pytest.approx(parameters, rel=0.07)  # exponents of two digits over nine decades
        assert d == pytest.approx(tokens, rel=0.12)  # some rows of the paper are 4 % off C = 6 N D themselves
        assert 6 * n * d == pytest.approx(flops)


def test_the_printed_surface_misses_its_own_table_and_the_new_fit_agrees_with_the_other_approaches():
    printed, again = scaling.CHINCHILLA[3], scaling.CHINCHILLA[4]
    n, d = printed.optimum(5.76e23)
    assert (n, d) == (pytest.approx(32.2e9, rel=0.005), pytest.approx(2.98e12, rel=0.005))
    assert printed.optimum(1.71e24)[0] < 0.8 * 67e9
    n, d = again.optimum(5.76e23)
    assert 18 < d / n < 22


def test_kaplan_as_hoffmann_reads_it():
    n, _ = scaling.Kaplan().optimum(1e21)
    assert n == pytest.approx(4.68e9, rel=0.002)  # Hoffmann et al. 2022, appendix D.4


def test_an_optimum_is_a_minimum_of_its_surface():
    law = scaling.CHINCHILLA[4]
    assert isinstance(law, scaling.Surface)
    n, _ = law.optimum(1e21)

    def loss(n):
        return law.e + law.a / n**law.alpha + law.b / (1e21 / 6 / n) ** law.beta

    assert law.loss(1e21) == pytest.approx(loss(n))
    assert loss(n) < min(loss(0.9 * n), loss(1.1 * n))


def test_the_nearest_shipped_configuration():
    answers = {a["law"]: a for a in scaling.data(1e21, "chinchilla")["laws"]}
    first = answers["chinchilla 1, envelope of curves"]
    assert first["nearest_config"].startswith("t5/3b") and first["nearest_parameters"] == 2_849_757_184
    assert scaling.nearest(1.1e8, [("a", 60_000_000), ("b", 110_000_000), ("c", 340_000_000)]) == (
        "b",
        110_000_000,
    )


def test_kaplan_counts_without_the_vocabulary():
    sizes = dict(scaling.shipped(False))
    # T5 1.0 small: 60,506,624 parameters of which 32,128 x 512 are the table.
    assert sizes["t5/small:v1_0"] == 60_506_624 - 32_128 * 512
    # BERT base: the table, and the bias of its output layer.
    assert sizes["bert/base"] == 110_106_428 - 30_522 * (768 + 1)
