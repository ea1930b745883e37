"""Makes a compiled pipeline small: its workflow has to fit into one object of the cluster.

kfp writes a component for every task; the server keeps each of them, and every task twice, in the
workflow that it makes of a run.
"""

import json
from itertools import count
from typing import Any

from google.protobuf import json_format

from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.weights import Weights
from pipelines.plan import Plan

_IDLE = ("accelerator_count", "accelerator_type", "cpu_limit", "memory_limit")
"""Inputs of a task that kfp writes beside the parameters they stand for; servers read those."""
_TASK = 1_500
"""Bytes of a task beside its description: its driver's and its executor's place in the workflow."""
_STATUS = 4_900
"""Bytes of a task's state once it has run, compressed: six nodes with what its pod is given."""


_FEW = 10
"""Inputs of a task whose state is within what a task's state has."""
_INPUT = 1_150
"""Bytes of state of each further input: its value is in eight places of the workflow."""


def weigh(pipeline: Any) -> Weights:
    """Estimate how large the workflow of a run of a pipeline will be."""
    specification = pipeline.pipeline_spec
    tasks = specification.root.dag.tasks
    executors = specification.deployment_spec["executors"].fields
    platform = pipeline.platform_spec.platforms["kubernetes"].deployment_spec.executors

    def size(message: Any) -> int:
        # Each is a JSON text within the workflow, which is JSON too.
        return len(json.dumps(json_format.MessageToJson(message, indent=None)))

    def shared_size(name: str) -> int:
        component = specification.components[name]
        label = component.executor_label
        parts = (part[label] for part in (executors, platform) if label in part)
        return size(component) + sum(map(size, parts))

    # The root holds all tasks, and each is there once more for itself.
    each = {name: size(task) for name, task in tasks.items()}
    names = {name: task.component_ref.name for name, task in tasks.items()}
    sizes = {name: shared_size(name) for name in set(names.values())}
    return Weights(
        base=size(specification.root) - sum(each.values()),
        tasks={
            name: 2 * bytes_ + _TASK + _STATUS + _state_of_inputs(tasks[name])
            for name, bytes_ in each.items()
        },
        shared={name: (shared, sizes[shared]) for name, shared in names.items()},
    )


def _state_of_inputs(task: Any) -> int:
    """Estimate the state of what a task takes, if that is much: a report takes every cell."""
    return max(0, len(task.inputs.artifacts) + len(task.inputs.parameters) - _FEW) * _INPUT


def compact(pipeline: Any, plan: Plan) -> None:
    """Let the tasks of a stage share one component where all but their inputs are equal.

    Args:
        pipeline: What `kfp.dsl.pipeline` returned; its specifications are changed.
        plan: What it was made of.
    """
    specification = pipeline.pipeline_spec
    parts = (
        specification.components,
        specification.deployment_spec["executors"].fields,
        pipeline.platform_spec.platforms["kubernetes"].deployment_spec.executors,
    )
    shared: dict[tuple[bytes, ...], str] = {}
    kept: dict[str, tuple[Any, ...]] = {}
    for step in plan:
        task = specification.root.dag.tasks[task_name(step.name)]
        for name in _IDLE:
            task.inputs.parameters.pop(name, None)
        component = parts[0].pop(task.component_ref.name)
        label = component.executor_label
        component.executor_label = ""
        own = (component, *(part.pop(label) for part in parts[1:]))
        key = tuple(message.SerializeToString(deterministic=True) for message in own)
        if key not in shared:
            stage = task_name(step.stage.name)
            names = (stage if n == 1 else f"{stage}-{n}" for n in count(1))
            shared[key] = next(name for name in names if name not in kept)
            kept[shared[key]] = own
            component.executor_label = f"exec-{shared[key]}"
        task.component_ref.name = f"comp-{shared[key]}"
    for stage, messages in kept.items():
        for part, prefix, message in zip(parts, ("comp", "exec", "exec"), messages, strict=True):
            part[f"{prefix}-{stage}"].CopyFrom(message)
