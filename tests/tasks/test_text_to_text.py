"""T5's formats: golden strings of t5/data/preprocessors.py, and the way back."""

from __future__ import annotations

import pytest

from t5x_like.errors import UserError
from t5x_like.tasks import definitions, text_to_text
from t5x_like.tasks.examples import Example


@pytest.mark.parametrize(
    "task, texts, label, inputs, target",
    [
        ("cola", ("They drank.",), 1, "cola sentence: They drank.", "acceptable"),
        ("sst2", ("a joy",), 1, "sst2 sentence: a joy", "positive"),
        ("mrpc", ("A a.", "B b."), 0, "mrpc sentence1: A a. sentence2: B b.", "not_equivalent"),
        ("qqp", ("Who?", "What?"), 1, "qqp question1: Who? question2: What?", "duplicate"),
        ("stsb", ("A.", "B."), 3.25, "stsb sentence1: A. sentence2: B.", "3.2"),
        (
            "mnli",
            ("It rains.", "It is wet."),
            0,
            "mnli hypothesis: It is wet. premise: It rains.",
            "entailment",
        ),
        ("mnli_mismatched", ("p", "h"), 2, "mnli hypothesis: h premise: p", "contradiction"),
        ("qnli", ("Who?", "She."), 1, "qnli question: Who? sentence: She.", "not_entailment"),
        ("rte", ("A.", "B."), 0, "rte sentence1: A. sentence2: B.", "entailment"),
        ("rotten_tomatoes", ("fine",), 0, "rotten_tomatoes text: fine", "negative"),
        (
            "swag",
            ("She sits.", "She eats.", "She flies.", "She is.", "She was."),
            2,
            "swag choice1: She eats. choice2: She flies. choice3: She is. choice4: She was. premise: She sits.",
            "choice3",
        ),
    ],
)
def test_golden(task, texts, label, inputs, target):
    task, example = definitions.find(task), Example("", texts, label)
    assert text_to_text.inputs(task, example) == inputs
    assert text_to_text.target(task, example) == target
    back = text_to_text.prediction(task, target)
    assert back == (pytest.approx(label, abs=0.1) if task.kind == "regression" else label)


def test_squad():
    task = definitions.find("squad")
    example = Example("", ("Who's first?", 'He said:  "No-one."'), True, ("No-one",), (10,))
    assert (
        text_to_text.inputs(task, example) == 'question: Who \' s first ? context: He said : " No - one . " '
    )
    assert text_to_text.target(task, example) == "No - one"
    assert text_to_text.target(task, example._replace(answers=(), starts=())) == "no answer"
    assert text_to_text.prediction(task, "no answer") == ""


@pytest.mark.parametrize(
    "value, text",
    [(0.1, "0.0"), (0.3, "0.4"), (0.5, "0.4"), (0.7, "0.8"), (5, "5.0"), (-0.05, "0.0"), (2.6, "2.6")],
)
def test_numbers_are_written_to_a_fifth(value, text):
    assert text_to_text.number(value) == text  # halves to the even fifth: 0.1 is 0.5 fifths, 0.5 is 2.5


def test_what_cannot_be_read():
    for text in ("much", "nan", "inf", "1e999"):
        assert text_to_text.prediction(definitions.find("stsb"), text) == -1.0
    assert text_to_text.prediction(definitions.find("sst2"), "fine") == -1


def test_tagging_is_refused():
    with pytest.raises(UserError, match="no text-to-text format"):
        text_to_text.check(definitions.find("conll2003_ner"))


def test_no_label():
    assert text_to_text.target(definitions.find("sst2"), Example("", ("x",))) == "<unk>"
