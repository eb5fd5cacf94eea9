"""``nmt init``: a configuration for the text of a user."""
