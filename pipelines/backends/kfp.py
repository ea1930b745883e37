"""Compiles a plan to a Kubeflow pipeline."""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.core.config import canonical_json
from components.core.errors import UsageError
from components.core.stage import Kind
from pipelines.backends.cluster import (
    MINIATURE,
    MINIATURE_CPU,
    ClusterOptions,
    Parameter,
    existing_parameters,
    image_parameter,
    nodes_at,
    pipeline_parameters,
    pvc_parameter,
    resource_parameter,
    resources_at,
)
from pipelines.backends.compact import OBJECT, compact, workflow_size
from pipelines.backends.component import (
    ARTIFACT_TYPES,
    CHANGES,
    IMAGE,
    artifact_inputs,
    component_text,
    mount_path,
    parameter_placeholder,
)
from pipelines.cluster.trainjob import TrainJobConfig
from pipelines.plan import Existing, Mounted, Output, Plan, Step

SCRATCH = "/tmp"  # noqa: S108 - a volume of the pod's own
STORE_SECRET = "store_secret"  # noqa: S105 - a parameter's name
CERTIFICATES = "/etc/moco-transfer/certificates"

# The user has no entry in the image's passwd: libraries ask for a name (torch's compiler does)
# and for a home with room for their caches.
USER_ENVIRONMENT = {"HOME": SCRATCH, "USER": "moco"}


def compile_plan(
    plan: Plan, path: Path, cluster: ClusterOptions, states: Mapping[str, str] | None = None
) -> int:
    """Write a plan as a Kubeflow pipeline, the same bytes for the same plan.

    Every step becomes a task that runs the stage's own command line; nothing is
    written if the plan is refused.

    Args:
        plan: The plan.
        path: The file.
        cluster: What it asks of the cluster.
        states: URLs of in-flight state by step, for steps that continue an earlier attempt.

    Returns:
        About how many bytes the workflow of a run will have; see `too_large`.

    Raises:
        UsageError: if the plan needs a file that no pod can read, or kfp is not installed.
    """
    text, size = _compile(plan, cluster, states or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return size


def too_large(plan: Plan, size: int, cluster: ClusterOptions) -> str | None:
    """Say why the workflow of a plan would not fit into the cluster, and the ways out, if so.

    Args:
        plan: The plan.
        size: What `compile_plan` returned.
        cluster: Says what the workflow controller takes.
    """
    if size <= cluster.workflow_size:
        return None
    ways = [
        "fewer trials (--trials), rows (--rows) or one table at a time, which "
        "`moco report RUN...` puts together"
    ]
    if size <= OBJECT:
        ways.append(
            "a controller that takes more: kubectl --namespace kubeflow set env "
            f"deployment/workflow-controller MAX_WORKFLOW_SIZE={OBJECT}, "
            f"then --cluster workflow_size={OBJECT}"
        )
    return (
        f"the {len(plan.steps)} steps of {plan.name} are too many for one workflow: it would have "
        f"about {size / 1e6:.2f} MB, and Kubeflow's workflow controller takes "
        f"{cluster.workflow_size / 1e6:.2f} MB. Ways out: " + "; or ".join(ways)
    )


def pipeline_name(plan: Plan) -> str:
    """Return the name of a plan's pipeline, one for each scale."""
    name = plan.name.replace("_", "-")
    return name if plan.scale == "full" else f"{name}-{plan.scale}"


def _compile(plan: Plan, cluster: ClusterOptions, states: Mapping[str, str]) -> tuple[str, int]:
    try:
        from kfp import compiler, dsl
    except ModuleNotFoundError as error:
        raise UsageError(
            f"compiling needs {error.name}: pip install moco-transfer[kubeflow]"
        ) from None

    parameters = pipeline_parameters(plan, cluster)
    pipeline = dsl.pipeline(
        _as_function(plan, parameters, lambda values: _add_tasks(plan, cluster, values, states)),
        name=pipeline_name(plan),
    )
    compact(pipeline, plan)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(compiled))
        return compiled.read_text("utf-8"), workflow_size(pipeline)


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

    imported = {
        existing: _import(existing, name, parameters)
        for existing, name in existing_parameters(plan).items()
    }
    tasks: dict[str, Any] = {}
    # A workflow holds what is a task's own twice, and has to fit into one object of the cluster.
    bases: dict[str, Any] = {}
    for step in plan:
        sources = dict(step.sources())
        arguments = {}
        for name, port in artifact_inputs(step):
            source = sources[port]
            if isinstance(source, Existing):
                arguments[name] = imported[source]
            elif isinstance(source, Output):
                arguments[name] = tasks[source.step].outputs[source.port]
        base = bases.setdefault(step.stage.name, step.config)
        arguments[CHANGES] = canonical_json(step.config.changes(base))
        arguments[IMAGE] = parameters[image_parameter(step.stage.image)]
        nodes, more = _nodes(plan, step, cluster)
        environment = _environment(plan, step, cluster)
        text = component_text(
            step,
            base,
            environment,
            state=states.get(step.name),
            nodes=nodes,
            parameters=more,
        )
        arguments |= {name: parameters[name] for name in more}
        task = components.load_component_from_text(text)(**arguments)
        task.set_display_name(step.name)
        task.set_caching_options(cluster.cache)
        if nodes:
            _size_follower(task)
        else:
            _size(task, plan, step, cluster, parameters)
        _retry(task, cluster)
        _give_pod(task, plan, step, cluster)
        if not nodes:
            _mount(task, step, parameters)
        if step.stage.resumable:
            _give_credentials(task, cluster, parameters)
        tasks[step.name] = task


def _nodes(
    plan: Plan, step: Step, cluster: ClusterOptions
) -> tuple[TrainJobConfig | None, list[str]]:
    """Say what a step asks of the cluster that takes several nodes, and the parameters in it."""
    nodes = nodes_at(plan.scale, step.stage, cluster)
    if nodes == 1:
        return None, []
    mounted = sorted({source.name for _, source in step.sources() if isinstance(source, Mounted)})
    claims = {mount_path(name): pvc_parameter(name) for name in mounted}
    job = TrainJobConfig.share(
        resources_at(plan.scale, step.stage, cluster),
        cluster,
        nodes=nodes,
        sure_cpus=MINIATURE_CPU if plan.scale == "digits" else None,
        image=parameter_placeholder(IMAGE),
        environment=_environment(plan, step, cluster),
        claims={path: parameter_placeholder(name) for path, name in claims.items()},
        store_secret=parameter_placeholder(STORE_SECRET),
        config_maps={CERTIFICATES: cluster.store_ca} if cluster.store_ca else {},
    )
    return job, [*claims.values(), STORE_SECRET]


def _environment(plan: Plan, step: Step, cluster: ClusterOptions) -> dict[str, str]:
    environment = dict(USER_ENVIRONMENT)
    if plan.scale == "digits":
        # Libraries count the node's cores, not those that the pod may use: their threads would
        # wait for each other at every operation.
        environment["OMP_NUM_THREADS"] = str(MINIATURE.cpus)
    if not step.stage.resumable:
        return environment
    store = {
        "MOCO_S3_ENDPOINT": cluster.store_endpoint,
        "AWS_REGION": cluster.store_region,
        "AWS_CA_BUNDLE": f"{CERTIFICATES}/ca.crt" if cluster.store_ca else None,
    }
    return {**environment, **{name: value for name, value in store.items() if value}}


def _import(existing: Existing, name: str, parameters: Mapping[str, Any]) -> Any:
    from kfp import dsl

    # No display name: version 2.17 of the server registers an importer under that and looks for
    # its task's own.
    return dsl.importer(
        artifact_uri=parameters[name], artifact_class=_artifact_class(existing.kind)
    ).output


def _artifact_class(kind: Kind) -> Any:
    from kfp import dsl

    return getattr(dsl, ARTIFACT_TYPES[kind])


def _size(
    task: Any, plan: Plan, step: Step, cluster: ClusterOptions, parameters: Mapping[str, Any]
) -> None:
    """Set limits; without requests of their own they are the requests too."""
    task.set_cpu_limit(parameters[resource_parameter("cpus", step.stage)])
    task.set_memory_limit(parameters[resource_parameter("memory", step.stage)])
    if plan.scale == "digits":
        task.set_cpu_request(MINIATURE_CPU)
    if resources_at(plan.scale, step.stage, cluster).gpus:
        task.set_accelerator_type(parameters["accelerator_type"])
        task.set_accelerator_limit(parameters[resource_parameter("gpus", step.stage)])


def _size_follower(task: Any) -> None:
    """Give a pod that only follows others little."""
    task.set_cpu_request("100m")
    task.set_cpu_limit("1")
    task.set_memory_limit("1Gi")


def _retry(task: Any, cluster: ClusterOptions) -> None:
    """Retry pods that were lost; the budget counts from the first attempt, so it is long."""
    task.set_retry(
        cluster.retries,
        backoff_duration=f"{cluster.retry_delay}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{cluster.retry_hours * 3600}s",
    )


def _give_pod(task: Any, plan: Plan, step: Step, cluster: ClusterOptions) -> None:
    """Let the pod pass *restricted*, give it a place to write, and say whose it is."""
    from kfp import kubernetes

    kubernetes.set_security_context(task, cluster.user, cluster.group, True)
    kubernetes.empty_dir_mount(task, "scratch", SCRATCH)
    shared_memory = resources_at(plan.scale, step.stage, cluster).shared_memory
    if shared_memory:
        kubernetes.empty_dir_mount(
            task,
            "shared-memory",
            "/dev/shm",  # noqa: S108 - a volume of the pod's own
            medium="Memory",
            size_limit=f"{shared_memory}Gi",
        )
    labels = {
        **cluster.labels,
        "moco-transfer/recipe": plan.name,
        "moco-transfer/stage": step.stage.name,
    }
    for key, value in labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in cluster.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for taint in cluster.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
    if cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.pull_secrets))


def _mount(task: Any, step: Step, parameters: Mapping[str, Any]) -> None:
    from kfp import kubernetes

    names = {source.name for _, source in step.sources() if isinstance(source, Mounted)}
    for name in sorted(names):
        kubernetes.mount_pvc(task, parameters[pvc_parameter(name)], mount_path(name))


def _give_credentials(task: Any, cluster: ClusterOptions, parameters: Mapping[str, Any]) -> None:
    """Let a pod keep checkpoints beside its outputs: credentials go by reference only."""
    from kfp import kubernetes

    kubernetes.use_secret_as_env(
        task,
        parameters["store_secret"],
        {
            cluster.access_key_field: "AWS_ACCESS_KEY_ID",
            cluster.secret_key_field: "AWS_SECRET_ACCESS_KEY",
        },
    )
    if cluster.store_ca:
        kubernetes.use_config_map_as_volume(task, cluster.store_ca, CERTIFICATES)
