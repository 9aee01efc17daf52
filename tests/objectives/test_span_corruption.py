"""Span corruption against the published lengths and golden vectors, and back again."""

import dataclasses

import numpy as np
import pytest
from examples import T5, keys, t5_vocabulary, used, windows
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from t5x_like.errors import UserError
from t5x_like.objectives.encodings import content, gather, restore_spans
from t5x_like.objectives.span_corruption import SpanCorruption, encode_spans, span_lengths

S0, S1, S2 = 32099, 32098, 32097
EOS = 1


def encoded(tokens: list[int], mask: str, **options: bool) -> tuple[list[int], list[int]]:
    """Inputs and targets of one window under a given mask, EOS included."""
    ids, hidden = np.array([tokens], np.int32), np.array([[c == "1" for c in mask]], bool)
    lengths = np.array([len(tokens)])
    inputs, targets = encode_spans(ids, hidden, lengths, T5.sentinels, **options)
    rows = [gather(*side, lengths, 40, T5)[0][0] for side in (inputs, targets)]
    return used(rows[0]), used(rows[1])


@pytest.mark.parametrize(
    "inputs, density, mean, raw, targets",
    [
        *((512, 0.15, mean, raw, t) for mean, raw, t in ((2, 552, 126), (3, 568, 114), (5, 581, 105))),
        *((512, 0.15, mean, raw, t) for mean, raw, t in ((8, 588, 100), (10, 591, 99), (64, 600, 92))),
        *((512, 0.5, mean, raw, 512) for mean, raw in ((1, 510), (3, 766), (8, 908), (64, 1006))),
        *((n, 0.15, 3, raw, t) for n, raw, t in ((64, 70, 14), (128, 141, 29), (256, 284, 58))),
        *((n, 0.15, 3, raw, t) for n, raw, t in ((1024, 1137, 229), (2048, 2274, 456))),
        (1024, 0.15, 20, 1193, 189),
        (512, 0.1, 3, 548, 74),
        (512, 0.25, 3, 614, 206),
    ],
)
def test_published_lengths(inputs: int, density: float, mean: float, raw: int, targets: int) -> None:
    assert span_lengths(inputs, density, mean) == (raw, targets)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(40, 1500),
    st.sampled_from([0.1, 0.15, 0.25, 0.3, 0.5]),
    st.sampled_from([2.0, 3.0, 5.0, 10.0]),
)
def test_lengths_equal_the_published_loop(inputs_length: int, density: float, mean: float) -> None:
    assume(inputs_length * density > mean)  # below, the published helper forgets the one span of the mask

    def f(t: int) -> tuple[int, int]:
        hidden = round(t * density)
        spans = round(hidden / mean)
        return t - hidden + spans + 1, hidden + spans + 1

    t = inputs_length - 1
    while f(t + 1)[0] <= inputs_length:
        t += 1
    targets = f(t)[1]
    if density == 0.5 and targets > f(t)[0]:
        t, targets = t - 1, targets - 1
    assert span_lengths(inputs_length, density, mean) == (t, targets)


def test_golden_vectors() -> None:
    tokens = list(range(11, 21))
    assert encoded(tokens, "0011000101") == (
        [11, 12, S0, 15, 16, 17, S1, 19, S2, EOS],
        [S0, 13, 14, S1, 18, S2, 20, EOS],
    )
    assert encoded(tokens, "0010110001") == (
        [11, 12, S0, 14, S1, 17, 18, 19, S2, EOS],
        [S0, 13, S1, 15, 16, S2, 20, EOS],
    )


def test_a_mask_that_begins_with_noise_as_published() -> None:
    """Targets begin with bare tokens, and their sentinels follow the spans."""
    assert encoded(list(range(11, 17)), "110010") == ([S0, 13, 14, S1, 16, EOS], [11, 12, S0, 15, S1, EOS])


def test_final_sentinel() -> None:
    tokens = list(range(11, 17))
    assert encoded(tokens, "010011", final_sentinel=True)[1] == [S0, 12, S1, 15, 16, S2, EOS]
    assert encoded(tokens, "010010", final_sentinel=True)[1] == [
        S0,
        12,
        S1,
        15,
        S2,
        EOS,
    ]  # there is one already
    assert encoded(tokens, "010011", final_sentinel=True)[0] == encoded(tokens, "010011")[0]


def test_worked_example_from_lengths() -> None:
    """n = 12, density .25, mean 1.5: 3 noise tokens, 2 spans, 12 + 6 slots."""
    objective = SpanCorruption(inputs_length=12, noise_density=0.25, mean_span_length=1.5)
    assert (objective.window_length(), objective.decoder_length) == (12, 6)


def test_full_windows_fill_both_sides_exactly() -> None:
    objective = SpanCorruption()
    batch = objective.examples(windows([568] * 20), keys(20))
    assert {len(used(row)) for row in batch["encoder_input_tokens"]} == {512}
    assert {len(used(row)) for row in batch["decoder_target_tokens"]} == {114}
    assert batch["decoder_loss_weights"].all()
    np.testing.assert_array_equal(
        batch["decoder_input_tokens"][:, 1:], batch["decoder_target_tokens"][:, :-1]
    )
    assert not batch["decoder_input_tokens"][:, 0].any()
    expected = [32099 - i for i in range(28)]
    for row in (*batch["encoder_input_tokens"], *batch["decoder_target_tokens"]):
        assert [i for i in row.tolist() if i >= 32000] == expected  # each once, in order
    assert objective.spans() == 28


@pytest.mark.parametrize("inputs_length", [64, 128, 172, 256, 316, 352, 512, 604, 640, 1024, 1216])
def test_lengths_where_the_published_mask_overflows_too(inputs_length: int) -> None:
    """At 172, 316, 352, 604, 640, 1216 the original cuts its own targets."""
    objective = SpanCorruption(inputs_length=inputs_length)
    batch = objective.examples(windows([objective.window_length()] * 4), keys(4))
    assert all(len(used(row)) == inputs_length for row in batch["encoder_input_tokens"])
    assert batch["decoder_loss_weights"].all()
    assert (batch["decoder_target_tokens"][:, -1] == EOS).all()


@st.composite
def objectives(draw: st.DrawFn) -> SpanCorruption:
    return SpanCorruption(
        inputs_length=draw(st.integers(8, 96)),
        noise_density=draw(st.floats(0.02, 0.9)),
        mean_span_length=draw(st.floats(1, 8)),
        final_sentinel=draw(st.booleans()),
        random_roll=draw(st.booleans()),
        mode=draw(st.sampled_from([None, "R", "X"])),
    )


@settings(max_examples=80, deadline=None)
@given(objectives(), st.data(), st.integers(0, 2**32))
def test_nothing_is_lost(objective: SpanCorruption, data: st.DataObject, seed: int) -> None:
    w = objective.window_length()
    lengths = [w, *data.draw(st.lists(st.integers(0, w), max_size=4))]
    given = windows(lengths, w)
    batch = objective.examples(given, keys(len(lengths), seed))
    bounds = objective.example_lengths(np.array(lengths))
    assert {name: value.shape[1:] for name, value in batch.items()} == {
        name: feature.shape for name, feature in objective.features(T5).items()
    }
    for row, n in enumerate(lengths):
        inputs, targets = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
        restored = objective.restore(inputs, targets, T5)
        np.testing.assert_array_equal(restored, given.tokens[row, :n])
        slack = objective.random_roll + objective.final_sentinel
        for side, ids in (("encoder", used(inputs)), ("decoder", used(targets))):
            assert bounds[side][row] - slack <= len(ids) <= bounds[side][row]
            assert ids[-1:] == ([EOS] if n else [])
            assert ids.count(EOS) == (n > 0)
            spans = [i for i in ids if i >= 32000]
            assert len(set(spans)) == len(spans)
        assert batch["decoder_loss_weights"][row].sum() == len(used(targets))
    assert max(batch["encoder_input_tokens"].max(), batch["decoder_target_tokens"].max()) < T5.size


@given(st.lists(st.booleans(), max_size=30), st.booleans())
def test_any_mask_can_be_undone(mask: list[bool], final: bool) -> None:
    tokens = list(range(11, 11 + len(mask)))
    inputs, targets = encoded(tokens, "".join("01"[m] for m in mask), final_sentinel=final)
    rows = (content(np.array(row, np.int32), T5) for row in (inputs, targets))
    assert restore_spans(*rows, T5.sentinels).tolist() == tokens


def test_a_row_is_the_same_in_any_company() -> None:
    objective, k = SpanCorruption(inputs_length=64), keys(9)
    given = windows([70, 70, 3, 0, 50, 70, 1, 2, 69], 70)

    def some(order: np.ndarray) -> dict[str, np.ndarray]:
        rows = dataclasses.replace(given, tokens=given.tokens[order], lengths=given.lengths[order])
        return objective.examples(rows, k[order])

    together = some(np.arange(9))
    for order in (*(np.array([i]) for i in range(9)), np.random.default_rng(1).permutation(9)):
        for name, value in some(order).items():
            np.testing.assert_array_equal(value, together[name][order])


def test_other_keys_give_other_masks_and_the_same_key_the_same() -> None:
    objective, given = SpanCorruption(inputs_length=64), windows([70] * 50)
    first, again, other = (objective.examples(given, keys(50, seed)) for seed in (0, 0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    same = (first["encoder_input_tokens"] == other["encoder_input_tokens"]).all(axis=1)
    assert same.mean() < 0.1


def test_a_window_too_long_is_a_defect() -> None:
    with pytest.raises(ValueError, match="71 tokens"):
        SpanCorruption(inputs_length=64).examples(windows([71]), keys(1))


def test_encoding_refuses_to_run_out_of_sentinels() -> None:
    few = t5_vocabulary(sentinels=2)
    with pytest.raises(UserError, match="3 spans, and there are 2"):
        SpanCorruption(inputs_length=64).examples(windows([70], vocabulary=few), keys(1))


def test_summary() -> None:
    assert SpanCorruption().summary == "span corruption 15% x 3: 568 raw -> 512 + 114"
