"""What Kubeflow Pipelines calls our plans, steps and inputs, and where their data stands."""

import re

from pipelines.plan import Plan


def pipeline_name(plan: Plan) -> str:
    """Return the name of a plan's pipeline, one for each scale."""
    name = plan.name.replace("_", "-")
    return name if plan.scale == "full" else f"{name}-{plan.scale}"


def task_name(step: str) -> str:
    """Return what Kubeflow Pipelines calls the task of a step, and its folder in the store."""
    return re.sub("[^a-z0-9]+", "-", step).strip("-")


def input_name(port: str) -> str:
    """Name the component's input for `PORT` or `PORT.KEY`."""
    return port.replace(".", "_")


def mount_path(data_set: str) -> str:
    """Return where a mounted data set stands in every pod."""
    return f"/data/{data_set}"
