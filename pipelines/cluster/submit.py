"""Submits plans to Kubeflow Pipelines: compiled, uploaded, started, and written down as runs."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.config import nearest
from components.core.errors import ClusterError, UsageError
from components.core.store import Store
from pipelines.backends.cluster import BUCKET_SCHEMES, pipeline_parameters, require_digests
from pipelines.backends.component import task_name
from pipelines.backends.kfp import compile_plan, pipeline_name, too_large
from pipelines.cluster.connection import TIMEOUT, Cluster
from pipelines.plan import Plan
from pipelines.runs import PLAN, RECORD, ClusterRun, Parent, Run, create_run, forget_run

VERSION_DIGITS = 12  # of the compiled file's SHA-256, which names the version of a pipeline


def submit_plan(
    plan: Plan,
    cluster: Cluster,
    runs: Path,
    *,
    parent: Parent | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Run:
    """Start a run of a plan on a cluster.

    Args:
        plan: The plan.
        cluster: Where.
        runs: Folder of the runs; the new one is written down there.
        parent: The run that a rerun comes from.
        parameters: Values of the pipeline's parameters, in place of their defaults.

    Raises:
        UsageError: if the plan cannot be compiled, has no such parameter, or names an image by tag.
        ClusterError: if the cluster cannot be reached or refuses.
        StoreError: if the store cannot be reached or refuses.
    """
    parameters = parameters or {}
    require_digests(plan, cluster.options)
    _check_parameters(plan, cluster, parameters)
    root = cluster.options.root.rstrip("/")
    if not root.startswith(BUCKET_SCHEMES):
        raise UsageError(f"--cluster root={root}: write it as s3://BUCKET/FOLDER or minio://...")
    store = cluster.store(root)
    store.check()
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, f"{pipeline_name(plan)}.yaml")
        size = compile_plan(plan, compiled, cluster.options, parent.states if parent else None)
        if words := too_large(plan, size, cluster.options):
            raise UsageError(words)
        pipeline, version = upload(cluster, pipeline_name(plan), compiled)
    run = create_run(runs, plan, parent=parent)
    try:
        started = _start(cluster, run.id, pipeline, version, parameters)
    except BaseException:
        forget_run(run)
        raise
    place = ClusterRun(
        run=started,
        pipeline=pipeline_name(plan),
        namespace=cluster.options.namespace,
        server=cluster.server_name,
        artifacts=f"{root}/{pipeline_name(plan)}/{started}",
    )
    run.write_record(run.record.model_copy(update={"cluster": place}))
    # Beside its artifacts, so that others find out what the run is.
    for name in (PLAN, RECORD):
        store.write(f"{place.pipeline}/{place.run}/{name}", (run.folder / name).read_bytes())
    return run


def upload(cluster: Cluster, name: str, compiled: Path) -> tuple[str, str]:
    """Upload a compiled pipeline, unless the server has the very same version already.

    Returns:
        Ids of the pipeline and of its version.

    Raises:
        ClusterError: if the server cannot be reached or refuses.
    """
    import kfp_server_api as api

    digest = hashlib.sha256(compiled.read_bytes()).hexdigest()[:VERSION_DIGITS]
    version_name = f"{name}-{digest}"
    uploads = api.PipelineUploadServiceApi(cluster.pipelines)
    pipelines = api.PipelineServiceApi(cluster.pipelines)
    with cluster.asking(f"upload the pipeline {name}"):
        pipeline = _pipeline_id(cluster, name)
        if pipeline is None:
            pipeline = uploads.upload_pipeline(
                str(compiled), name=name, namespace=_namespace(cluster), _request_timeout=TIMEOUT
            ).pipeline_id
        found = _first(
            pipelines.pipeline_service_list_pipeline_versions(
                pipeline, filter=_named(version_name), _request_timeout=TIMEOUT
            ).pipeline_versions
        )
        if found is None:
            found = uploads.upload_pipeline_version(
                str(compiled), name=version_name, pipelineid=pipeline, _request_timeout=TIMEOUT
            )
    return pipeline, found.pipeline_version_id


def retry(run: Run, cluster: Cluster) -> None:
    """Ask the platform to try again what failed in a run; finished steps are kept.

    Raises:
        UsageError: if the run did not fail.
        ClusterError: if the cluster cannot be reached or refuses.
    """
    place = _place(run)
    with cluster.asking(f"retry the run {run.id}"):
        known = cluster.runs.run_service_get_run(place.run, _request_timeout=TIMEOUT)
        if known.state != "FAILED":
            raise UsageError(
                f"run {run.id} is {str(known.state).lower()}; only what failed can be tried again. "
                f"`moco rerun {run.id} STEP` runs one step as a new run"
            )
        cluster.runs.run_service_retry_run(place.run, _request_timeout=TIMEOUT)
    run.write_record(run.record.model_copy(update={"state": "running", "ended": None}))


def cancel(run: Run, cluster: Cluster) -> None:
    """Stop a run; its steps lose what they did since their last checkpoint.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    with cluster.asking(f"stop the run {run.id}"):
        cluster.runs.run_service_terminate_run(_place(run).run, _request_timeout=TIMEOUT)


def state_of(run: Run, step: str, store: Store) -> str:
    """Return the URL of the checkpoints that a step of a submitted run left.

    Args:
        run: The run.
        step: The step.
        store: Of the pipeline's runs.

    Raises:
        UsageError: if there are none.
    """
    record, place = run.record, _place(run)
    run.require_step(step)
    if record.parent and step in record.parent.states:
        return record.parent.states[step]
    folder = f"{place.run}/{task_name(step)}"
    states = {
        entry.key.partition(".state/")[0] + ".state"
        for entry in store.list(folder)
        if ".state/" in entry.key
    }
    if not states:
        raise UsageError(
            f"{step} of run {run.id} left no checkpoint in {place.store}/{folder}; without "
            "--continue it starts anew"
        )
    return f"{place.store}/{max(states)}"


def _start(
    cluster: Cluster, name: str, pipeline: str, version: str, parameters: Mapping[str, str]
) -> str:
    """Start a run and return the id that Kubeflow Pipelines gives it."""
    import kfp_server_api as api

    body = api.V2beta1Run(
        display_name=name,
        experiment_id=_experiment_id(cluster),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline, pipeline_version_id=version
        ),
        runtime_config=api.V2beta1RuntimeConfig(
            parameters=dict(parameters), pipeline_root=cluster.options.root.rstrip("/")
        ),
        service_account=cluster.options.service_account,
    )
    with cluster.asking(f"start the run {name}"):
        started = cluster.runs.run_service_create_run(body, _request_timeout=TIMEOUT)
    return str(started.run_id)


def _experiment_id(cluster: Cluster) -> str:
    import kfp_server_api as api

    name = cluster.options.experiment
    experiments = api.ExperimentServiceApi(cluster.pipelines)
    with cluster.asking(f"find the experiment {name}"):
        found = _first(
            experiments.experiment_service_list_experiments(
                filter=_named(name), namespace=_namespace(cluster), _request_timeout=TIMEOUT
            ).experiments
        )
        if found is None:
            body = api.V2beta1Experiment(display_name=name, namespace=_namespace(cluster))
            found = experiments.experiment_service_create_experiment(body, _request_timeout=TIMEOUT)
    return str(found.experiment_id)


def _pipeline_id(cluster: Cluster, name: str) -> str | None:
    import kfp_server_api as api

    found = _first(
        api.PipelineServiceApi(cluster.pipelines)
        .pipeline_service_list_pipelines(
            filter=_named(name), namespace=_namespace(cluster), _request_timeout=TIMEOUT
        )
        .pipelines
    )
    return found.pipeline_id if found else None


def _namespace(cluster: Cluster) -> str | None:
    """Return the namespace that the server keeps things in: none where it serves one only."""
    options = cluster.options
    return None if options.namespace == options.server_namespace else options.namespace


def _named(name: str) -> str:
    """Write the API's filter for objects of a name."""
    predicate = {"operation": "EQUALS", "key": "name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _first(found: list[Any] | None) -> Any:
    return found[0] if found else None


def _place(run: Run) -> ClusterRun:
    place = run.record.cluster
    if place is None:
        raise ClusterError(f"run {run.id} was executed on this machine, not submitted to a cluster")
    return place


def _check_parameters(plan: Plan, cluster: Cluster, given: Mapping[str, str]) -> None:
    known = {parameter.name for parameter in pipeline_parameters(plan, cluster.options)}
    faults = [
        f"--parameter {name}: the pipeline has none of that name{nearest(name, known)}"
        for name in given
        if name not in known
    ]
    if faults:
        raise UsageError("\n".join(faults))
