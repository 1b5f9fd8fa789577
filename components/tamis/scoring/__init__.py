"""Stage, scoring: what a language model says about every sample without being asked to rate it."""
