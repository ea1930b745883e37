"""Where a plan runs: subprocesses of this machine, or Kubeflow Pipelines."""
