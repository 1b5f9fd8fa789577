"""A strategy with its own score, and a rating backend."""
