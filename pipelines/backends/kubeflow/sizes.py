"""How large the pods of a stage are, and how many: what it declares, or what a user says."""

import itertools
import math
from typing import Any

from components.core.errors import UsageError
from components.core.stage import Resources, Stage
from pipelines.backends.kubeflow.options import ClusterOptions

MINIATURE = Resources(gpus=0, cpus=1, memory=3, shared_memory=1)
"""The most that a pod gets at the scale of the digits: a node of any cluster has room for it."""
MINIATURE_CPU = "250m"
"""What it is sure of: the miniature's steps share cores, so that several find room on a node."""


def resources_at(scale: str, stage: Stage[Any], options: ClusterOptions) -> Resources:
    """Say what a stage gets: what it declares or the options say, next to nothing in miniature."""
    wanted = stage.resources
    if scale != "digits":
        gpus = options.gpus.get(stage.name, wanted.gpus)
        if gpus == wanted.gpus:
            return wanted
        if not wanted.gpus:
            raise UsageError(f"--cluster gpus.{stage.name}={gpus}: this stage uses no GPU")
        share = gpus / wanted.gpus
        return Resources(
            gpus=gpus,
            cpus=math.ceil(wanted.cpus * share),
            memory=math.ceil(wanted.memory * share),
            shared_memory=math.ceil(wanted.shared_memory * share),
        )
    return Resources(
        gpus=min(wanted.gpus, MINIATURE.gpus),
        cpus=min(wanted.cpus, MINIATURE.cpus),
        memory=min(wanted.memory, MINIATURE.memory),
        shared_memory=min(wanted.shared_memory, MINIATURE.shared_memory),
    )


def nodes_at(scale: str, stage: Stage[Any], options: ClusterOptions) -> int:
    """Say how many nodes a stage takes: what the options say, or as few as share its GPUs evenly.

    Raises:
        UsageError: if the options want what cannot be.
    """
    gpus = resources_at(scale, stage, options).gpus
    fewest = math.ceil(gpus / options.gpus_per_node) or 1
    nodes = options.nodes.get(stage.name)
    if nodes is None:
        return next(n for n in itertools.count(fewest) if gpus % n == 0)
    asked = f"--cluster nodes.{stage.name}={nodes}"
    if nodes > 1 and not stage.resources.gpus:
        raise UsageError(f"{asked}: this stage is one process; only trainings take several nodes")
    if nodes < fewest:
        raise UsageError(
            f"{asked}: its {gpus} GPUs need {fewest} nodes of {options.gpus_per_node}, as "
            "gpus_per_node says"
        )
    if gpus % nodes:
        raise UsageError(f"{asked}: its {gpus} GPUs cannot be shared evenly over {nodes} nodes")
    return nodes
