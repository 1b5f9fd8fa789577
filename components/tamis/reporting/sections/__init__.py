"""The sections of the report. Each module has `build(evidence)`, which says so in a sentence when it has no input."""
