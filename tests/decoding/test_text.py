"""Text in, text out: blanks, order, truncation, buckets; on a small random T5 with a small tokenizer."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from t5x_like.data.tokenizers import SentencePieceTokenizer
from t5x_like.decoding.beam import Beam
from t5x_like.decoding.sampling import Sampling, greedy
from t5x_like.decoding.text import TextModel, insert_spans, split_spans
from t5x_like.models.t5 import T5

WORDS = "the whale swims under a ship while men sing walk ing s of old seas and storms"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    import sentencepiece

    folder = tmp_path_factory.mktemp("tokenizer")
    text = folder / "text.txt"
    rng = np.random.default_rng(0)
    text.write_text("\n".join(" ".join(rng.permutation(WORDS.split())) for _ in range(50)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "m"),
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return SentencePieceTokenizer((folder / "m.model").read_bytes(), extra_ids=10)


@pytest.fixture(scope="module")
def text_model(tokenizer):
    model = T5(vocab_size=256, d_model=16, d_kv=4, num_heads=2, d_ff=32, num_layers=1)
    params = model.init(jax.random.key(0))
    return TextModel(model=model, params=params, tokenizer=tokenizer, batch_size=3, max_input_length=40)


def test_spans_go_where_their_blanks_are(tokenizer):
    s = tokenizer.vocabulary.sentinels

    def span(text):
        return list(tokenizer.encode(text))

    def suffix(text):  # ids that go on with a word
        return list(tokenizer.encode(f"<extra_id_0>{text}"))[1:]

    generated = [
        *span("sing"),
        s[0],
        *span("old whale"),
        s[1],
        *suffix("s"),
        s[2],
        s[0],
        *span("men"),
        1,
        s[3],
    ]
    spans = split_spans(generated, tokenizer)
    assert spans == {0: span("old whale"), 1: suffix("s"), 2: []}
    assert insert_spans("The <extra_id_0> sing <extra_id_1>, now.", spans, tokenizer) == (
        "The old whale sings, now.",
        ("old whale", "s"),
    )
    assert insert_spans("<extra_id_0> sing", spans, tokenizer)[0] == "old whale sing"
    assert insert_spans("The<extra_id_0> sing", spans, tokenizer)[0] == "The old whale sing"
    assert insert_spans("men <extra_id_2> sing", spans, tokenizer) == ("men sing", ("",))
    assert insert_spans("<extra_id_2> sing", spans, tokenizer)[0] == "sing"
    assert insert_spans("men <extra_id_3> sing", spans, tokenizer) == ("men <extra_id_3> sing", (None,))
    assert insert_spans("no blank ", spans, tokenizer) == ("no blank ", ())


def test_results_are_in_order_and_do_not_depend_on_company(text_model):
    texts = ["whale", WORDS, "a ship <extra_id_0> men", "old seas and storms", " ".join([WORDS] * 4), ""]
    for strategy in (Beam(num_beams=2, max_length=6), Sampling(max_length=6)):
        together = text_model.generate(texts, strategy, seed=3)
        for i, text in enumerate(texts):
            alone = text_model.generate([text], strategy, seed=3, first_index=i)[0]
            assert alone.text == together[i].text
            assert alone.score == pytest.approx(together[i].score, rel=1e-4)
            assert alone.truncated == together[i].truncated
    assert [r.truncated for r in together] == [False, False, False, False, True, False]


def test_scores_of_targets_match_the_score_of_what_was_generated(text_model):
    texts = ["whale", "a ship <extra_id_0> men", WORDS]
    pairs = [(text, "old whale") for text in texts] + [("men", "the")]
    scored = text_model.score(pairs)
    assert [s.pieces[-1] for s in scored] == ["</s>"] * 4
    for result in scored:
        assert len(result.pieces) == len(result.token_scores)
        assert result.score == pytest.approx(sum(result.token_scores))
    alone = text_model.score(pairs[1:2])[0]
    np.testing.assert_allclose(alone.token_scores, scored[1].token_scores, rtol=1e-4)
    assert scored[0].score != pytest.approx(scored[1].score, rel=1e-3)


def test_fill_of_a_random_model_keeps_the_text_around_the_blank(text_model):
    filled = text_model.fill(["men <extra_id_0> sing"], greedy(5))[0]
    assert filled.text.startswith("men") and filled.text.endswith("sing")
    assert len(filled.spans) == 1
