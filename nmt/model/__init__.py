"""The network of Bahdanau, Cho & Bengio (2015, arXiv:1409.0473).

The modules follow the paper: `encoder` (section 3.2, appendix A.2.1), `attention` (section 3.1,
appendix A.1.2), `decoder` (appendix A.2.2). `fast` holds faster implementations of the same
equations; tests compare them with the modules here.
"""

from nmt.model.seq2seq import Seq2Seq

__all__ = ["Seq2Seq"]
