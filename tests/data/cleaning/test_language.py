"""Languages are told apart as the references tell them apart."""

from __future__ import annotations

import random

import pytest
import tfds_c4
import web_pages
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_like.data.cleaning import langdetect, language_codes
from t5x_like.data.cleaning.language import CLD3, FastText, LangDetect, _fasttext
from t5x_like.data.cleaning.language_codes import MC4_LANGUAGES
from t5x_like.data.documents import Document
from t5x_like.errors import UserError

GREETINGS = {
    "en": "The children went down to the river in the morning, and their mother told them to come back before noon.",
    "de": "Die Kinder gingen am Morgen zum Fluss hinunter, und ihre Mutter sagte, sie sollten bis Mittag zurück sein.",
    "fr": "Les enfants sont descendus à la rivière le matin, et leur mère leur a dit de revenir avant midi.",
    "ru": "Утром дети спустились к реке, и мать сказала им вернуться до полудня, чтобы вместе пообедать.",
    "ja": "子供たちは朝、川へ下りていった。母親は昼までに戻ってくるように言った。それからみんなで昼ご飯を食べた。",
    "zh": "早上孩子们到河边去了，母亲告诉他们中午以前要回来，然后大家一起吃午饭，下午再去山上玩。",
    "ar": "ذهب الأطفال إلى النهر في الصباح وطلبت منهم أمهم أن يعودوا قبل الظهر حتى يتناولوا الغداء معا",
    "ko": "아이들은 아침에 강으로 내려갔고 어머니는 정오 전에 돌아오라고 말했다. 그리고 함께 점심을 먹었다.",
}
MIXED = (
    "",
    "12345 !!! ???",
    "ok",
    "NASA USA",
    GREETINGS["en"] + " " + GREETINGS["de"],
    GREETINGS["ru"] + " and a few words of English that stand behind",
    "http://example.org/page?x=1 someone@example.org " * 3,
    "ỗ ế ơ ư Tôi yêu tiếng Việt của tôi, tiếng nói của mẹ.",
    "Abc DEF GHI jKL ÀÉÎ ŞŢ șț",
)
TEXTS = (*GREETINGS.values(), *MIXED)


def _detect_english(document: Document) -> tuple[str, str]:
    with tfds_c4.reference() as counted:
        pages = list(tfds_c4.c4_utils.detect_english(tfds_c4.page(document)))
    return (
        ("", pages[0].text)
        if pages
        else (next(tfds_c4.REASONS[c] for c in counted if c in tfds_c4.REASONS), "")
    )


@pytest.mark.parametrize("text", [*TEXTS, *web_pages.LINES])
def test_english_as_the_reference_detects_it(text):
    pytest.importorskip("langdetect")
    document = Document(text)
    assert tfds_c4.outcome(LangDetect()(document)) == _detect_english(document)


def test_english_prose_and_pages_as_the_reference_detects_them():
    pytest.importorskip("langdetect")
    halves = [GREETINGS["en"][: 10 * n] + " " + GREETINGS["de"][: 10 * n] for n in range(1, 10)]
    texts = [*web_pages.prose(12), *web_pages.synthetic(40)[::7], *halves]
    reasons = set()
    for text in texts:
        expected = _detect_english(Document(text))
        assert tfds_c4.outcome(LangDetect()(Document(text))) == expected
        reasons.add(expected[0])
    assert reasons >= {"", "low_confidence"}


@pytest.mark.parametrize("text", TEXTS)
def test_languages_of_mc4_as_the_reference_detects_them(text):
    gcld3 = pytest.importorskip("gcld3")
    found = gcld3.NNetLanguageIdentifier(min_num_bytes=100, max_num_bytes=10000).FindLanguage(text)
    rule = CLD3(languages=MC4_LANGUAGES)
    known = found.is_reliable and found.probability >= 0.95
    ours = rule(Document(text))
    assert ours.language == (found.language if known else "und")
    strict = CLD3(languages=("sw",), keep_unknown=False)(Document(text))
    assert strict.reason == (
        "other_language" if known else "low_confidence" if found.is_reliable else "no_language"
    )


def test_mc4_has_its_languages():
    assert len(MC4_LANGUAGES) == 107 and sum("-" in name for name in MC4_LANGUAGES) == 6
    c4 = pytest.importorskip("tensorflow_datasets.text.c4")
    assert list(MC4_LANGUAGES) == c4.MC4_LANGUAGES


@pytest.mark.parametrize("rule", [LangDetect, CLD3, FastText])
def test_languages_that_no_text_is_in(rule):
    with pytest.raises(UserError, match="no language 'klingon'") as error:
        rule(languages=("en", "klingon"))
    assert error.value.where == "languages" and "fr" in error.value.help
    with pytest.raises(UserError) as error:
        rule(languages=("EN",))
    assert error.value.help == "did you mean en?"


def test_some_language_is_kept():
    for rule, others in ((LangDetect, {}), (CLD3, {"keep_unknown": False}), (FastText, {})):
        with pytest.raises(UserError, match="keep no language"):
            rule(languages=(), **others)
    assert CLD3(languages=()).keep_unknown, "what is kept is the unknown"


def test_codes_are_those_of_the_packages():
    pytest.importorskip("langdetect")
    assert set(language_codes.LANGDETECT) == set(langdetect._profiles().languages)
    pytest.importorskip("fasttext")
    labels, _ = _fasttext().predict("hello", k=-1, threshold=-1.0)
    assert set(language_codes.FASTTEXT) == {label.removeprefix("__label__") for label in labels}


@pytest.mark.parametrize("language", GREETINGS)
def test_fasttext_knows_what_it_reads(language):
    pytest.importorskip("fasttext")
    found = FastText(languages=(language,), min_probability=0.5)(Document(GREETINGS[language]))
    assert (
        isinstance(found, Document) and found.language == language and 0.5 < found.language_probability <= 1
    )
    other = FastText(languages=("sw",))(Document(GREETINGS[language]))
    assert other.reason == "other_language" and other.detail.startswith(language)


_letters = st.text(st.sampled_from("abz AÉñßŞȘșăÂạ́ế.,[]^_@/:-日本ひカ한글русی ه ع \n\u2014"), max_size=60)


@settings(max_examples=150, deadline=None)
@given(_letters | st.text(max_size=40) | st.lists(st.sampled_from(TEXTS), max_size=2).map(" ".join))
def test_probabilities_are_those_of_langdetect(text):
    package = pytest.importorskip("langdetect")
    package.DetectorFactory.seed = 0
    try:
        expected = [(found.lang, found.prob) for found in package.detect_langs(text)]
    except package.lang_detect_exception.LangDetectException:
        expected = []
    found = langdetect.probabilities(text)
    assert [language for language, _ in found] == [language for language, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected], rel=1e-9)


def test_draws_are_those_of_the_random_module():
    for seed in (0, 1, 7):
        expected, found = random.Random(seed), langdetect._Draws(seed)
        for among in (1, 2, 3, 17, 1000, 29_999):
            assert found.gauss() == pytest.approx(expected.gauss(0.0, 1.0), rel=1e-12)
            places, ends = found.choices(among, 60)
            found.used(int(ends[40]))
            assert places[:41].tolist() == [expected.choice(range(among)) for _ in range(41)]
