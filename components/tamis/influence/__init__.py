"""The influence stage: estimates how much training on a sample would help on given tasks (LESS, arXiv 2402.04333)."""
