"""Comparisons of subsets and of reports."""
