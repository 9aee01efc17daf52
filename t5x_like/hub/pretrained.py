"""A Hugging Face directory of any family, by what its config.json says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t5x_like.errors import Exit, UserError, did_you_mean
from t5x_like.hub import directory, safetensors
from t5x_like.hub.encoder_import import import_encoder
from t5x_like.hub.encoder_keys import FAMILIES
from t5x_like.hub.encoders import AnyEncoder
from t5x_like.hub.t5 import import_t5
from t5x_like.models.family import Params
from t5x_like.models.t5 import T5

if TYPE_CHECKING:
    from t5x_like.data.tokenizers import Tokenizer

_T5 = ("t5", "mt5")


def load_pretrained(
    folder: str | Path,
    *,
    expect: str | None = None,
    tokenizer: Tokenizer | None = None,
    on_host: bool = False,
) -> tuple[T5 | AnyEncoder, Params]:
    """A model and its float32 parameters, unrolled.

    Args:
      folder: `config.json` with `model.safetensors` or shards and their index.
      expect: the family that it must be of: "t5", "bert", "roberta" or "electra".
      tokenizer: refused where it has other ids than the model has rows, or pads with another.
      on_host: leave NumPy arrays; otherwise they go to the default device.

    Raises:
      UserError: not such a folder, another family than expected (with both names), a tokenizer that does not fit
        (with both sizes), or as `import_t5` and `import_encoder`.
    """
    folder = Path(folder)
    where = str(folder / "config.json")
    config = safetensors.read_json(folder / "config.json")
    kind = config.get("model_type")
    families = ("t5", *FAMILIES)
    if kind not in (*_T5, *FAMILIES):
        raise UserError(
            f"model_type is {kind!r}; expected one of {', '.join(families)}",
            where=where,
            help=did_you_mean(str(kind), families),
            code=Exit.BAD_DATA,
        )
    found = "t5" if kind in _T5 else kind
    if expect is not None and found != expect:
        raise UserError(
            f"this is a checkpoint of {found!r}, and {expect!r} is expected", where=where, code=Exit.BAD_DATA
        )
    if found == "t5":
        model, params = import_t5(folder, on_host=on_host)
    else:
        model, params = import_encoder(folder, on_host=on_host)
    if tokenizer is not None:
        directory.check_tokenizer(model.vocab_size, tokenizer, where)
        pad = getattr(model, "pad_id", 0)  # T5's is always 0
        if tokenizer.vocabulary.pad != pad:
            raise UserError(
                f"the tokenizer pads with id {tokenizer.vocabulary.pad}, and the model with {pad}",
                where=where,
                code=Exit.BAD_DATA,
            )
    return model, params
