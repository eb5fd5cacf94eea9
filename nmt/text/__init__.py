"""Text: normalisation and numerals."""
