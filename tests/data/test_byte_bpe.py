from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_corpus as corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.byte_bpe import ByteBPETraining, from_files, from_merges
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import UserError

MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("\u0120", "w"), ("'", "s"), ("\u010a", "\u010a")]


def bytes_in_order() -> list[str]:
    """GPT-2's spelling of the bytes: the printable ones stand for themselves, the other 68 from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, printable), *(chr(256 + i) for i in range(68))]


def vocabulary(*special: str, last: tuple[str, ...] = ()) -> dict[str, int]:
    pieces = [*special, *bytes_in_order(), *("".join(pair) for pair in MERGES), *last]
    return {piece: index for index, piece in enumerate(pieces)}


def roberta():
    return from_merges(vocabulary("<s>", "<pad>", "</s>", "<unk>", last=("<mask>",)), list(MERGES))


def pieces(tokenizer, text: str) -> list[str]:
    return [tokenizer.id_to_piece(index) for index in tokenizer.encode(text)]


def trained():
    return ByteBPETraining(vocab_size=700).train(corpus.texts())


# ---- GPT-2's rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the the", "the \u0120the"),  # the first word has no space before it
        (" the", "\u0120the"),
        ("the  the", "the \u0120 \u0120the"),  # of several spaces the last belongs to the word
        ("the's", "the 's"),  # contractions are parts of their own
        ("the.w", "the . w"),
        ("the\n\nthe", "the \u010a \u010a the"),  # the last white space before a word is a part of its own
        ("the\n\n", "the \u010a\u010a"),
        ("\u00e9", "\u00c3 \u00a9"),  # bytes of UTF-8
        ("", ""),
    ],
)
def test_pieces(text, expected):
    assert pieces(roberta(), text) == expected.split()


def test_ids_are_robertas():
    known = roberta().vocabulary
    assert (known.bos, known.pad, known.eos, known.unk, known.mask) == (0, 1, 2, 3, known.size - 1)
    assert (known.cls, known.sep) == (0, 2), "<s> and </s> frame the segments"


def test_words_begin_with_white_space():
    tokenizer = roberta()
    ids = tokenizer.encode("the the, w\nthe")
    assert [tokenizer.id_to_piece(i) for i in ids] == ["the", "\u0120the", ",", "\u0120w", "\u010a", "the"]
    assert tokenizer.word_starts[ids].tolist() == [False, True, False, True, True, False]
    assert tokenizer.word_starts[[0, 1, 2, 3, tokenizer.vocabulary.size - 1]].all()


def test_the_mask_takes_its_space_along():
    tokenizer = roberta()
    assert pieces(tokenizer, "the <mask> the") == ["the", "<mask>", "\u0120the"]
    assert tokenizer.vocabulary.mask not in tokenizer.encode_documents(["the <mask>"]).ids


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=20))
def test_any_text_survives(text):
    tokenizer = roberta()
    assert tokenizer.decode(tokenizer.encode_documents([text]).ids) == text


def test_decoding_leaves_the_frame_out():
    tokenizer = roberta()
    ids = tokenizer.encode("the the")
    assert tokenizer.decode([0, *ids, 2, 1, 1]) == "the the"


def test_sentences():
    tokenizer = trained()
    encoded = tokenizer.encode_documents(["The whale. He said 3.5 to us.\nThe end"])
    ends = [*encoded.sentences[1:], len(encoded.ids)]
    parts = [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(encoded.sentences, ends, strict=True)]
    assert parts == ["The whale.", " He said 3.5 to us.\n", "The end"]


# ---- files


def write(folder: Path, ids: dict[str, int], names: tuple[str, str]) -> None:
    (folder / names[0]).write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / names[1]).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_the_two_files(tmp_path, names):
    write(tmp_path, vocabulary("<s>", "<pad>", "</s>", "<unk>", last=("<mask>",)), names)
    expected = roberta().fingerprint
    for path in (tmp_path, tmp_path / names[0], tmp_path / names[1]):
        assert load_tokenizer(path).fingerprint == expected
    load_tokenizer(tmp_path).save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == expected


def test_gpt2s_only_special_token():
    ids = vocabulary(last=("<|endoftext|>",))
    tokenizer = from_files(json.dumps(ids).encode(), b"#version: 0.2\n")
    known = tokenizer.vocabulary
    assert known.eos == known.bos == known.pad == known.size - 1
    assert (known.mask, known.cls, known.sep) == (None, None, None)


def test_tokenizer_config_decides(tmp_path):
    ids = vocabulary("<s>", "<pad>", "</s>", "<unk>", last=("<mask>",))
    config = {"add_prefix_space": True, "mask_token": {"content": "~"}}
    lines = "\n".join(" ".join(pair) for pair in MERGES).encode()
    tokenizer = from_files(json.dumps(ids).encode(), lines, json.dumps(config).encode())
    assert pieces(tokenizer, "the") == ["\u0120the"]
    assert tokenizer.vocabulary.mask == ids["~"]


@pytest.mark.parametrize(
    ("ids", "merges", "says"),
    [
        ("{", "", "not a byte-level BPE"),
        ("[]", "", "piece -> id"),
        ('{"a": "b"}', "", "piece -> id"),
        ('{"a": 0, "</s>": 1}', "#version: 0.2\na b\n", "line 2 of the merges is 'a b'"),
        ('{"a": 0, "</s>": 1}', "a\n", "line 1"),
    ],
)
def test_files_that_are_damaged_or_of_two_tokenizers(tmp_path, ids, merges, says):
    (tmp_path / "vocab.json").write_text(ids)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(UserError, match=says) as error:
        load_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path / "vocab.json")


def test_merges_are_missed(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match="cannot read the tokenizer") as error:
        load_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path / "merges.txt")


# ---- training


def test_a_trained_vocabulary():
    tokenizer = trained()
    known = tokenizer.vocabulary
    assert (known.size, known.bos, known.pad, known.eos, known.unk, known.mask) == (700, 0, 1, 2, 3, 699)
    text = corpus.texts()[0]
    assert len(tokenizer.encode(text)) < len(text) / 2
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_gives_the_same_bytes_in_every_process():
    script = (
        "import hashlib, small_corpus\n"
        "from t5x_like.data.byte_bpe import ByteBPETraining\n"
        "files = ByteBPETraining(vocab_size=700).train(small_corpus.texts()).files\n"
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
        ByteBPETraining(vocab_size=60000).train(some)
    assert error.value.help is not None
    size = int(error.value.help.split("=")[1].split(",")[0])
    assert ByteBPETraining(vocab_size=size).train(some).vocabulary.size == size
    with pytest.raises(UserError, match="need 261"):
        ByteBPETraining(vocab_size=260).check()
    with pytest.raises(UserError, match="no text"):
        ByteBPETraining().train([""])
