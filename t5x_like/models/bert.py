"""BERT: the encoder pretrained by masked language modelling and next sentence prediction.

Paper: Devlin et al. 2019, arXiv:1810.04805; the small sizes: Turc et al. 2019, arXiv:1908.08962. Code:
google-research/bert `modeling.py`. GELU is the tanh form there; Hugging Face computes the same checkpoints with the
exact form (`activation="gelu"`). H is 64 and F is 4 D in every size.

    size                L   D     N   V        encoder and pooler   + MLM + NSP    MLM alone
    tiny                2   128   2   30,522            4,385,920     4,433,468    4,416,698
    mini                4   256   4   30,522           11,170,560    11,267,900   11,201,594
    small               4   512   8   30,522           28,763,648    29,058,876   28,795,194
    medium              8   512   8   30,522           41,373,184    41,668,412   41,404,730
    base-uncased        12  768   12  30,522          109,482,240   110,106,428  109,514,298
    base-cased          12  768   12  28,996          108,310,272   108,932,934  108,340,804
    large-uncased       24  1024  16  30,522          335,141,888   336,226,108  335,174,458
    large-cased         24  1024  16  28,996          333,579,264   334,661,958  333,610,308
    multilingual-cased  12  768   12  119,547         177,853,440   178,566,653  177,974,523
    chinese             12  768   12  21,128          102,267,648   102,882,442  102,290,312
"""

from __future__ import annotations

from t5x_like.errors import UserError, did_you_mean
from t5x_like.models.encoder import Encoder

_SIZES = {
    "tiny": (2, 128, 30522),
    "mini": (4, 256, 30522),
    "small": (4, 512, 30522),
    "medium": (8, 512, 30522),
    "base-uncased": (12, 768, 30522),
    "base-cased": (12, 768, 28996),
    "large-uncased": (24, 1024, 30522),
    "large-cased": (24, 1024, 28996),
    "multilingual-cased": (12, 768, 119547),
    "chinese": (12, 768, 21128),
}
"""Name -> layers, D, V."""


def bert(size: str) -> Encoder:
    """BERT of a published size, by its name in the table above, with both pretraining heads."""
    if size not in _SIZES:
        raise UserError(f"BERT has no size {size!r}", where="model", help=did_you_mean(size, _SIZES))
    layers, width, vocab = _SIZES[size]
    return Encoder(
        vocab_size=vocab, hidden_size=width, num_layers=layers, num_heads=width // 64, d_ff=4 * width
    )
