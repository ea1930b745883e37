"""All that is said to a server of Kubeflow Pipelines: which calls, of which version.

| call | for | version 3.0 |
|---|---|---|
| `GET /apis/v2beta1/healthz` | its version, whether it is for many users | the same |
| `GET /apis/v2beta1/pipelines`, `POST .../upload` | a pipeline by name | the same |
| `GET .../versions`, `POST .../upload_version` | a compiled plan as a version of it | the same |
| `GET`, `POST /apis/v2beta1/experiments` | the experiment that runs stand under | the same |
| `POST /apis/v2beta1/runs` | start a run | the same |
| `GET /apis/v2beta1/runs` | a run by name: a part that was begun and not written down | the same |
| `GET /apis/v2beta1/runs/RUN` | its state, and those of its tasks | without the tasks |
| `GET /apis/v2beta1/tasks?run_id=RUN` | its tasks, where the run comes without | the same |
| `POST .../runs/RUN:retry`, `:terminate` | try again, stop | the same |
| `GET /apis/v1beta1/runs/RUN` | the workflow of a run whose object is gone | gone |

Why a step failed stands in the run's workflow alone. It is an object of Kubernetes for as long as
the cluster keeps it; the server's own copy of it has no call in version 2 of the API. Without both,
a run's tasks have states and times, and pods, events and logs say why.

Tried with the releases that `TRIED` names.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from components.core.errors import ClusterError
from pipelines.backends.kubeflow.connection import TIMEOUT, Cluster
from pipelines.backends.kubeflow.pods import RUN_LABEL, Object, moment
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.workflow import Task, tasks_of_workflow
from pipelines.runs.record import RunState, StepState

TRIED = ("2.17",)
"""Releases of the server that the tests were run against."""
VERSION_DIGITS = 12  # of the compiled file's SHA-256, which names the version of a pipeline
WORKFLOWS = ("argoproj.io", "v1alpha1")

_OVER: dict[str, RunState] = {
    "SUCCEEDED": "finished",
    "SKIPPED": "finished",
    "FAILED": "failed",
    "CANCELED": "interrupted",
}
_STOPPING = frozenset({"CANCELING", "CANCELED"})
_TASK_STATES: dict[str, StepState] = {
    "SUCCEEDED": "finished",
    "CACHED": "reused",
    "FAILED": "failed",
    "SKIPPED": "skipped",
    "CANCELED": "interrupted",
    "CANCELING": "running",
    "RUNNING": "running",
    "PENDING": "running",
}


@dataclass(frozen=True)
class KnownRun:
    """What a server says of a run.

    Attributes:
        state: Of the run as a whole; one that was stopped ends as if it had failed.
        stopped: When somebody stopped it.
        ended: When it came to its end.
        tasks: Its tasks by name, with states and times.
    """

    state: RunState
    stopped: datetime | None
    ended: datetime | None
    tasks: Mapping[str, Task]


class Server:
    """The server of a cluster.

    Raises:
        ClusterError: by every method, if it cannot be reached or refuses.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def health(self) -> Any:
        """Return what it says of itself; its client's own method leaves the version out."""
        with self.cluster.asking(f"ask {self.cluster.server_name} for its version"):
            return self._get("/apis/v2beta1/healthz")

    def run(self, place: ClusterRun) -> KnownRun:
        """Return what it says of a run.

        Raises:
            ClusterError: also if it does not know the run.
        """
        from kfp_server_api import ApiException

        cluster = self.cluster
        with cluster.asking(f"ask for run {place.run}"):
            try:
                run = cluster.runs.run_service_get_run(place.run, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status != 404:
                    raise
                raise ClusterError(
                    f"{cluster.server_name} does not know run {place.run}: it was deleted there, "
                    f"or it is on another server ({place.server} when it was submitted)"
                ) from None
            details = run.run_details.to_dict()["task_details"] if run.run_details else None
            if details is None:
                details = self._tasks(place.run)
        state, stopped = _run_state(run)
        return KnownRun(
            state,
            stopped,
            run.finished_at if state != "running" else None,
            {str(detail["display_name"]): _task(detail) for detail in details},
        )

    def told(self, place: ClusterRun) -> KnownRun:
        """Return what it says of a run, and of its tasks what the workflow says, if it is there.

        Raises:
            ClusterError: also if it does not know the run.
        """
        known, workflow = self.run(place), self.workflow(place)
        tasks = {**known.tasks, **(tasks_of_workflow(workflow) if workflow else {})}
        return replace(known, tasks=tasks)

    def workflow(self, place: ClusterRun) -> Object | None:
        """Return a run's workflow, None if there is nothing left of it that this user may see."""
        cluster = self.cluster
        with suppress(ClusterError), cluster.asking(f"look up the workflow of run {place.run}"):
            workflows = cluster.objects.list_namespaced_custom_object(
                *WORKFLOWS,
                place.namespace,
                "workflows",
                label_selector=f"{RUN_LABEL}={place.run}",
                _request_timeout=TIMEOUT,
            )["items"]
            if workflows:
                workflow: Object = workflows[0]
                return workflow
        with suppress(ClusterError), cluster.asking(f"ask for the workflow of run {place.run}"):
            answer = self._get("/apis/v1beta1/runs/{run}", {"run": place.run})
            manifest = (answer.get("pipeline_runtime") or {}).get("workflow_manifest")
            return json.loads(manifest) if manifest else None
        return None

    def upload(self, name: str, compiled: Path) -> tuple[str, str]:
        """Upload a compiled pipeline, unless the server has the very same version already.

        Returns:
            Ids of the pipeline and of its version.
        """
        import kfp_server_api as api

        digest = hashlib.sha256(compiled.read_bytes()).hexdigest()[:VERSION_DIGITS]
        version_name = f"{name}-{digest}"
        uploads = api.PipelineUploadServiceApi(self.cluster.pipelines)
        pipelines = api.PipelineServiceApi(self.cluster.pipelines)
        with self.cluster.asking(f"upload the pipeline {name}"):
            pipeline = _first(
                pipelines.pipeline_service_list_pipelines(
                    filter=_named(name), namespace=self._namespace, _request_timeout=TIMEOUT
                ).pipelines
            )
            if pipeline is None:
                pipeline = uploads.upload_pipeline(
                    str(compiled), name=name, namespace=self._namespace, _request_timeout=TIMEOUT
                )
            version = _first(
                pipelines.pipeline_service_list_pipeline_versions(
                    pipeline.pipeline_id, filter=_named(version_name), _request_timeout=TIMEOUT
                ).pipeline_versions
            )
            if version is None:
                version = uploads.upload_pipeline_version(
                    str(compiled),
                    name=version_name,
                    pipelineid=pipeline.pipeline_id,
                    _request_timeout=TIMEOUT,
                )
        return pipeline.pipeline_id, version.pipeline_version_id

    def start(self, name: str, pipeline: str, version: str, parameters: Mapping[str, str]) -> str:
        """Start a run and return the id that the server gives it."""
        import kfp_server_api as api

        options = self.cluster.options
        body = api.V2beta1Run(
            display_name=name,
            experiment_id=self._experiment_id(),
            pipeline_version_reference=api.V2beta1PipelineVersionReference(
                pipeline_id=pipeline, pipeline_version_id=version
            ),
            runtime_config=api.V2beta1RuntimeConfig(
                parameters=dict(parameters), pipeline_root=options.root.rstrip("/")
            ),
            service_account=options.service_account,
        )
        with self.cluster.asking(f"start the run {name}"):
            run = self.cluster.runs.run_service_create_run(body, _request_timeout=TIMEOUT)
        return str(run.run_id)

    def named(self, name: str) -> str | None:
        """Return the id of the first run of a name, if there is one."""
        with self.cluster.asking(f"look for the run {name}"):
            runs = self.cluster.runs.run_service_list_runs(
                filter=_named(name, "display_name"),
                namespace=self._namespace,
                sort_by="created_at asc",
                _request_timeout=TIMEOUT,
            ).runs
        return str(runs[0].run_id) if runs else None

    def retry(self, place: ClusterRun) -> None:
        """Try again what failed in a run; finished tasks are kept."""
        with self.cluster.asking(f"retry the run {place.run}"):
            self.cluster.runs.run_service_retry_run(place.run, _request_timeout=TIMEOUT)

    def terminate(self, place: ClusterRun) -> None:
        """Stop a run."""
        with self.cluster.asking(f"stop the run {place.run}"):
            self.cluster.runs.run_service_terminate_run(place.run, _request_timeout=TIMEOUT)

    def _tasks(self, run: str) -> list[Mapping[str, Any]]:
        """List the tasks of a run, as version 3.0 does; older servers put them into the run."""
        from kfp_server_api import ApiException

        tasks: list[Mapping[str, Any]] = []
        page = ""
        while True:
            query = [("run_id", run), ("page_token", page)]
            try:
                answer = self._get("/apis/v2beta1/tasks", query=query)
            except ApiException as error:
                if error.status != 404:
                    raise
                return []  # an older server, and the run has no tasks yet
            tasks += answer.get("tasks") or []
            page = answer.get("next_page_token") or ""
            if not page:
                return tasks

    def _get(
        self,
        path: str,
        parts: Mapping[str, str] | None = None,
        query: list[tuple[str, str]] | None = None,
    ) -> Any:
        """Make a call that the client of the locked version has no method for."""
        return self.cluster.pipelines.call_api(
            path,
            "GET",
            dict(parts or {}),
            query,
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )

    def _experiment_id(self) -> str:
        import kfp_server_api as api

        name, namespace = self.cluster.options.experiment, self._namespace
        experiments = api.ExperimentServiceApi(self.cluster.pipelines)
        with self.cluster.asking(f"find the experiment {name}"):
            experiment = _first(
                experiments.experiment_service_list_experiments(
                    filter=_named(name), namespace=namespace, _request_timeout=TIMEOUT
                ).experiments
            )
            if experiment is None:
                experiment = experiments.experiment_service_create_experiment(
                    api.V2beta1Experiment(display_name=name, namespace=namespace),
                    _request_timeout=TIMEOUT,
                )
        return str(experiment.experiment_id)

    @property
    def _namespace(self) -> str | None:
        """The namespace that the server keeps things in: none where it serves one only."""
        options = self.cluster.options
        return None if options.namespace == options.server_namespace else options.namespace


def _run_state(run: Any) -> tuple[RunState, datetime | None]:
    """Read a run's state, and when somebody stopped it: that ends as if it had failed."""
    state = _OVER.get(run.state, "running")
    for entry in reversed(run.state_history or []):
        if entry.state in _STOPPING:
            return ("interrupted" if state == "failed" else state), entry.update_time
        if entry.state == "RUNNING":
            break
    return state, None


def _task(detail: Mapping[str, Any]) -> Task:
    """Read a task's state and times; it says nothing else."""
    started, ended = (
        moment(at) if isinstance(at, str) else at
        for at in (detail.get("start_time") or detail.get("create_time"), detail.get("end_time"))
    )
    return Task(
        _TASK_STATES.get(str(detail.get("state")), "waiting"),
        started=started,
        ended=None if ended is None or ended.year <= 1970 else ended,
    )


def _named(name: str, key: str = "name") -> str:
    """Write the API's filter for objects of a name."""
    predicate = {"operation": "EQUALS", "key": key, "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _first(listed: list[Any] | None) -> Any:
    return listed[0] if listed else None
