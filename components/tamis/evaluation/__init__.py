"""The evaluation stage: runs versioned suites of lm-eval benchmarks."""
