"""RoBERTa: BERT without pairs, with other positions, norms and initial values, and a byte-level vocabulary.

Paper: Liu et al. 2019, arXiv:1907.11692. Code: facebookresearch/fairseq `fairseq/models/roberta/model.py` and
`fairseq/modules/positional_embedding.py`. What differs from BERT: exact GELU, eps 1e-5; no token types (Hugging Face
keeps one row, zeros, which counts below); no pooler and no pair head; the k-th token that is not padding has position
k + 1, padding has position 1; normal initial values, not cut, rows of padding zero.

    size   L   D     N   F     MLM model    encoder with Hugging Face's unused pooler
    base   12  768   12  3072  124,697,433  124,645,632
    large  24  1024  16  4096  355,412,057  355,359,744
"""

from __future__ import annotations

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models.encoder import Encoder

_SIZES = {"base": (12, 768), "large": (24, 1024)}
"""Name -> layers, D."""


def roberta(size: str) -> Encoder:
    """RoBERTa "base" or "large", for the published vocabulary of 50,265 ids with padding 1."""
    if size not in _SIZES:
        raise UserError(f"RoBERTa has no size {size!r}", where="model", help=did_you_mean(size, _SIZES))
    layers, width = _SIZES[size]
    return Encoder(
        vocab_size=50265,
        hidden_size=width,
        num_layers=layers,
        num_heads=width // 64,
        d_ff=4 * width,
        max_positions=514,
        position_offset=2,
        token_types=1,
        pooler="none",
        activation="gelu",
        eps=1e-5,
        truncated_init=False,
        zero_pad_rows=True,
        pad_id=1,
        pair_head=False,
    )
