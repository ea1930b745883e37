"""Runs plans on Kubeflow Pipelines: compiled, submitted, followed, diagnosed."""
