"""Stage 2, rating: a language model scores every sample, or ratings that exist already are imported."""
