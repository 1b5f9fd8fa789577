"""The Kubeflow pipelines that link the stages, and the settings of a whole run."""
