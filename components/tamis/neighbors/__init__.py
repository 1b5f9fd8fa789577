"""Stage 4, neighbors: the kNN graph by cosine distance, which all later stages share."""
