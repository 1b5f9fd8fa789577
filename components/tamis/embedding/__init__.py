"""Stage 3, embedding: one vector per sample, so that samples of like content lie close together."""
