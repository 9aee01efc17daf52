"""From the bytes of a page to its characters: byte order mark, declared charset, then what the bytes allow.

Source: WHATWG, Encoding and HTML standards (labels; order of byte order mark, transport, meta). Their labels are a
closed list here: Python's registry of codecs also has transformations that no page may name.
"""

from __future__ import annotations

import codecs
import re

from t5x_like.errors import UserError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta\b[^>]*?charset\s*=\s*[\"']?\s*([A-Za-z0-9._:\-]{1,40})", re.I)
_XML = re.compile(rb"\s*<\?xml\b[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._:\-]{1,40})[\"']", re.I)
_PRESCAN = 4096

# What browsers decode the label with -> its labels. Python's codec is the key.
_LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 x-unicode20utf8",
    "cp1252": "windows-1252 cp1252 x-cp1252 iso-8859-1 iso8859-1 iso88591 iso_8859-1 latin1 latin-1 l1 ascii us-ascii "
    "ansi_x3.4-1968 iso-ir-100 ibm819 cp819",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251 win-1251",
    "cp1253": "windows-1253 cp1253 x-cp1253",
    "cp1254": "windows-1254 cp1254 x-cp1254 iso-8859-9 iso8859-9 latin5 l5",
    "cp1255": "windows-1255 cp1255 x-cp1255",
    "cp1256": "windows-1256 cp1256 x-cp1256",
    "cp1257": "windows-1257 cp1257 x-cp1257",
    "cp1258": "windows-1258 cp1258 x-cp1258",
    "cp874": "windows-874 tis-620 iso-8859-11 iso8859-11 dos-874",
    "cp866": "ibm866 cp866 866",
    "iso8859-2": "iso-8859-2 iso8859-2 latin2 l2",
    "iso8859-3": "iso-8859-3 iso8859-3 latin3 l3",
    "iso8859-4": "iso-8859-4 iso8859-4 latin4 l4",
    "iso8859-5": "iso-8859-5 iso8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 iso8859-6 arabic asmo-708",
    "iso8859-7": "iso-8859-7 iso8859-7 greek greek8",
    "iso8859-8": "iso-8859-8 iso8859-8 hebrew visual iso-8859-8-i logical",
    "iso8859-10": "iso-8859-10 iso8859-10 latin6 l6",
    "iso8859-13": "iso-8859-13 iso8859-13",
    "iso8859-14": "iso-8859-14 iso8859-14",
    "iso8859-15": "iso-8859-15 iso8859-15 latin9 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "koi8-r koi koi8 koi8_r",
    "koi8-u": "koi8-u koi8-ru",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "gb18030 gb2312 gbk x-gbk gb_2312 gb_2312-80 chinese csgb2312",
    "big5hkscs": "big5 big5-hkscs cn-big5 x-x-big5 csbig5",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji windows-31j ms932",
    "euc_jp": "euc-jp x-euc-jp",
    "iso2022_jp": "iso-2022-jp csiso2022jp",
    "cp949": "euc-kr ks_c_5601-1987 ks_c_5601-1989 ksc5601 korean windows-949 cseuckr",
    "utf-16-le": "utf-16 utf-16le unicode ucs-2 iso-10646-ucs-2",
    "utf-16-be": "utf-16be unicodefffe",
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
MOST_REPLACED = 0.01
"""Share of characters that may turn out to be undecodable before a page counts as unreadable."""


def decode(data: bytes, declared: str = "") -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """The characters of a page, without byte order mark, and what had to be mended on the way.

    Args:
      data: the page.
      declared: charset of the Content-Type field; empty where there is none.

    Returns:
      (text, ((kind, detail), ...)), or None where the bytes are not text in any charset that could be meant.
      Kinds: `unknown_charset` (declared, but there is none of this name), `wrong_charset` (the bytes are not in the
      declared charset, another fits), `invalid_bytes` (a few bytes became U+FFFD).
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return _leniently(data[len(mark) :], codec, ())
    mended: tuple[tuple[str, str], ...] = ()
    names = [
        declared,
        *(found[1].decode() for found in (_META.search(data, 0, _PRESCAN), _XML.match(data)) if found),
    ]
    codecs_named: list[str] = []
    for index, name in enumerate(names):
        if not name:
            continue
        codec = _CODECS.get(name.lower())
        if codec is None:
            mended += (("unknown_charset", name),)
        elif codec.startswith("utf-16") and index:
            codecs_named.append("utf-8")  # a meta element that could be read is not in UTF-16
        else:
            codecs_named.append(codec)
    for codec in dict.fromkeys([*codecs_named, "utf-8"]):
        try:
            text = data.decode(codec)
        except UnicodeError:
            continue
        if codecs_named and codec != codecs_named[0]:
            mended += (("wrong_charset", f"{codecs_named[0]} declared, {codec} fits"),)
        return text, mended
    if codecs_named and (found := _leniently(data, codecs_named[0], mended)):
        return found
    guess = _guess(data)
    if codecs_named:
        mended += (("wrong_charset", f"{codecs_named[0]} declared, {guess} guessed"),)
    return _leniently(data, guess, mended)


def _guess(data: bytes) -> str:
    """The codec that the bytes look like, by uchardet; windows-1252 where it cannot say."""
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ImportError:
        raise UserError(
            "reading pages that declare no charset needs the package resiliparse",
            help="pip install '.[corpus]'",
        ) from None
    guess = _CODECS.get(detect_encoding(data, from_html_meta=False) or "", "cp1252")
    return "cp1252" if guess == "utf-8" else guess  # it was tried, and is also its way to say nothing


def _leniently(
    data: bytes, codec: str, mended: tuple[tuple[str, str], ...]
) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    text = data.decode(codec, "replace")
    count = text.count("�") - data.count("�".encode())
    if count > MOST_REPLACED * len(text) + 1:
        return None
    return text, (*mended, ("invalid_bytes", f"{count} not in {codec}")) if count > 0 else mended
