"""The stage `describe`: facts about every sample that need no model, as named columns."""
