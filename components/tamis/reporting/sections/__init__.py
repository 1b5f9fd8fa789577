"""The sections of the report. Each module has `build(evidence)`; a section without input is empty and omitted."""
