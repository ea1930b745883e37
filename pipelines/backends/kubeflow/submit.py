"""Submits plans to Kubeflow Pipelines: compiled, uploaded, started, and written down as runs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import UsageError
from components.core.store import Store, is_remote
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.images import require_digests
from pipelines.backends.kubeflow.names import pipeline_name, task_name
from pipelines.backends.kubeflow.record import NAME, ClusterRun
from pipelines.backends.kubeflow.server import Server
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run, forget_run
from pipelines.runs.record import PLAN, RECORD, Parent


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
    root = cluster.options.root.rstrip("/")
    if not is_remote(root):
        raise UsageError(f"--cluster root={root}: write it as s3://BUCKET/FOLDER or minio://...")
    name, server = pipeline_name(plan), Server(cluster)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.yaml")
        compiled = compile_plan(plan, file, cluster.options, parent.states if parent else None)
        compiled.require(parameters)
        if words := compiled.too_large(cluster.options):
            raise UsageError(words)
        store = cluster.store(root)
        store.check()
        pipeline, version = server.upload(name, file)
    run = create_run(runs, plan, parent=parent, backend=NAME, executed_here=False)
    try:
        started = server.start(run.id, pipeline, version, parameters)
    except BaseException:
        forget_run(run)
        raise
    place = ClusterRun(
        run=started,
        pipeline=name,
        namespace=cluster.options.namespace,
        server=cluster.server_name,
        artifacts=f"{root}/{name}/{started}",
    )
    place.write(run)
    # Beside its artifacts, so that others find out what the run is.
    for file_name in (PLAN, RECORD):
        key = f"{place.pipeline}/{place.run}/{file_name}"
        store.write(key, (run.folder / file_name).read_bytes())
    return run


def retry(run: Run, cluster: Cluster) -> None:
    """Ask the platform to try again what failed in a run; finished steps are kept.

    Raises:
        UsageError: if the run did not fail.
        ClusterError: if the cluster cannot be reached or refuses.
    """
    place, server = ClusterRun.of(run), Server(cluster)
    state = server.run(place).state
    if state not in ("failed", "interrupted"):
        raise UsageError(
            f"run {run.id} is {state}; only what failed can be tried again. "
            f"`moco rerun {run.id} STEP` runs one step as a new run"
        )
    server.retry(place)
    run.write_record(run.record.model_copy(update={"state": "running", "ended": None}))


def state_of(run: Run, step: str, store: Store) -> str:
    """Return the URL of the checkpoints that a step of a submitted run left.

    Args:
        run: The run.
        step: The step.
        store: Of the pipeline's runs.

    Raises:
        UsageError: if there are none.
    """
    record, place = run.record, ClusterRun.of(run)
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
