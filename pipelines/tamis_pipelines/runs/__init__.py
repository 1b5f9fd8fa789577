"""Reading of runs on Kubeflow: the steps of a run, their progress, and why they failed."""
