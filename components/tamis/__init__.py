"""Tamis: sieve instruction-tuning data by curated LLM ratings (DS2, arXiv 2410.10877)."""

__version__ = "0.2.0"
