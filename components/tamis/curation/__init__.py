"""Stage 5, curation: find the raters' errors from the neighbours' ratings, correct them, score diversity."""
