"""The parameters of a compiled pipeline: what can be chosen anew for each run of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.core.errors import UsageError
from components.core.stage import Stage
from components.core.store import is_remote
from pipelines.backends.kubeflow.images import plan_images, stages
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.sizes import nodes_at, resources_at
from pipelines.plan import Existing, Plan, Step

RUN = "run"
"""Parameter of a part with the URL of the folder of the run that it is of."""
NEXT_PARTS_IMAGE = "torch"
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the compiled pipeline, which can be changed for each run; always a string."""

    name: str
    default: str
    description: str


def pipeline_parameters(
    plan: Plan, options: ClusterOptions, *, part: bool = False
) -> list[Parameter]:
    """List what can be chosen anew for each run of a compiled plan.

    Args:
        plan: The plan.
        options: Of the cluster.
        part: Whether it is a part of a run, and followed.
    """
    whose = [Parameter(RUN, "", "URL of the run's folder, if it is a part of one")] if part else []
    parameters = [
        *whose,
        *_image_parameters(plan, options, [NEXT_PARTS_IMAGE] if part else []),
        *_resource_parameters(plan, options),
        *(
            Parameter(
                pvc_parameter(name),
                options.claims.get(name) or name.replace("_", "-"),
                f"PVC with the data set {name}",
            )
            for name in plan.mounts()
        ),
        *(
            Parameter(name, existing.uri, f"URI of a {existing.kind} that exists already")
            for existing, name in existing_parameters(plan).items()
        ),
    ]
    if part or any(map(reads_store, plan)):
        parameters.append(
            Parameter("store_secret", options.store_secret, "secret with the store's credentials")
        )
    return parameters


def existing_parameters(plan: Plan) -> dict[Existing, str]:
    """Name the parameter of each existing artifact after the first input that takes it.

    Raises:
        UsageError: for an artifact that no pod can reach.
    """
    names: dict[Existing, str] = {}
    for step in plan:
        for port, source in step.sources():
            if isinstance(source, Existing) and source not in names:
                if not is_remote(source.uri):
                    raise UsageError(
                        f"step {step.name}, input {port}: {source.uri} is a path of this machine, "
                        "which no pod can read; copy it to the cluster's bucket and name it as "
                        "s3://BUCKET/KEY or minio://BUCKET/KEY"
                    )
                names[source] = f"uri_{step.name}_{port.replace('.', '_')}"
    return names


def reads_store(step: Step) -> bool:
    """Say whether a step asks the store itself: for what it left there, or for data."""
    sources = (source for _, source in step.sources() if isinstance(source, Existing))
    return step.stage.resumable or any(source.read_in_place for source in sources)


def image_parameter(image: str) -> str:
    """Name the parameter that holds an image's reference."""
    return f"image_{image}"


def pvc_parameter(data_set: str) -> str:
    """Name the parameter that holds the PVC of a mounted data set."""
    return f"pvc_{data_set}"


def resource_parameter(resource: str, stage: Stage[Any]) -> str:
    """Name the parameter for `gpus`, `cpus` or `memory` of a stage's pods."""
    return f"{resource}_{stage.name.replace('.', '_')}"


def placeholder(parameter: str) -> str:
    """Return what the platform replaces by a parameter's value."""
    return f"{{{{$.inputs.parameters['{parameter}']}}}}"


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders in a text by values; those of no value stay."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def parameter_of(text: str) -> str | None:
    """Return the parameter whose placeholder a text is, if it is one."""
    match = _PLACEHOLDER.fullmatch(text)
    return match[1] if match else None


def _image_parameters(
    plan: Plan, options: ClusterOptions, more: Sequence[str]
) -> Iterator[Parameter]:
    for name, reference in plan_images(plan, options, more).items():
        yield Parameter(image_parameter(name), reference, f"reference of the image {name}")


def _resource_parameters(plan: Plan, options: ClusterOptions) -> Iterator[Parameter]:
    # What takes several nodes is shared out over them when the plan is compiled.
    sizes = [
        (stage, resources_at(plan.scale, stage, options))
        for stage in stages(plan)
        if nodes_at(plan.scale, stage, options) == 1
    ]
    if any(size.gpus for _, size in sizes):
        yield Parameter(
            "accelerator_type", options.accelerator, "resource name of a GPU on the nodes"
        )
    for stage, size in sizes:
        defaults = {
            "gpus": (str(size.gpus), "GPUs of a pod of"),
            "cpus": (str(size.cpus), "CPU cores of a pod of"),
            # What lies in /dev/shm counts as the container's memory too.
            "memory": (f"{size.memory + size.shared_memory}Gi", "memory of a pod of"),
        }
        for resource, (default, description) in defaults.items():
            if resource != "gpus" or size.gpus:
                name = resource_parameter(resource, stage)
                yield Parameter(name, default, f"{description} stage {stage.name}")
