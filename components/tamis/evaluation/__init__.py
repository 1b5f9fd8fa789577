"""Stage 8, evaluation: benchmarks by lm-eval, as versioned suites."""
