"""The four special symbols, the same on both sides and everywhere in the program."""

from __future__ import annotations

PAD, UNK, BOS, EOS = 0, 1, 2, 3
PAD_PIECE, UNK_PIECE, BOS_PIECE, EOS_PIECE = "<pad>", "<unk>", "<s>", "</s>"
SPECIALS = (PAD, UNK, BOS, EOS)
SPACE_MARK = "\u2581"  # SentencePiece writes a space as this character inside a piece
