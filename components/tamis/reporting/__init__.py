"""Stage 10, reporting: tables, plots and a self-contained HTML page about a run."""
