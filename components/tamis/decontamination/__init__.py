"""Decontamination: finding samples of a pool that share text with evaluation data."""
