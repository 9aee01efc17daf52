"""Parts of a `tokenizer.json` (library `tokenizers`) that several kinds of tokenizers share."""

from __future__ import annotations

import json
from typing import Any


def added_token(index: int, content: str, *, special: bool = True, lstrip: bool = False) -> dict[str, Any]:
    """A token that is found in the text as it stands; `lstrip`: it takes the white space before it along."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def sequence(name: str, type_id: int) -> dict[str, Any]:
    """The text A or B in a template."""
    return {"Sequence": {"id": name, "type_id": type_id}}


def special(name: str, type_id: int) -> dict[str, Any]:
    """A special token in a template."""
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def template(single: list[dict[str, Any]], pair: list[dict[str, Any]], ids: dict[str, int]) -> dict[str, Any]:
    """The post-processor that puts special tokens around one text and around two."""
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()},
    }


def files(
    *,
    added: list[dict[str, Any]],
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any],
    post_processor: dict[str, Any] | None,
    decoder: dict[str, Any],
    model: dict[str, Any],
    config: dict[str, Any],
) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json`; equal arguments give equal bytes."""
    layout = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }
    return {"tokenizer.json": _json(layout), "tokenizer_config.json": _json(config)}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
