"""Configuration: schema, sources, loading."""
