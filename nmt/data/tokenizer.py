"""Tokenise text with one SentencePiece model per side, and detokenise it.

Text is normalised with `nmt.text.normalise.normalise`; SentencePiece's normalisation is
disabled. Byte fallback encodes a character outside the vocabulary as its UTF-8 bytes, so no
text becomes ``<unk>``.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from nmt import symbols
from nmt.errors import NmtError
from nmt.text.normalise import normalise
from nmt.text.spans import SYMBOLS

_THREADS = 2
_SEED_PIECES = 300_000  # initial candidates; the default of a million takes twice as long
_TOO_LARGE = re.compile(r"set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"required_chars\. (\d+) vs (\d+)")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # no white space
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Piece:
    """One piece of a tokenised text.

    Attributes:
        id: in the vocabulary.
        begin: first character it covers, in the *normalised* text.
        end: one past the last character. Byte pieces of one character have the same span.
    """

    id: int
    begin: int
    end: int


class Tokenizer:
    """One side's SentencePiece model.

    Args:
        model: the serialized SentencePiece model.
        simplify: convert Traditional to Simplified before encoding (Chinese side).
    """

    def __init__(self, model: bytes, *, simplify: bool) -> None:
        self.model = model
        self.simplify = simplify
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._space_first = self._puts_space_first()

    @classmethod
    def load(cls, path: Path, *, simplify: bool) -> Tokenizer:
        """Read a ``.model`` file.

        Raises:
            NmtError: missing, damaged, or not trained by this program.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise NmtError(f"{path}: {error.strerror or error}") from error
        return cls.parse(data, str(path), simplify=simplify)

    @classmethod
    def parse(cls, data: bytes, path: str, *, simplify: bool) -> Tokenizer:
        """Return the tokenizer of a serialized model; `path` is named in messages.

        Raises:
            NmtError: damaged, or not trained by this program.
        """
        try:
            tokenizer = cls(data, simplify=simplify)
        except (RuntimeError, OSError) as error:
            raise NmtError(f"{path}: not a SentencePiece model, or damaged") from error
        specials = [tokenizer._processor.id_to_piece(i) for i in symbols.SPECIALS]
        expected = [
            symbols.PAD_PIECE, symbols.UNK_PIECE, symbols.BOS_PIECE, symbols.EOS_PIECE,
        ]  # fmt: skip
        if specials != expected:
            raise NmtError(
                f"{path}: its special pieces are {specials}, expected {expected}",
                "train the model with nmt prepare",
            )
        return tokenizer

    def __len__(self) -> int:
        """Number of pieces, special ones included."""
        return int(self._processor.get_piece_size())

    @property
    def sha256(self) -> str:
        """SHA-256 of the model: equal hashes give equal ids."""
        return hashlib.sha256(self.model).hexdigest()

    def normalise(self, text: str) -> str:
        """Return the normalised text that `encode` tokenises."""
        return normalise(text, simplify=self.simplify)

    def id_of(self, piece: str) -> int | None:
        """Return the id of a piece, None if it is not in the vocabulary."""
        id_: int = self._processor.piece_to_id(piece)
        return None if id_ == symbols.UNK else id_

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces of `text`, without BOS and EOS; empty for a blank text."""
        ids: list[int] = self._processor.encode(self.normalise(text))
        return ids

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """Return `encode` of each text."""
        return self.encode_normalised([self.normalise(text) for text in texts])

    def encode_normalised(self, texts: list[str]) -> list[list[int]]:
        """Return `encode_all` of texts that are normalised already."""
        ids: list[list[int]] = self._processor.encode(texts, num_threads=1)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids on one line, without special ids and invalid byte sequences.

        The text has no ``▁``, ``<unk>``, control character, or U+FFFD.
        """
        ordinary = [i for i in ids if i not in symbols.SPECIALS]
        text: str = self._processor.decode(ordinary)
        # Byte pieces may spell any bytes, such as a line end or part of a character.
        text = text.replace(symbols.SPACE_MARK, " ").replace("\ufffd", "")
        text = _CONTROL.sub("", text)
        return " ".join(text.split())

    def piece(self, id_: int) -> str:
        """Return a vocabulary entry (``▁the``, ``<0xE4>``)."""
        text: str = self._processor.id_to_piece(id_)
        return text

    def pieces(self, text: str) -> list[Piece]:
        """Tokenise, with the characters of the normalised text that each piece covers.

        Computed from the pieces, since SentencePiece's calls for this differ between
        releases.
        """
        normalised = self.normalise(text)
        # SentencePiece replaces spaces by marks and may add one before the first word.
        lead = symbols.SPACE_MARK if self._space_first and normalised else ""
        marked = lead + normalised.replace(" ", symbols.SPACE_MARK)
        pieces: list[Piece] = []
        at, pending = 0, 0  # characters consumed; remaining bytes of the current character
        for id_ in self.encode(text):
            surface = self.piece(id_)
            begin = at
            if byte_of(surface) is None:
                at += len(surface)
            elif pending:
                begin, pending = at - 1, pending - 1
            else:
                pending = len(marked[at].encode()) - 1
                at += 1
            pieces.append(Piece(id_, max(begin - len(lead), 0), at - len(lead)))
        return pieces

    @property
    def byte_ids(self) -> tuple[int, int]:
        """The first and last id of the byte pieces."""
        return int(self._processor.piece_to_id("<0x00>")), int(
            self._processor.piece_to_id("<0xFF>")
        )

    def byte_characters(self, ids: Iterable[int]) -> list[str]:
        """Return the characters that `ids` spell in byte pieces, including spaces."""
        first, last = self.byte_ids
        characters: list[str] = []
        run = bytearray()
        for id_ in (*ids, symbols.EOS):
            if first <= id_ <= last:
                run.append(id_ - first)
            elif run:
                characters += run.decode("utf-8", "replace").replace(symbols.SPACE_MARK, " ")
                run.clear()
        return characters

    def _puts_space_first(self) -> bool:
        """Whether the model adds a space mark before the first word, as a piece or in bytes."""
        first = self.piece(self._processor.encode("a")[0])
        return first.startswith(symbols.SPACE_MARK) or first == "<0xE2>"


def load_both(folder: Path, *, simplify: bool) -> tuple[Tokenizer, Tokenizer]:
    """Load the tokenizers of a prepared corpus or a run, source first.

    Raises:
        NmtError: one is missing, damaged, or not trained by this program.
    """
    src = Tokenizer.load(folder / "src.model", simplify=simplify)
    return src, Tokenizer.load(folder / "trg.model", simplify=False)


def byte_of(piece: str) -> int | None:
    """Return the byte of a byte piece such as ``<0xE4>``, None for other pieces."""
    match = _BYTE.fullmatch(piece)
    return int(match[1], 16) if match else None


def train_tokenizer(
    lines: Iterable[str],
    *,
    vocab: int,
    simplify: bool,
    grow: bool = False,
    character_coverage: float,
    space_first: bool,
    name: str,
) -> tuple[Tokenizer, str | None]:
    """Train a unigram model with byte fallback (Kudo 2018) on *normalised* lines.

    Args:
        lines: normalised text, read once.
        vocab: number of pieces, special and byte pieces included.
        simplify: whether the tokenizer converts to Simplified.
        grow: if the characters need more pieces, use 1.25 times what they need.
        character_coverage: fraction of the characters of the text with a piece of their
            own; the rest is spelled in bytes.
        space_first: add a space before the first word, so that a word has the same piece
            at the start of a sentence and inside it (languages with spaces).
        name: the configuration key, for messages.

    Returns:
        The tokenizer, and a warning if the corpus has too little text for `vocab`.

    Raises:
        NmtError: `vocab` is too small for the characters of the corpus.
    """
    texts = [line for line in lines if line]

    def train(size: int) -> bytes:
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=out,
            vocab_size=size,
            model_type="unigram",
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=space_first,
            pad_id=symbols.PAD, unk_id=symbols.UNK, bos_id=symbols.BOS, eos_id=symbols.EOS,
            pad_piece=symbols.PAD_PIECE, unk_piece=symbols.UNK_PIECE,
            bos_piece=symbols.BOS_PIECE, eos_piece=symbols.EOS_PIECE,
            unk_surface="",
            user_defined_symbols=list(SYMBOLS),
            max_sentence_length=65536,
            # Float sums, so the pieces depend on the number of threads.
            num_threads=_THREADS,
            seed_sentencepiece_size=_SEED_PIECES,
            minloglevel=2,
        )  # fmt: skip
        return out.getvalue()

    try:
        return Tokenizer(train(vocab), simplify=simplify), None
    except RuntimeError as error:
        too_small = _TOO_SMALL.search(str(error))
        if too_small and grow:
            return train_tokenizer(
                texts, vocab=int(too_small[2]) * 5 // 4, simplify=simplify,
                character_coverage=character_coverage, space_first=space_first, name=name,
            )  # fmt: skip
        if too_small:
            raise NmtError(
                f"{name}: {vocab} pieces, but the characters of the corpus and the bytes need "
                f"{too_small[2]}",
                f"set {name} to at least {int(too_small[2]) + 100}, or leave it out",
            ) from None
        too_large = _TOO_LARGE.search(str(error))
        if too_large is None:
            raise
    largest = int(too_large[1])
    warning = f"{name}: the corpus has text for {largest} pieces only; using these, not {vocab}"
    return Tokenizer(train(largest), simplify=simplify), warning
