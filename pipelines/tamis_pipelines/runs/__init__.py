"""Reading of runs on Kubeflow: which steps a run has, how they are, and why they failed."""
