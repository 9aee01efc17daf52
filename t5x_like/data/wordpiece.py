"""WordPiece: BERT's tokenizer, read from a `vocab.txt` or trained.

Rules of google-research/bert `tokenization.py`, which the library's `BertNormalizer` and `BertPreTokenizer` follow:
control characters and U+FFFD go, every kind of space becomes one; CJK ideographs stand alone; uncased vocabularies
lower the text and strip its accents; every punctuation character (all of ASCII's that are neither letter nor digit,
and Unicode's P*) is a word of its own; a word is cut into the longest pieces from its left, `##` before all but the
first, and is [UNK] as a whole where that fails or where it has more than 200 characters (transformers' own: 100).

How Google trained the published vocabularies is not public. Here, as in the library, pairs are joined by frequency
(byte pair encoding) and the merges are forgotten.
"""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import tokenizers

from t5x_like.data import tokenizer_json
from t5x_like.data.huggingface_tokenizer import HuggingFaceTokenizer, configured
from t5x_like.errors import Exit, UserError

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
"""The special tokens in the order of their ids."""

_MAX_CHARACTERS = 200
_MIN_FREQUENCY = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordPieceTraining:
    """A WordPiece tokenizer to be trained; ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Attributes:
      vocab_size: all ids, special ones included; 30,522 is that of BERT uncased.
      lowercase: lower the text and strip accents.
      character_coverage: share of the characters in the sample that get pieces; words with others are unknown.
    """

    model_type: ClassVar[str] = "wordpiece"
    vocab_size: int = 30522
    lowercase: bool = False
    character_coverage: float = 0.9999

    def check(self) -> None:
        """Raises `UserError` for what cannot be, naming the flag."""
        if not 0.9 <= self.character_coverage <= 1:
            raise UserError(
                f"character_coverage is {self.character_coverage}, expected 0.9 to 1",
                where="--character_coverage",
            )
        if self.vocab_size <= len(SPECIAL):
            raise UserError(
                f"vocab_size {self.vocab_size} counts pieces and the {len(SPECIAL)} special tokens",
                where="--vocab_size",
                help="--vocab_size=30522",
            )

    def train(self, texts: Iterable[str]) -> HuggingFaceTokenizer:
        """Trains on `texts`; equal texts give equal bytes, in every process.

        Raises:
          UserError: the sample is too small for the vocabulary, or the vocabulary for the alphabet; the message
            names the nearest size that works.
        """
        self.check()
        texts = list(texts)
        normalizer: Any = tokenizers.normalizers.BertNormalizer(lowercase=self.lowercase)
        characters = Counter[str]()
        for text in texts:
            characters.update(normalizer.normalize_str(text))
        alphabet = _alphabet(characters, self.character_coverage)
        if not alphabet:
            raise UserError("there is no text to train a tokenizer on", where="--input", code=Exit.BAD_DATA)
        inner = ["##" + character for character in alphabet if not _stands_alone(character)]
        least = len(SPECIAL) + len(alphabet) + len(inner)
        if least > self.vocab_size:
            raise UserError(
                f"a vocabulary of {self.vocab_size} ids is too small: the alphabet of the text, at the start of a word"
                f" and inside, and the special tokens need {least}",
                where="--vocab_size",
                help=f"--vocab_size={-(-(least + least // 4) // 100) * 100}, or a smaller --character_coverage",
                code=Exit.BAD_DATA,
            )
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=SPECIAL["unk"]))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer: Any = tokenizers.trainers.WordPieceTrainer(
            vocab_size=self.vocab_size,
            min_frequency=_MIN_FREQUENCY,
            # The library numbers the inner characters in the order in which it meets them in a hash table, and breaks
            # ties between pairs by these numbers. Named as special tokens they have numbers from the start.
            special_tokens=[*SPECIAL.values(), *inner],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        ids = tokenizer.get_vocab(with_added_tokens=True)
        if len(ids) < self.vocab_size:
            raise UserError(
                f"the text is too small for a vocabulary of {self.vocab_size} ids (wordpiece); it can carry {len(ids)}",
                where="--vocab_size",
                help=f"--vocab_size={len(ids)}, or more text",
                code=Exit.BAD_DATA,
            )
        first = [*SPECIAL.values(), *alphabet, *inner]
        pieces = first + sorted(ids.keys() - set(first), key=ids.__getitem__)
        return from_pieces(pieces, lowercase=self.lowercase)


def _alphabet(characters: Counter[str], coverage: float) -> list[str]:
    """The most frequent characters that make up `coverage` of the text without its spaces, sorted."""
    counts = [(-count, character) for character, count in characters.items() if not character.isspace()]
    total, kept, seen = -sum(count for count, _ in counts), [], 0
    for count, character in sorted(counts):
        if seen >= coverage * total:
            break
        seen -= count
        kept.append(character)
    return sorted(kept)


def _stands_alone(character: str) -> bool:
    """Whether the character is always a word of its own: punctuation and CJK ideographs."""
    if unicodedata.category(character).startswith("P") or (character.isascii() and not character.isalnum()):
        return True
    code = ord(character)
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))
    return any(low <= code <= high for low, high in ranges)


def from_vocabulary(
    content: bytes, config: bytes | None = None, *, where: str | None = None
) -> HuggingFaceTokenizer:
    """The tokenizer of a `vocab.txt`, one piece a line, with what a `tokenizer_config.json` beside it says.

    Whether the text is lowered is `do_lower_case` of the configuration; without one, it is where no piece has a
    capital letter.

    Raises:
      UserError: it is no such file, a special token is missing, or a piece is there twice; names the file.
    """
    try:
        lines = content.decode().split("\n")
        settings = json.loads(config or b"{}")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"this is not a WordPiece vocabulary: {error}", where=where, code=Exit.BAD_DATA
        ) from None
    pieces = [line.strip("\r") for line in (lines if lines[-1] else lines[:-1])]
    line_of: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if line_of.setdefault(piece, number) != number:
            raise UserError(
                f"the piece {piece[:60]!r} is on line {line_of[piece]} and on line {number}, and can have one id only",
                where=where,
                help="BERT's own code takes the last; name the others [unused1], [unused2] ...",
                code=Exit.BAD_DATA,
            )
    names = {kind: configured(settings, kind) or usual for kind, usual in SPECIAL.items()}
    for kind in ("unk", "cls", "sep"):
        if names[kind] not in pieces:
            raise UserError(
                f"this is not a WordPiece vocabulary: it has {len(pieces)} lines and none is {names[kind]}",
                where=where,
                help="one piece a line, as in BERT's vocab.txt",
                code=Exit.BAD_DATA,
            )
    settings = settings if isinstance(settings, dict) else {}
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        lowercase = not any(
            "A" <= letter <= "Z" for piece in pieces if not piece.startswith("[") for letter in piece
        )
    return from_pieces(
        pieces,
        lowercase=bool(lowercase),
        strip_accents=settings.get("strip_accents"),
        cjk=settings.get("tokenize_chinese_chars", True),
        names=names,
        where=where,
    )


def from_pieces(
    pieces: Sequence[str],
    *,
    lowercase: bool,
    strip_accents: bool | None = None,
    cjk: bool = True,
    names: dict[str, str] | None = None,
    where: str | None = None,
) -> HuggingFaceTokenizer:
    """A WordPiece tokenizer whose id i is `pieces[i]`.

    Args:
      pieces: `##` begins those that go on with a word.
      lowercase: lower the text.
      strip_accents: by default as `lowercase`.
      cjk: put spaces around ideographs.
      names: names of the special tokens, keys as in `SPECIAL`.
      where: the file's name for messages.
    """
    names = names or SPECIAL
    ids = {piece: index for index, piece in enumerate(pieces)}
    cls, sep = names["cls"], names["sep"]
    first = [
        tokenizer_json.special(cls, 0),
        tokenizer_json.sequence("A", 0),
        tokenizer_json.special(sep, 0),
    ]
    second = [tokenizer_json.sequence("B", 1), tokenizer_json.special(sep, 1)]
    present = [name for name in names.values() if name in ids]
    files = tokenizer_json.files(
        added=[tokenizer_json.added_token(ids[name], name) for name in sorted(present, key=ids.__getitem__)],
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": cjk,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=tokenizer_json.template(first, first + second, {cls: ids[cls], sep: ids[sep]}),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        model={
            "type": "WordPiece",
            "unk_token": names["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": _MAX_CHARACTERS,
            "vocab": ids,
        },
        config={
            # transformers 5 would build `BertTokenizer` anew, with 100 characters; this one is read as it stands.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "do_lower_case": lowercase,
            "strip_accents": strip_accents,
            "tokenize_chinese_chars": cjk,
            **{f"{kind}_token": name for kind, name in names.items() if name in ids},
        },
    )
    return HuggingFaceTokenizer(files, where=where)
