"""Tokenised data: tokenizers, the packed corpus, batches."""
