"""A step's stage as a Kubeflow container component: its own command line, with placeholders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from components.core.config import Config
from components.core.kind import ArtifactKind
from components.core.stage import Mount
from components.core.stage import Source as Bound
from pipelines.backends.kubeflow.names import input_name, mount_path
from pipelines.backends.kubeflow.next_parts import TASK, NextPartsConfig, next_parts_argv
from pipelines.backends.kubeflow.parameters import RUN, parameter_of, placeholder
from pipelines.backends.kubeflow.pod import IMAGE, Pod
from pipelines.backends.kubeflow.trainjob import TrainJobConfig, follower_argv
from pipelines.plan import Existing, Mounted, Output, Source, Step

ARTIFACT_TYPES: dict[ArtifactKind, str] = {
    "Dataset": "Dataset",
    "Model": "Model",
    "Metrics": "Metrics",
    "Report": "Artifact",
    "HTML": "HTML",
}
CHANGES = "changes"  # parameter with JSON: where a step's config differs from its component's
EXECUTOR_INPUT = "{{$}}"


@dataclass(frozen=True)
class Component:
    """A step's component.

    Attributes:
        text: For `kfp.components.load_component_from_text`.
        artifacts: What each of its inputs takes that is an artifact.
        parameters: The pipeline's parameter that each other of its inputs takes.
    """

    text: str
    artifacts: Mapping[str, Output | Existing]
    parameters: Mapping[str, str]


def component_of(
    step: Step,
    base: Config,
    pod: Pod,
    uris: Mapping[Existing, str],
    *,
    state: str | None = None,
    job: TrainJobConfig | None = None,
) -> Component:
    """Write the component of a step.

    Its name is the step's, because that of the task follows, and with it the
    place of its artifacts in the store: `ROOT/PIPELINE/RUN/TASK/ID/PORT`.

    Args:
        step: The step.
        base: Config that all steps of its stage say their changes of.
        pod: What its container asks of the cluster.
        uris: The pipeline's parameters with the URIs of what exists already.
        state: URL of an earlier attempt's in-flight state that it continues.
        job: Of a step of several nodes: its container follows this TrainJob, whose pods run the
            step's own command.

    Raises:
        ValueError: if ports and keys of the step make the same name twice.
    """
    artifacts = [
        (port, source)
        for port, source in step.sources()
        if not isinstance(source, Mounted) and not _read_in_place(source)
    ]
    parameters = {name: name for name in (_parameters(job) if job else ())}
    # Named after the port, so that the steps of a stage can share a component.
    parameters |= {
        _uri_input(port): uris[source] for port, source in step.sources() if _read_in_place(source)
    }
    texts = (CHANGES, IMAGE, *parameters)
    inputs = [{"name": name, "type": "String"} for name in texts]
    inputs += [
        {
            "name": input_name(port),
            "type": ARTIFACT_TYPES[step.stage.inputs[port.partition(".")[0]].kind],
        }
        for port, _ in artifacts
    ]
    names = [entry["name"] for entry in inputs]
    if len(set(names)) < len(names):
        raise ValueError(f"step {step.name}: two of its inputs have one name: {', '.join(names)}")
    if job is None:
        command = step_argv(step, base, state)
    else:
        argv = step_argv(step, base, state, remote=True)
        command = follower_argv(job, argv, EXECUTOR_INPUT)
    document = {
        "name": step.name,
        "description": step.stage.summary,
        "inputs": inputs,
        "outputs": [
            {"name": name, "type": ARTIFACT_TYPES[port.kind]}
            for name, port in step.stage.outputs.items()
        ],
        "implementation": _implementation(pod, command),
    }
    return Component(
        json.dumps(document),  # JSON is YAML
        {input_name(port): source for port, source in artifacts},
        parameters,
    )


def next_parts_component(config: NextPartsConfig, pod: Pod) -> str:
    """Write the component of what follows a part, for `load_component_from_text`."""
    command = next_parts_argv(config, placeholder(RUN))
    document = {
        "name": TASK,
        "description": "Begin the parts of the run that come after this one.",
        "inputs": [{"name": name, "type": "String"} for name in (RUN, IMAGE)],
        "implementation": _implementation(pod, command),
    }
    return json.dumps(document)


def step_argv(
    step: Step,
    base: Config,
    state: str | None = None,
    *,
    remote: bool = False,
) -> list[str]:
    """Build the command line of a step with what the launcher replaces in place of values.

    Args:
        step: The step.
        base: Config that all steps of its stage say their changes of.
        state: URL of an earlier attempt's in-flight state that it continues.
        remote: Whether it runs in other pods than the launcher's: with URLs for paths, and
            without the launcher's description of the task.
    """
    place = "uri" if remote else "path"

    def bound(port: str, source: Source) -> Bound:
        if isinstance(source, Mounted):
            return Mount(mount_path(source.name))
        if _read_in_place(source):
            return placeholder(_uri_input(port))
        return f"{{{{$.inputs.artifacts['{input_name(port)}'].{place}}}}}"

    outputs = {
        name: f"{{{{$.outputs.artifacts['{name}'].{place}}}}}" for name in step.stage.outputs
    }
    # State lies beside the URI of the first output: a pod that is started again, and the
    # platform's retry of a failed run, get the same URI.
    first = next(iter(step.stage.outputs))
    state = state or f"{{{{$.outputs.artifacts['{first}'].uri}}}}.state"
    return step.stage.argv(
        base,
        {
            port: {key: bound(f"{port}.{key}", source) for key, source in binding.items()}
            if isinstance(binding, Mapping)
            else bound(port, binding)
            for port, binding in step.inputs.items()
        },
        outputs,
        state=state if step.stage.resumable else None,
        executor_input=None if remote else EXECUTOR_INPUT,
        changes=placeholder(CHANGES),
    )


def _parameters(job: TrainJobConfig) -> list[str]:
    """Return the pipeline's parameters, but the image, that a TrainJob has placeholders of."""
    pod = job.pod
    texts = [*pod.claims.values(), *(field.secret for field in pod.secrets.values())]
    return list(dict.fromkeys(name for text in texts if (name := parameter_of(text))))


def _implementation(pod: Pod, command: Sequence[str]) -> dict[str, Any]:
    """Write the container of a command line: `python -m MODULE`, the options are its arguments."""
    python, module, *arguments = command
    return {
        "container": {
            "image": pod.image,
            "command": ["python", python, module],
            "args": arguments,
            "env": pod.environment,
        }
    }


def _uri_input(port: str) -> str:
    """Name the component's input for the URI of what `PORT` or `PORT.KEY` reads in place."""
    return f"uri_{input_name(port)}"


def _read_in_place(source: Source) -> TypeGuard[Existing]:
    return isinstance(source, Existing) and source.read_in_place
