"""Samples of a pool or subset that share text with benchmarks."""
