"""``nmt prepare``: from sentence pairs to a clean, split, packed corpus."""
