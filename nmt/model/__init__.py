"""The network of Bahdanau, Cho & Bengio (2015, arXiv:1409.0473), in the order of the paper.

It knows no files and no configuration: plain numbers and tensors only.
"""

from nmt.model.seq2seq import Seq2Seq

__all__ = ["Seq2Seq"]
