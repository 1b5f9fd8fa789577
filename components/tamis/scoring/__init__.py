"""The scoring stage: scores every sample by a language model's token probabilities."""
