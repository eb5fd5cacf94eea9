"""Word alignment: the statistical aligner, links between tokens, and their scores."""
