"""``nmt evaluate``: scores with their signatures, and a gate for CI."""
