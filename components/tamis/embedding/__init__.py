"""Stage 3, embedding: one vector per sample. Samples with similar content have similar vectors."""
