"""Stage 4, neighbors: the nearest neighbours of every sample by cosine distance, one graph for all that follows."""
