"""What a row of encoder pretraining is made of: the values of `objective.inputs`. Each has

check()       raises `UserError` where a field cannot be
capacity(T)   the most tokens of a window for rows of T places
build(...)    the windows of a split (`t5x_like.data.windows.WindowIndex`)
next_sentence, double_separator   whether there are labels; the frame (data/framing.py)
"""

from __future__ import annotations

from t5x_like.data.electra_pairs import ElectraPairs
from t5x_like.data.pairs import SegmentPairs, SentencePairs
from t5x_like.data.sentence_blocks import Contiguous, DocSentences, FullSentences

InputFormat = SegmentPairs | SentencePairs | FullSentences | DocSentences | ElectraPairs | Contiguous

__all__ = [
    "Contiguous",
    "DocSentences",
    "ElectraPairs",
    "FullSentences",
    "InputFormat",
    "SegmentPairs",
    "SentencePairs",
]
