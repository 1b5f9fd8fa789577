"""Stage 1, pool: one table of samples from many sources, without duplicates."""
