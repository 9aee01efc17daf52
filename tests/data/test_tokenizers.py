from __future__ import annotations

import io
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import small_corpus as corpus
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.byte_bpe import ByteBPETraining
from t5x_like.data.sentences import SentenceRule
from t5x_like.data.tokenizer_training import Training
from t5x_like.data.tokenizers import SentencePieceTokenizer, load_tokenizer
from t5x_like.data.wordpiece import WordPieceTraining
from t5x_like.errors import UserError


def sentencepiece_model(**options) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in corpus.texts() for line in text.split("\n")),
        model_writer=model,
        minloglevel=2,
        **{"vocab_size": 500, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} | options,
    )
    return model.getvalue()


def llama_like() -> SentencePieceTokenizer:
    """Keeps white space as it is and spells unknown characters as bytes."""
    model = sentencepiece_model(
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
    )
    return SentencePieceTokenizer(model)


def sentences(tokenizer, text: str) -> list[str]:
    encoded = tokenizer.encode_documents([text])
    ends = [*encoded.sentences[1:], len(encoded.ids)]
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(encoded.sentences, ends, strict=True)]


# ---- ids


def test_special_ids_are_those_of_t5():
    vocabulary = corpus.tokenizer().vocabulary
    assert (vocabulary.pad, vocabulary.eos, vocabulary.unk, vocabulary.bos) == (0, 1, 2, None)
    assert vocabulary.size == 600
    assert vocabulary.sentinels == tuple(range(599, 499, -1))


def test_text_survives_encoding_and_decoding():
    tokenizer = corpus.tokenizer()
    for text in corpus.texts(10, 500):
        assert tokenizer.decode(tokenizer.encode(text)) == " ".join(text.split())


def test_sentinels_in_the_text_become_their_ids():
    tokenizer = corpus.tokenizer()
    first, second = tokenizer.vocabulary.sentinels[:2]
    ids = tokenizer.encode("the <extra_id_0> of <extra_id_1>")
    assert ids == [*tokenizer.encode("the"), first, *tokenizer.encode("of"), second]
    assert tokenizer.decode(ids) == "the <extra_id_0> of <extra_id_1>"
    assert tokenizer.id_to_piece(first) == "<extra_id_0>"


def test_a_word_goes_on_behind_a_sentinel():
    tokenizer = corpus.tokenizer()
    text = "pre<extra_id_0>dent of <extra_id_1>the <extra_id_99> States"
    ids = tokenizer.encode(text)
    after = ids[ids.index(tokenizer.vocabulary.sentinels[0]) + 1]
    assert not tokenizer.word_starts[after]
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(0, 99), st.sampled_from(["the", " of", "ing", " whale.", " "])), max_size=9
    )
)
def test_decoded_text_encodes_to_the_same_ids(parts):
    tokenizer = corpus.tokenizer()
    text = "a " + "".join(f"<extra_id_{p}>" if isinstance(p, int) else p for p in parts)
    ids = tokenizer.encode(text)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_a_sentinel_that_does_not_exist_is_text():
    tokenizer = corpus.tokenizer()
    ids = tokenizer.encode("the <extra_id_100> of")
    assert not set(ids) & set(tokenizer.vocabulary.sentinels)


def test_documents_never_hold_sentinels():
    tokenizer = corpus.tokenizer()
    encoded = tokenizer.encode_documents(["the <extra_id_0> of"])
    assert not set(encoded.ids.tolist()) & set(tokenizer.vocabulary.sentinels)


def test_decode_drops_padding_ends_and_ids_beyond_the_pieces():
    tokenizer = corpus.tokenizer()
    ids = tokenizer.encode("the whale")
    assert tokenizer.decode([0, *ids, 1, 0, 10_000]) == "the whale"


def test_batch_equals_single():
    tokenizer = corpus.tokenizer()
    some = ["the whale", "", "a <extra_id_3> b"]
    for text, ids in zip(some, tokenizer.encode_batch(some), strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == tokenizer.encode(text)


def test_word_starts_are_the_pieces_with_a_leading_space():
    tokenizer = corpus.tokenizer()
    for index in range(3, 500):
        assert tokenizer.word_starts[index] == tokenizer.id_to_piece(index).startswith("▁")
    assert tokenizer.word_starts[[0, 1, 2, 599]].all()


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(UserError, match="outside the vocabulary of 600"):
        corpus.tokenizer().id_to_piece(600)


def test_a_model_with_its_own_sentinels_gets_no_others():
    names = [f"<extra_id_{i}>" for i in range(99, -1, -1)]
    tokenizer = SentencePieceTokenizer(sentencepiece_model(vocab_size=600, user_defined_symbols=names))
    assert tokenizer.vocabulary.size == 600
    assert len(tokenizer.vocabulary.sentinels) == 100
    assert tokenizer.id_to_piece(tokenizer.vocabulary.sentinels[7]) == "<extra_id_7>"
    ids = tokenizer.encode("the <extra_id_7> of")
    assert tokenizer.vocabulary.sentinels[7] in ids
    assert tokenizer.decode(ids) == "the <extra_id_7> of"


def test_a_model_that_keeps_white_space():
    tokenizer = llama_like()
    assert tokenizer.vocabulary.pad == tokenizer.vocabulary.eos == 2
    assert tokenizer.vocabulary.bos == 1
    text = "Call me Ishmael.\n\n  Some {years} ago. Never mind"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    encoded = tokenizer.encode_documents([text, text])
    assert encoded.ids.tolist() == ids * 2
    assert encoded.documents.tolist() == [0, len(ids)]
    starts = [
        tokenizer.decode(encoded.ids[i : len(ids)]).lstrip()[:4] for i in encoded.sentences if i < len(ids)
    ]
    assert starts == ["Call", "Some", "Neve"]
    ids = tokenizer.encode("a<extra_id_0>b <extra_id_1> c")
    assert tokenizer.encode(tokenizer.decode(ids)) == tokenizer.encode("a <extra_id_0>b <extra_id_1> c")


# ---- sentences


def test_sentences_one_by_one_encode_to_the_whole_document():
    tokenizer = corpus.tokenizer()
    encoded = tokenizer.encode_documents(corpus.texts())
    ends = [*encoded.documents[1:], len(encoded.ids)]
    for text, begin, end in zip(corpus.texts(), encoded.documents, ends, strict=True):
        ids = encoded.ids[begin:end]
        assert ids.tolist() == tokenizer.encode(text), "sentences change the ids"
        starts = encoded.sentences[(encoded.sentences >= begin) & (encoded.sentences < end)]
        assert starts[0] == begin
        pieces = [encoded.ids[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
        again = [tokenizer.encode(tokenizer.decode(piece)) for piece in pieces]
        assert [i for piece in again for i in piece] == ids.tolist()


def test_the_library_s_arrays_and_the_buffers_beneath_them_are_the_same(monkeypatch):
    tokenizer = corpus.tokenizer()
    texts = [*corpus.texts()[:20], "", "a\n\nb “é” \x00\u3000日"]
    found = tokenizer.encode_documents(texts)
    library = tokenizer._processor
    monkeypatch.setattr(tokenizer, "_processor", SimpleNamespace(encode=library.encode))
    for one, other in zip(found, tokenizer.encode_documents(texts), strict=True):
        assert one.dtype == other.dtype and one.tolist() == other.tolist()


def test_where_sentences_begin():
    text = (
        '| Mr|.| Bingley| came|.| "|Is| it| so|?|"| He| said| 3|.|5| times|.| Dr.| J|.| Smith| agreed| it| was| so|.|)'
        "| (|Or| not|!| and| on|.| I|.| Then|\n| a| line|.|”| Yes"
    )
    tokens = text.split("|")
    pieces = sorted(set(tokens))
    ids = np.array([pieces.index(token) for token in tokens])
    starts = SentenceRule(pieces).starts(ids, np.array([0]))
    assert ["".join(tokens[a:b]) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)] == [
        " Mr. Bingley came.",
        ' "Is it so?"',
        " He said 3.5 times.",
        " Dr. J. Smith agreed it was so.)",
        " (Or not! and on.",
        " I.",
        " Then\n",
        " a line.”",
        " Yes",
    ]


def test_lower_case_vocabularies_do_not_ask_for_capitals():
    rule = SentenceRule(["", " one", ".", " two"])
    assert rule.starts(np.array([1, 2, 3, 3]), np.array([0])).tolist() == [0, 2]


def test_no_documents_and_empty_documents():
    tokenizer = corpus.tokenizer()
    nothing = tokenizer.encode_documents([])
    assert [len(part) for part in nothing] == [0, 0, 0]
    encoded = tokenizer.encode_documents(["", "the", ""])
    assert encoded.documents.tolist() == [0, 0, len(encoded.ids)]
    assert encoded.sentences.tolist() == [0]


# ---- files


def test_save_and_load(tmp_path):
    tokenizer = corpus.tokenizer()
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "spiece.model"):
        loaded = load_tokenizer(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.vocabulary == tokenizer.vocabulary


def test_the_number_of_sentinels_is_kept(tmp_path):
    tokenizer = SentencePieceTokenizer(corpus.tokenizer().files["spiece.model"], extra_ids=7)
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).vocabulary.size == 507
    assert load_tokenizer(tmp_path, extra_ids=9).vocabulary.size == 509
    assert tokenizer.fingerprint != corpus.tokenizer().fingerprint


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.model", b"not a model", "not a SentencePiece model"),
        ("x.model", b"", "not a SentencePiece model"),
        ("tokenizer.json", b"{", "not a tokenizer.json"),
        ("tokenizer.json", b"[]", "not a tokenizer.json"),
    ],
)
def test_damaged_tokenizer_files_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        load_tokenizer(tmp_path / name)
    assert error.value.where == str(tmp_path / name)


def test_missing_tokenizers(tmp_path):
    with pytest.raises(UserError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        load_tokenizer(tmp_path / "x.model")


def test_a_bad_settings_file_is_named(tmp_path):
    corpus.tokenizer().save(tmp_path)
    (tmp_path / "spiece.json").write_text('{"extra_ids": "many"}')
    with pytest.raises(UserError, match="number of sentinels") as error:
        load_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path / "spiece.json")


def test_a_model_without_an_end_is_refused():
    model = sentencepiece_model(eos_id=-1)
    with pytest.raises(UserError, match="no end-of-sequence"):
        SentencePieceTokenizer(model)


# ---- training


def test_training_twice_gives_the_same_bytes():
    training = Training(vocab_size=400, character_coverage=1.0)
    first, second = (training.train(corpus.texts()) for _ in range(2))
    assert first.files == second.files
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_too_large_a_vocabulary_names_the_largest_that_works(model_type):
    some = corpus.texts()[:2]
    with pytest.raises(UserError, match="too small for a vocabulary of 50000") as error:
        Training(vocab_size=50000, model_type=model_type).train(some)
    assert error.value.help is not None
    size = int(error.value.help.split("=")[1].split(",")[0])
    assert Training(vocab_size=size, model_type=model_type).train(some).vocabulary.size == size


def test_too_small_a_vocabulary_names_one_that_works():
    with pytest.raises(UserError, match="is too small: the alphabet") as error:
        Training(vocab_size=110).train(corpus.texts())
    assert error.value.help is not None
    size = int(error.value.help.split("=")[1].split(",")[0])
    assert Training(vocab_size=size).train(corpus.texts()).vocabulary.size == size


def test_impossible_trainings_are_refused_before_reading():
    with pytest.raises(UserError, match="counts pieces and sentinels"):
        Training(vocab_size=100).check()
    with pytest.raises(UserError, match="character_coverage"):
        Training(character_coverage=0.5).check()
    with pytest.raises(UserError, match="no text to train"):
        Training(vocab_size=500).train([])


def test_byte_fallback_leaves_nothing_unknown():
    text = "Ünïcödé {braces} 漢字"
    plain = Training(vocab_size=800).train(corpus.texts())
    fallback = Training(vocab_size=800, byte_fallback=True).train(corpus.texts())
    assert plain.vocabulary.unk in plain.encode(text)
    assert fallback.vocabulary.unk not in fallback.encode(text)
    assert fallback.decode(fallback.encode(text)) == text


def test_long_lines_are_not_left_out_of_training():
    text = " ".join(f"word{i % 50}" for i in range(5000))
    tokenizer = Training(vocab_size=120).train([text])
    assert tokenizer.vocabulary.unk not in tokenizer.encode("word17 word3")


# ---- Hugging Face


def byte_level(tmp_path, **special):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<pad>", "<extra_id_0>", "<extra_id_1>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.texts(), trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return load_tokenizer(tmp_path)


def test_byte_level_tokenizer_json(tmp_path):
    tokenizer = byte_level(tmp_path)
    assert (tokenizer.vocabulary.eos, tokenizer.vocabulary.pad, tokenizer.vocabulary.sentinels) == (
        0,
        1,
        (2, 3),
    )
    text = "Call me Ishmael.\nSome  years ago {never} mind. Having little"
    ids = tokenizer.encode(text)
    assert tokenizer.decode([1, *ids, 0]) == text
    assert tokenizer.encode("a <extra_id_1> b")[1:-1].count(3) == 1
    encoded = tokenizer.encode_documents([text, "the <extra_id_0> of"])
    assert encoded.ids[: len(ids)].tolist() == ids
    assert 2 not in encoded.ids
    assert tokenizer.encode("<extra_id_0>") == [2], "documents must not change how prompts are read"
    assert [s.strip()[:4] for s in sentences(tokenizer, text)] == ["Call", "Some", "Havi"]
    assert tokenizer.word_starts[tokenizer.encode(" the")[0]]
    assert not tokenizer.word_starts[tokenizer.encode("the")[0]]


def test_tokenizer_json_saves_what_it_was_loaded_from(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<extra_id_1>"}}))
    tokenizer = byte_level(tmp_path)
    assert tokenizer.vocabulary.eos == 3, "tokenizer_config.json names the special tokens"
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint


def test_word_piece_tokenizer_json(tmp_path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(corpus.texts(), trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    vocabulary = loaded.vocabulary
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert vocabulary.eos == vocabulary.sep
    assert vocabulary.sentinels == ()
    ids = loaded.encode("congratulations")
    assert loaded.word_starts[ids].tolist() == [True] + [False] * (len(ids) - 1)
    assert len(ids) > 1


# ---- lengths

LINES = (
    "",
    " ",
    "The whale",
    "  the whale\t",
    "a\u00a0b",
    "\u2028x",
    "don't\r",
    "## [MASK] </s>",
    "e\u0301.\u200b",
)


@pytest.mark.parametrize("model", ["unigram", "llama", "wordpiece", "bytebpe"])
def test_lengths_are_those_of_the_documents(model):
    """Lines that are there twice are looked at once, where lines are apart."""
    tokenizer = {
        "unigram": corpus.tokenizer,
        "llama": llama_like,
        "wordpiece": lambda: WordPieceTraining(vocab_size=700).train(corpus.texts()),
        "bytebpe": lambda: ByteBPETraining(vocab_size=400).train(corpus.texts()),
    }[model]()
    draw = random.Random(3)
    made = ["\n".join(draw.choices(LINES, k=draw.randrange(8))) for _ in range(200)]
    texts = [*made, *made[:20], *corpus.texts(), "", "\n\n"]
    expected = [len(tokenizer.encode_documents([text]).ids) for text in texts]
    assert tokenizer.lengths(texts).tolist() == expected and max(expected) > 100
    assert tokenizer.lengths([]).tolist() == []
    assert tokenizer.lines_apart == (model in ("unigram", "wordpiece"))
