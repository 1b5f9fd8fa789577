"""Stage 10, reporting: tables, plots and one self-contained HTML page about a run."""
