"""Pages are rejected for their words exactly where the reference rejects them."""

from __future__ import annotations

import dataclasses
import os

import pytest
import tfds_c4
import web_pages
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.cleaning import files
from t5x_like.data.cleaning.addresses import BlockedURLs
from t5x_like.data.cleaning.badwords import _ALLOWED, BadWords
from t5x_like.data.cleaning.base import Rejection
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

LISTS = {
    language: set(words) - _ALLOWED.get(language, set()) for language, words in files.bad_words().items()
}
FILTERS = {share: tfds_c4.c4_utils.get_badwords_filter_fn(LISTS, share) for share in (1.0, 0.999, 0.5, 0.0)}
LANGUAGES = ("en", "en-Latn", "ja", "th", "zh", "fr", "de", "fil", "xx", "und")


def _same(document: Document) -> bool:
    for share, reference in FILTERS.items():
        with tfds_c4.reference():
            kept = reference(tfds_c4.page(document))
        assert (BadWords(share=share)(document) == document) == kept, share
    return BadWords()(document) == document


def test_the_list_is_the_one_that_c4_reads():
    sizes = {language: len(words) for language, words in files.bad_words().items()}
    assert len(sizes) == 27 and sizes["en"] == 377 and sizes["fr"] == 98 and sizes["zh"] == 318
    assert all("" not in words for words in files.bad_words().values())


@pytest.mark.parametrize("language", sorted(LISTS))
def test_every_word_of_the_list_alone_and_in_text(language):
    rejected = 0
    words = [word for word in files.bad_words()[language] if word == word.lower()]
    for word in files.bad_words()[language]:
        for text in (
            word,
            f"A {word}, B",
            f"x{word}",
            f"{word}y",
            f"_{word}_",
            f"1{word}",
            f"({word})\n",
            word.upper(),
        ):
            rejected += not _same(Document(text, f"http://e.org/{word}", language=language))
    assert rejected >= 3 * len(set(words) & LISTS[language])


_words = st.sampled_from(sorted(word for words in LISTS.values() for word in words))
_texts = st.lists(
    _words | st.sampled_from([" ", "\n", "a", "_", "é", "日", "'", "-", "1"]) | st.text(max_size=3)
).map("".join)


@settings(max_examples=200, deadline=None)
@given(_texts, st.sampled_from(LANGUAGES), st.text(max_size=10))
def test_any_text_of_any_language(text, language, url):
    _same(Document(text, url, language=language))


def test_prose():
    kept = [
        _same(Document(text, str(number), language="en")) for number, text in enumerate(web_pages.prose(30))
    ]
    assert 0 < sum(kept) < len(kept)


def test_a_share_of_the_pages_passes_by_their_address():
    page = Document("porn", language="en")
    kept = [
        isinstance(BadWords(share=0.9)(dataclasses.replace(page, url=str(number))), Document)
        for number in range(2000)
    ]
    assert 150 < sum(kept) < 250  # 10 % of 2000, four standard deviations


def test_lists_of_ones_own(tmp_path):
    (tmp_path / "words.txt").write_text("Zwetschge\nkraut\n", encoding="utf-8")
    (tmp_path / "words.json").write_text('{"de": ["kraut"], "ja": ["\\u8349"]}')
    text = BadWords(lists=str(tmp_path / "words.txt"), language="de")
    assert text(Document("Das Kraut!")).detail == "kraut"
    assert text(Document("Das Unkraut!")) == Document("Das Unkraut!")
    assert text(Document("Kraut", language="en")) == Document("Kraut", language="en")
    several = BadWords(lists=str(tmp_path / "words.json"))
    assert several(Document("雑木", language="ja")) == Document("雑木", language="ja")
    assert several(Document("雑草木", language="ja")).reason == "bad_word"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "no such file"),
        ("a.json", b"[1]", "expected an object of language"),
        ("b.json", b'{"en": [""]}', "an empty word"),
        ("c.json", b"{", "is no JSON"),
        ("d.txt", b"caf\xe9\n", "is not UTF-8"),
    ],
)
def test_lists_that_cannot_be_used_are_told_with_their_file(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        BadWords(lists=str(tmp_path / name))(Document("text"))
    assert name in str(error.value)


def test_words_of_ones_own_may_have_capitals(tmp_path):
    (tmp_path / "words.txt").write_text("Foo Bar\n")
    (tmp_path / "words.json").write_text('{"en": ["Foo Bar"]}')
    for name in ("words.txt", "words.json"):
        found = BadWords(lists=str(tmp_path / name))(Document("This is foo bar."))
        assert isinstance(found, Rejection) and found.detail == "foo bar"


def test_a_language_without_a_list():
    with pytest.raises(UserError, match="no list of bad words for 'xx'"):
        BadWords(language="xx")(Document("Text."))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\n"])
def test_a_list_without_a_word_lets_nothing_pass(tmp_path, content):
    path = tmp_path / "words"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds nothing"):
        BadWords(lists=str(path))(Document("Text."))


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    for content in ("\ufefffox\ndog", "\ufefffox"):
        (tmp_path / "words").write_text(content, encoding="utf-8")
        found = BadWords(lists=str(tmp_path / "words"))(Document("A fox."))
        assert isinstance(found, Rejection) and found.detail == "fox"


def test_lists_that_cannot_be(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, says in (
        ("", "no file is named"),
        (f"{tmp_path}/pipe", "not a regular file"),
        ("nowhere://words", "cannot be opened"),
    ):
        with pytest.raises(UserError, match=says):
            list(BadWords(lists=name).files_read())
    with pytest.raises(UserError, match="is no JSON"):
        BadWords(lists=f"{tmp_path}/deep.json")(Document("Text."))
    with pytest.raises(UserError, match="no list"):
        list(BlockedURLs().files_read())
