"""The foundation: samples, artifacts, storage, settings, errors, progress. It imports no stage."""
