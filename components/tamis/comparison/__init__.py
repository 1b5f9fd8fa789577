"""Subsets side by side, and reports side by side."""
