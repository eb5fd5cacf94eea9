"""``nmt translate``: the search, text in and text out, and what was attended to."""
