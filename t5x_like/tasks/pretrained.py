"""What fine-tuning starts from: a run, a Hugging Face directory, an earlier fine-tuning, or random numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from t5x_like.data.tokenizer_base import Tokenizer
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError
from t5x_like.hub import directory
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead, Style
from t5x_like.models.t5 import T5

Pretrainable = Encoder | Electra | T5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model with its tokenizer.

    Attributes:
      model: T5, or the encoder that gets a head (of ELECTRA: the discriminator without its own).
      params: None: random, other ones for each seed.
      tokenizer: as it belongs to the model.
      origin: for people.
    """

    model: Encoder | T5
    params: Any | None
    tokenizer: Tokenizer
    origin: str

    @property
    def style(self) -> Style:
        """The head of the model's family: RoBERTa counts positions from 2, ELECTRA takes the first state as it is."""
        if not isinstance(self.model, Encoder):
            return "bert"
        if self.model.position_offset:
            return "roberta"
        return "electra" if self.model.pooler == "first" else "bert"


def of(
    model: Any, params: Any | None, tokenizer: Tokenizer, origin: str, trained_with: str = ""
) -> Pretrained:
    """What there is to fine-tune in a pretrained model.

    Args:
      trained_with: fingerprint of the tokenizer that the model was trained with, where that is known; else the
        tokenizer must have as many ids as a pretrained table has rows, less some of padding
        (`directory.check_tokenizer`).

    Raises:
      UserError: the tokenizer does not fit the model, or nothing in the model can be fine-tuned.
    """
    if isinstance(model, Electra):
        params = None if params is None else model.encoder_params(params)
        model = model.encoder
    elif isinstance(model, EncoderWithHead):
        params = None if params is None else params["encoder"]
        model = model.backbone
    if not isinstance(model, (Encoder, T5)):
        raise UserError(
            f"{type(model).__name__} cannot be fine-tuned here",
            where=origin,
            help="an encoder, ELECTRA or T5",
        )
    vocabulary = tokenizer.vocabulary
    if trained_with and tokenizer.fingerprint != trained_with:
        raise UserError(
            f"the tokenizer is {tokenizer.fingerprint} with {vocabulary.size} ids, and the model was trained with "
            f"{trained_with} and {model.vocab_size} rows",
            where=origin,
            help="give the tokenizer that the model was trained with",
            code=Exit.BAD_DATA,
        )
    if vocabulary.size > model.vocab_size or not (trained_with or params is None):
        directory.check_tokenizer(model.vocab_size, tokenizer, origin)
    pad = model.pad_id if isinstance(model, Encoder) else 0
    if vocabulary.pad != pad:
        raise UserError(
            f"the tokenizer pads with id {vocabulary.pad}, and the model with {pad}",
            where=origin,
            code=Exit.BAD_DATA,
        )
    return Pretrained(model=model, params=params, tokenizer=tokenizer, origin=origin)


def load(
    path: str, checkpoint: int | Literal["latest", "best"] = "latest", tokenizer: str | None = None
) -> Pretrained:
    """From a directory of t5x_like.train, of t5x_like.finetune, or of Hugging Face's layout.

    Args:
      checkpoint: of a run.
      tokenizer: another place to take it from.

    Raises:
      UserError: none of these, or damaged; see `of`.
    """
    from t5x_like.tasks import saved

    folder = Path(path)
    if (folder / "checkpoints").is_dir():
        from t5x_like.training import restore

        run, store, record = restore.open_run(folder, checkpoint)
        params = restore.load_params(run, store, record)
        found = load_tokenizer(tokenizer or folder / "tokenizer")
        return of(run.model, params, found, f"{path} at step {record.step}", record.tokenizer)
    if saved.is_saved(folder):
        fitted = saved.load(folder)
        found = load_tokenizer(tokenizer) if tokenizer else fitted.tokenizer
        return of(fitted.model, fitted.params, found, path, fitted.tokenizer.fingerprint)
    if not (folder / "config.json").is_file():
        raise UserError(
            "neither a run directory nor a Hugging Face directory",
            where=path,
            help="name the --workdir of t5x_like.train, or a folder with config.json and model.safetensors",
            code=Exit.BAD_DATA,
        )
    from t5x_like.hub.pretrained import load_pretrained

    model, params = load_pretrained(path)
    return of(model, params, load_tokenizer(tokenizer or path), path)
