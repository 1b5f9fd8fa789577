"""Stage 1, pool: many sources become one table of samples, each exact sample once."""
