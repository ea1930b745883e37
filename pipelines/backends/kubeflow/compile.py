"""Compiles a plan to a Kubeflow pipeline."""

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.config import canonical_json, nearest
from components.core.errors import UsageError
from components.core.kind import ArtifactKind
from pipelines.backends.kubeflow.compact import compact, weigh
from pipelines.backends.kubeflow.component import (
    ARTIFACT_TYPES,
    CHANGES,
    component_of,
    next_parts_component,
)
from pipelines.backends.kubeflow.names import pipeline_name
from pipelines.backends.kubeflow.next_parts import TASK as NEXT_PARTS
from pipelines.backends.kubeflow.next_parts import NextPartsConfig
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parameters import (
    NEXT_PARTS_IMAGE,
    RUN,
    Parameter,
    existing_parameters,
    image_parameter,
    parameter_of,
    pipeline_parameters,
)
from pipelines.backends.kubeflow.pod import (
    IMAGE,
    SCRATCH,
    SHARED_MEMORY,
    Pod,
    follower_pod,
    part_pod,
    step_pod,
)
from pipelines.backends.kubeflow.sizes import nodes_at
from pipelines.backends.kubeflow.trainjob import TrainJobConfig
from pipelines.backends.kubeflow.weights import OBJECT, Weights
from pipelines.plan import Existing, Output, Plan
from pipelines.words import number


@dataclass(frozen=True)
class Compiled:
    """What is known of a compiled plan.

    Attributes:
        plan: Its name.
        steps: How many it has.
        parameters: What can be chosen for each run of it.
        weights: About how many bytes the workflow of a run will have.
    """

    plan: str
    steps: int
    parameters: Sequence[Parameter]
    weights: Weights

    @property
    def size(self) -> int:
        """About how many bytes the workflow of a run will have."""
        return self.weights.whole

    def require(self, given: Mapping[str, str]) -> None:
        """Refuse parameters that it does not have.

        Raises:
            UsageError: naming all of them, with the nearest.
        """
        known = {parameter.name for parameter in self.parameters}
        faults = [
            f"--parameter {name}: the pipeline has none of that name{nearest(name, known)}"
            for name in given
            if name not in known
        ]
        if faults:
            raise UsageError("\n".join(faults))

    def fits(self, cluster: ClusterOptions) -> bool:
        """Say whether a cluster takes its workflow."""
        return self.size <= cluster.workflow_size

    def too_large(self, cluster: ClusterOptions) -> str:
        """Say why its workflow does not fit into a cluster, and the ways out."""
        ways = [
            "fewer trials (--trials), rows (--rows) or one table at a time, which "
            "`moco report RUN...` puts together"
        ]
        if self.size <= OBJECT:
            ways.append(
                "a controller that takes more: kubectl --namespace kubeflow set env "
                f"deployment/workflow-controller MAX_WORKFLOW_SIZE={OBJECT}, "
                f"then --cluster workflow_size={OBJECT}"
            )
        return (
            f"one workflow has no room for {number(self.steps, 'step')} of {self.plan}: it would "
            f"have about {self.size / 1e6:.2f} MB, and Kubeflow's workflow controller takes "
            f"{cluster.workflow_size / 1e6:.2f} MB. Ways out: " + "; or ".join(ways)
        )


def compile_plan(
    plan: Plan,
    path: Path,
    cluster: ClusterOptions,
    states: Mapping[str, str] | None = None,
    part: int | None = None,
) -> Compiled:
    """Write a plan as a Kubeflow pipeline, the same bytes for the same plan.

    Every step becomes a task that runs the stage's own command line; nothing is
    written if the plan is refused.

    Args:
        plan: The plan.
        path: The file.
        cluster: What it asks of the cluster.
        states: URLs of in-flight state by step, for steps that continue an earlier attempt.
        part: Its number, if it is a part of a run: a task of its own then begins the next ones.

    Raises:
        UsageError: if the plan needs a file that no pod can read, or kfp is not installed.
    """
    text, compiled = _compile(plan, cluster, states or {}, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return compiled


def _compile(
    plan: Plan, cluster: ClusterOptions, states: Mapping[str, str], part: int | None
) -> tuple[str, Compiled]:
    try:
        from kfp import compiler, dsl
    except ModuleNotFoundError as error:
        raise UsageError(
            f"compiling needs {error.name}: pip install moco-transfer[kubeflow]"
        ) from None

    parameters = pipeline_parameters(plan, cluster, part=part is not None)

    def add_tasks(values: Mapping[str, Any]) -> None:
        _add_tasks(plan, cluster, values, states)
        if part is not None:
            _add_next_parts(plan, cluster, values, part)

    pipeline = dsl.pipeline(
        _as_function(plan, parameters, add_tasks),
        name=pipeline_name(plan),
    )
    compact(pipeline, plan)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(compiled))
        text = compiled.read_text("utf-8")
    return text, Compiled(plan.name, len(plan.steps), parameters, weigh(pipeline))


def _as_function(
    plan: Plan, parameters: list[Parameter], body: Callable[[Mapping[str, Any]], None]
) -> Callable[..., None]:
    """Give the body the signature and docstring that kfp reads the parameters from."""

    def pipeline(*values: Any) -> None:
        body(dict(zip((parameter.name for parameter in parameters), values, strict=True)))

    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                parameter.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=parameter.default,
                annotation=str,
            )
            for parameter in parameters
        ]
    )
    described = [f"    {parameter.name}: {parameter.description}" for parameter in parameters]
    summary = f"The plan {plan.name} at {plan.scale} scale, {len(plan.steps)} steps."
    pipeline.__doc__ = "\n".join([summary, "", "Args:", *described])
    return pipeline


def _add_tasks(
    plan: Plan, cluster: ClusterOptions, parameters: Mapping[str, Any], states: Mapping[str, str]
) -> None:
    """Add every import and every step to the pipeline that kfp is building."""
    from kfp import components

    uris = existing_parameters(plan)
    imported = {
        existing: _import(existing, name, parameters)
        for existing, name in uris.items()
        if not existing.read_in_place
    }
    tasks: dict[str, Any] = {}
    # A workflow holds what is a task's own twice, and has to fit into one object of the cluster.
    bases: dict[str, Any] = {}
    for step in plan:
        base = bases.setdefault(step.stage.name, step.config)
        pod, nodes = step_pod(plan, step, cluster), nodes_at(plan.scale, step.stage, cluster)
        job = TrainJobConfig.of(pod, nodes, cluster) if nodes > 1 else None
        if job:
            pod = follower_pod(pod)
        component = component_of(step, base, pod, uris, state=states.get(step.name), job=job)
        arguments = {name: parameters[given] for name, given in component.parameters.items()}
        arguments[CHANGES] = canonical_json(step.config.changes(base))
        arguments[IMAGE] = parameters[image_parameter(step.stage.image)]
        for name, source in component.artifacts.items():
            if isinstance(source, Output):
                arguments[name] = tasks[source.step].outputs[source.port]
            else:
                arguments[name] = imported[source]
        task = components.load_component_from_text(component.text)(**arguments)
        task.set_display_name(step.name)
        task.set_caching_options(cluster.cache)
        _give(task, pod, parameters)
        tasks[step.name] = task


def _add_next_parts(
    plan: Plan, cluster: ClusterOptions, parameters: Mapping[str, Any], part: int
) -> None:
    """Add the task that follows the others, and begins the parts that come after this one."""
    from kfp import components

    pod = part_pod(plan, cluster)
    text = next_parts_component(NextPartsConfig.of(part, cluster), pod)
    task = components.load_component_from_text(text)(
        **{RUN: parameters[RUN], IMAGE: parameters[image_parameter(NEXT_PARTS_IMAGE)]}
    )
    task.set_display_name(NEXT_PARTS)
    task.set_caching_options(False)
    _give(task, pod, parameters)


def _import(existing: Existing, name: str, parameters: Mapping[str, Any]) -> Any:
    from kfp import dsl

    # No display name: version 2.17 of the server registers an importer under that and looks for
    # its task's own.
    return dsl.importer(
        artifact_uri=parameters[name], artifact_class=_artifact_class(existing.kind)
    ).output


def _artifact_class(kind: ArtifactKind) -> Any:
    from kfp import dsl

    return getattr(dsl, ARTIFACT_TYPES[kind])


def _give(task: Any, pod: Pod, parameters: Mapping[str, Any]) -> None:
    """Give a task the pod of a description; image and variables stand in its component."""
    from kfp import kubernetes

    def value(text: str) -> Any:
        return parameters[name] if (name := parameter_of(text)) else text

    # Limits without requests of their own are the requests too.
    task.set_cpu_limit(value(pod.cpus))
    task.set_memory_limit(value(pod.memory))
    if pod.sure_cpus:
        task.set_cpu_request(pod.sure_cpus)
    if pod.gpus != "0":
        task.set_accelerator_type(value(pod.accelerator))
        task.set_accelerator_limit(value(pod.gpus))
    # The budget of retries counts from the first attempt, so it is long.
    task.set_retry(
        pod.retries,
        backoff_duration=f"{pod.retry_delay}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{pod.retry_hours * 3600}s",
    )
    kubernetes.set_security_context(task, pod.user, pod.group, True)
    kubernetes.empty_dir_mount(task, "scratch", SCRATCH)
    if pod.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            "shared-memory",
            SHARED_MEMORY,
            medium="Memory",
            size_limit=f"{pod.shared_memory}Gi",
        )
    for key, label in pod.labels.items():
        kubernetes.add_pod_label(task, key, label)
    for key, label in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, label)
    for taint in pod.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
    if pod.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(pod.pull_secrets))
    for folder, claim in pod.claims.items():
        kubernetes.mount_pvc(task, value(claim), folder)
    fields: dict[str, dict[str, str]] = {}
    for variable, field in pod.secrets.items():
        fields.setdefault(field.secret, {})[field.key] = variable
    for secret, keys in fields.items():
        kubernetes.use_secret_as_env(task, value(secret), keys)
    for folder, config_map in pod.config_maps.items():
        kubernetes.use_config_map_as_volume(task, config_map, folder)
