"""Words, and which characters end sentences or are mere punctuation, as the rules of Gopher and FineWeb see them."""

from __future__ import annotations

import re
from typing import Literal

Splitter = Literal["tokens", "spaces"]
"""How a text is cut into words: `tokens` sets marks apart from words, `spaces` cuts at white space only.

Gopher's paper does not say what a word is; datatrove asks spaCy's English tokenizer, which also sets marks apart (and
cuts some words, as in `do n't`). docs/corpus.md says how often that changes a decision.
"""

_TOKEN = re.compile(r"\w+(?:[-.'’]\w+)*|[^\w\s]")


def words(text: str, splitter: Splitter) -> list[str]:
    """The words of a text."""
    return text.split() if splitter == "spaces" else _TOKEN.findall(text)


def _characters(ranges: str) -> frozenset[str]:
    found = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


TERMINAL = _characters(
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88"
)
"""What ends a sentence in any script: Unicode's property Sentence_Terminal, with the Khmer marks that it lacks.

Source: datatrove/utils/text.py, `TERMINAL_PUNCTUATION`.
"""

PUNCTUATION = TERMINAL | _characters(
    "0-8 B-C D-1F 21-2F 3A-40 5B-60 7B-7E 7F-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA 3001-3002 "
    "3008-300D 3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E"
)
"""Characters of which a word must have another one to count: CCNet's list (with its `１`), control characters.

Source: datatrove/utils/text.py, `PUNCTUATION_SET`.
"""
