"""Asks a cluster how submitted runs go, and writes it down where runs of this machine keep it.

Kubeflow Pipelines tells in which state a run and its tasks are, and nothing of why. The reasons
are in its workflow, in the pods and their events, and in the steps' logs.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any

from components.core.errors import ClusterError, MocoError
from pipelines.cluster.connection import TIMEOUT, Cluster
from pipelines.cluster.podlogs import pods_of_run, pods_of_step, read_pod_log
from pipelines.cluster.pods import Object
from pipelines.cluster.steps import Look
from pipelines.cluster.workflow import Task, tasks_of_details, tasks_of_workflow
from pipelines.logs import Event
from pipelines.runs import DONE, ClusterRun, Run, RunState

PROGRESS_TAIL = 20  # lines of a log in which the newest progress is looked for
LIST_SECONDS = 10.0  # that all runs of a list have to be heard of
AT_ONCE = 4  # runs of a list that are asked for at a time
_OVER: dict[str, RunState] = {
    "SUCCEEDED": "finished",
    "SKIPPED": "finished",
    "FAILED": "failed",
    "CANCELED": "interrupted",
}
_STOPPING = frozenset({"CANCELING", "CANCELED"})


def refresh(run: Run, cluster: Cluster) -> None:
    """Ask how a submitted run goes, and write that into the run's folder.

    What was known before stays where nobody knows better any more.

    Args:
        run: The run.
        cluster: The cluster that it is on.

    Raises:
        ClusterError: if the server cannot be reached, refuses, or does not know the run.
    """
    place = run.record.cluster
    assert place is not None
    known = _known(cluster, place)
    state, stopped = _run_state(known)
    before = run.statuses()
    look = Look(run, place, cluster, state, stopped, before, _tasks(cluster, place, known))
    statuses = look.statuses()
    for step, status in statuses.items():
        if status != before[step]:
            run.write_status(step, status)
    if state == "finished" and not all(one.state in DONE for one in statuses.values()):
        state = "failed"  # an output that was never written is no error to the platform
    ended = known.finished_at if state != "running" else None
    run.write_record(run.record.model_copy(update={"state": state, "ended": ended}))


def refresh_all(
    runs: Sequence[Run], cluster_of: Callable[[Run], Cluster], seconds: float = LIST_SECONDS
) -> dict[Run, str]:
    """Refresh several runs at once, within a time.

    Args:
        runs: The runs.
        cluster_of: Opens the cluster of a run; asked once for each namespace.
        seconds: After which those that have not been heard of are given up.

    Returns:
        The runs that could not be refreshed, and why.
    """
    todo: SimpleQueue[Run] = SimpleQueue()
    for run in runs:
        todo.put(run)
    failures = dict.fromkeys(runs, f"no answer within {seconds:.0f} s")
    open_cluster = _once(cluster_of)

    def work() -> None:
        with suppress(Empty):
            while True:
                run = todo.get_nowait()
                try:
                    refresh(run, open_cluster(run))
                except MocoError as error:
                    failures[run] = str(error)
                else:
                    del failures[run]

    # Daemons: the command must not wait for a server that does not answer.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(runs)))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(failures)


def _once(cluster_of: Callable[[Run], Cluster]) -> Callable[[Run], Cluster]:
    """Open the cluster of each namespace once, for all threads; a failure is that of all runs."""
    opened: dict[str, Cluster | MocoError] = {}
    opening = threading.Lock()

    def once(run: Run) -> Cluster:
        assert run.record.cluster is not None
        namespace = run.record.cluster.namespace
        with opening:
            if namespace not in opened:
                try:
                    opened[namespace] = cluster_of(run)
                except MocoError as error:
                    opened[namespace] = error
        found = opened[namespace]
        if isinstance(found, MocoError):
            raise found
        return found

    return once


def progress(run: Run, cluster: Cluster) -> dict[str, Event]:
    """Return the newest progress of the steps that run.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    place = run.record.cluster
    assert place is not None
    running = [name for name, one in run.statuses().items() if one.state == "running"]
    pods = pods_of_run(cluster, place) if running else []
    found: dict[str, Event] = {}
    for name in running:
        for pod in pods_of_step(pods, name)[-1:]:
            for event in read_pod_log(cluster, pod, PROGRESS_TAIL):
                if event["event"] == "progress":
                    found[name] = event
    return found


def _known(cluster: Cluster, place: ClusterRun) -> Any:
    """Return what the server says of a run, a `kfp_server_api.V2beta1Run`."""
    from kfp_server_api import ApiException

    with cluster.asking(f"ask for run {place.run}"):
        try:
            return cluster.runs.run_service_get_run(place.run, _request_timeout=TIMEOUT)
        except ApiException as error:
            if error.status != 404:
                raise
            raise ClusterError(
                f"{cluster.server_name} does not know run {place.run}: it was deleted there, or "
                f"it is on another server ({place.server} when it was submitted)"
            ) from None


def _run_state(known: Any) -> tuple[RunState, datetime | None]:
    """Read a run's state, and when somebody stopped it: that ends as if it had failed."""
    state = _OVER.get(known.state, "running")
    for entry in reversed(known.state_history or []):
        if entry.state in _STOPPING:
            return ("interrupted" if state == "failed" else state), entry.update_time
        if entry.state == "RUNNING":
            break
    return state, None


def _tasks(cluster: Cluster, place: ClusterRun, known: Any) -> dict[str, Task]:
    """Read the tasks from the run's workflow, or what the run's details hold of them."""
    details = tasks_of_details((known.run_details and known.run_details.task_details) or ())
    workflow = _workflow(cluster, place)
    return {**details, **tasks_of_workflow(workflow)} if workflow else details


def _workflow(cluster: Cluster, place: ClusterRun) -> Object | None:
    """Return a run's workflow: version 1 of the API shows it for as long as the run is known."""
    with suppress(ClusterError), cluster.asking(f"ask for the workflow of run {place.run}"):
        answer = cluster.pipelines.call_api(
            "/apis/v1beta1/runs/{run}",
            "GET",
            {"run": place.run},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )
        manifest = (answer.get("pipeline_runtime") or {}).get("workflow_manifest")
        return json.loads(manifest) if manifest else None
    return None
