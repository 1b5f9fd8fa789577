"""A strategy with a score of its own, and a rating backend."""
