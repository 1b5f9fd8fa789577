"""The Argo workflow that Kubeflow makes of a compiled package: its pods, and its size, which has a limit."""

from tamis_pipelines.workflow.size import Size, size_of

__all__ = ["Size", "size_of"]
