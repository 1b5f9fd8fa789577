"""The ground floor: samples, artifacts, storage, settings, errors, progress. Imports no stage."""
