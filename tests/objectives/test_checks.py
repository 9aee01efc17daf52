"""What is refused before anything runs, and in which words."""

import typing
from typing import Any

import pytest
from examples import T5, t5_vocabulary

from t5x_like.errors import UserError
from t5x_like.objectives.base import Objective
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.prefix_lm import LanguageModel, PrefixLM
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.ul2 import MixtureOfDenoisers

ALL = (SpanCorruption, IidDenoising, PrefixLM, Deshuffling, LanguageModel, MixtureOfDenoisers)


class Model:
    """As much of a model as a check looks at."""

    def __init__(self, kind: str = "encoder-decoder", vocab_size: int = 32128):
        self.kind, self.vocab_size = kind, vocab_size


@pytest.mark.parametrize("objective", ALL)
def test_defaults_fit_t5_and_types_resolve(objective: Any) -> None:
    assert isinstance(objective(), Objective)
    assert set(typing.get_type_hints(objective)) >= {
        "inputs_length",
        "targets_length",
        "z_loss",
        "label_smoothing",
    }
    objective().check(Model(), None)
    if objective is not MixtureOfDenoisers:
        objective().check(Model(), T5)
    with pytest.raises(UserError, match="needs an encoder-decoder model; Model is encoder"):
        objective().check(Model("encoder"), T5)
    with pytest.raises(UserError, match="32100 ids and the model's table 32000 rows") as e:
        objective().check(Model(vocab_size=32000), T5)
    assert "32128" in str(e.value.help)


@pytest.mark.parametrize(
    "objective, says",
    [
        (SpanCorruption(noise_density=0.0), "noise_density is 0; it must be between 0 and 1"),
        (SpanCorruption(noise_density=1.0), "noise_density is 1"),
        (SpanCorruption(noise_density=float("nan")), "noise_density is nan"),
        (SpanCorruption(mean_span_length=0.5), "mean_span_length is 0.5"),
        (SpanCorruption(mean_span_length=float("nan")), "mean_span_length is nan"),
        (
            SpanCorruption(targets_length=113),
            "targets_length is 113, and the targets of inputs_length=512 come to 114",
        ),
        (SpanCorruption(inputs_length=2), "inputs_length=2 has no room"),
        (SpanCorruption(inputs_length=-5), "inputs_length is -5"),
        (SpanCorruption(inputs_length=3, mode="R"), "inputs_length=3 has no room"),
        (SpanCorruption(z_loss=-1.0), "z_loss is -1"),
        (SpanCorruption(label_smoothing=1.0), "label_smoothing is 1"),
        (IidDenoising(noise_density=1.5), "noise_density is 1.5"),
        (IidDenoising(inputs_length=1), "inputs_length is 1"),
        (IidDenoising(targets_length=1), "targets_length is 1"),
        (IidDenoising(style="mass", targets_length=511), "come to 512"),
        (PrefixLM(target_density=0.6), "target_density is 0.6; it must be above 0 and at most 0.5"),
        (PrefixLM(inputs_length=2), "no room for a window of two tokens"),
        (PrefixLM(targets_length=510), "come to 511"),
        (Deshuffling(targets_length=511), "come to 512"),
        (LanguageModel(targets_length=1), "targets_length is 1"),
        (LanguageModel(inputs_length=0), "inputs_length is 0"),
        (MixtureOfDenoisers(s_rate=-1.0), "s_rate is -1"),
        (MixtureOfDenoisers(r_rate=0.0, s_rate=0.0, x_rate=0.0), "the rates are all 0"),
        (MixtureOfDenoisers(inputs_length=3), "inputs_length=3 has no room"),
        (MixtureOfDenoisers(targets_length=100), "targets_length is 100"),
    ],
)
def test_fields_that_cannot_be(objective: Any, says: str) -> None:
    with pytest.raises(UserError) as e:
        objective.check(Model(), None)
    assert says in e.value.what
    assert str(e.value.where).startswith("objective")


@pytest.mark.parametrize(
    "least", [SpanCorruption(inputs_length=3), PrefixLM(inputs_length=3), IidDenoising(inputs_length=2)]
)
def test_the_smallest_that_can_be(least: Any) -> None:
    least.check(Model(), T5)


@pytest.mark.parametrize(
    "density, mean, first",
    [(0.15, 3.0, 1810), (0.15, 2.0, 1244), (0.5, 3.0, 404), (0.5, 8.0, 907)],
)
def test_first_length_at_which_100_sentinels_do_not_do(density: float, mean: float, first: int) -> None:
    """Published code walks into ordinary ids there (and at 403 for .5 and 3, were it not for its hack at .5)."""

    def of_length(n: int) -> SpanCorruption:
        return SpanCorruption(inputs_length=n, noise_density=density, mean_span_length=mean)

    of_length(first - 1).check(Model(), T5)
    with pytest.raises(UserError, match="needs 101 sentinels; the tokenizer has 100") as e:
        of_length(first).check(Model(), T5)
    assert f"inputs_length={first - 1}," in str(e.value.help)


def test_options_that_need_one_sentinel_more() -> None:
    plain, many = SpanCorruption(inputs_length=1809), t5_vocabulary(sentinels=101)
    assert plain.spans() == 100
    for option in ({"final_sentinel": True}, {"random_roll": True}):
        objective = SpanCorruption(inputs_length=1809, **option)
        objective.check(Model(), many)
        with pytest.raises(UserError, match="needs 101 sentinels"):
            objective.check(Model(), T5)


def test_ul2_at_512_needs_more_than_t5_has() -> None:
    """127 spans at 50 % and mean 3, and three mode tokens."""
    with pytest.raises(UserError, match="needs 127 sentinels; the tokenizer has 97 besides the mode tokens"):
        MixtureOfDenoisers().check(Model(), T5)
    MixtureOfDenoisers().check(Model(vocab_size=32256), t5_vocabulary(sentinels=130))
    MixtureOfDenoisers(inputs_length=256).check(Model(), T5)


def test_no_sentinels_at_all() -> None:
    bare = t5_vocabulary(sentinels=0)
    for objective in (SpanCorruption(), IidDenoising(), IidDenoising(style="mass"), PrefixLM(mode="S")):
        with pytest.raises(UserError, match="sentinels"):
            objective.check(Model(), bare)
    PrefixLM().check(Model(), bare)
