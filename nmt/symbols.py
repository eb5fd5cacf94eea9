"""The four special symbols, the same in both vocabularies."""

from __future__ import annotations

PAD, UNK, BOS, EOS = 0, 1, 2, 3
PAD_PIECE, UNK_PIECE, BOS_PIECE, EOS_PIECE = "<pad>", "<unk>", "<s>", "</s>"
SPECIALS = (PAD, UNK, BOS, EOS)
SPACE_MARK = "\u2581"  # SentencePiece's character for a space inside a piece
