"""Runs plans on a cluster with Kubeflow Pipelines; a run goes on when `start` has returned."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from components.core.errors import ClusterError, MocoError, StoreError
from components.core.log import names_secret
from components.core.store import Store, is_remote, open_store
from components.core.store_environment import (
    ACCESS_KEY,
    ENDPOINT,
    SECRET_KEY,
    names_credentials,
    names_endpoint,
)
from pipelines.backends.base import POD_SECONDS, Backend, Checkup, Request, Settings, Whereabouts
from pipelines.backends.findings import Finding
from pipelines.backends.kubeflow.artifacts import earlier_runs, find_artifacts
from pipelines.backends.kubeflow.connection import Cluster, cluster_options
from pipelines.backends.kubeflow.cut import cut_plan
from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parts import part_name
from pipelines.backends.kubeflow.podlogs import (
    RunFollower,
    attempts,
    open_artifacts,
    pods_of_places,
    pods_of_step,
)
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.status import find_places, progress, refresh
from pipelines.backends.kubeflow.submit import cancel, retry, state_of, submit_plan
from pipelines.backends.kubeflow.weights import about
from pipelines.plan import Plan
from pipelines.runs.artifacts import StoredArtifacts
from pipelines.runs.folder import Run, writable_runs_folder
from pipelines.runs.history import Row, read_history
from pipelines.runs.logs import Event, Follower, StepLog
from pipelines.runs.progress import Display
from pipelines.runs.record import Parent

GONE = (
    "nothing is left of its log. Its pods are gone, as a cluster removes them some time after a "
    "run, and the store has no copy: Kubeflow makes one when a step ends by itself, unless its "
    "server has PUBLISH_LOGS=false"
)


class Kubeflow(Backend):
    """Kubeflow Pipelines on the cluster that the settings name; a run's own namespace in it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._clusters: dict[str | None, Cluster | MocoError] = {}
        self._opening = threading.Lock()
        self._examined: ClusterOptions | None = None
        self._credentials: list[str] = []

    def cluster(self, run: Run | None = None) -> Cluster:
        """Return the cluster; for a run with its namespace. It is asked for its options once.

        Raises:
            UsageError, ConfigError: if an option is wrong.
            ClusterError: if the cluster does not answer.
        """
        namespace = ClusterRun.of(run).namespace if run else None
        with self._opening:
            if namespace not in self._clusters:
                try:
                    self._clusters[namespace] = Cluster(cluster_options(self._values(namespace)))
                except MocoError as error:  # the next run would wait for the same answer
                    self._clusters[namespace] = error
        cluster = self._clusters[namespace]
        if isinstance(cluster, MocoError):
            raise cluster
        return cluster

    def start(self, request: Request, display: Display) -> Run:
        """Submit a plan: compiled, uploaded, started."""
        source = request.source
        cluster = self.cluster(source)
        options = cluster.options
        # Kubeflow's cache would hand a rerun back what the step made before.
        update = {
            "claims": {**options.claims, **request.data},
            "cache": options.cache and request.reuse,
        }
        cluster = Cluster(options.model_copy(update=update))
        parent = None
        if source:
            states = {}
            if request.resume:
                store = cluster.store(ClusterRun.of(source).store)
                places = find_places(source, cluster)
                states = {request.resume: state_of(source, request.resume, places, store)}
            parent = Parent(run=source.id, steps=tuple(request.plan.steps), states=states)
        if request.checks:
            from pipelines.backends.kubeflow.doctor import require

            require(cluster, request.plan, request.parameters)
        return submit_plan(
            request.plan,
            cluster,
            writable_runs_folder(),
            parent=parent,
            parameters=request.parameters,
            parallel=self.settings.jobs,
        )

    def retry(self, run: Run, display: Display) -> None:
        """Ask the platform for its own retry; of a run that was cut, begin all that is left."""
        retry(run, self.cluster(run))

    def cancel(self, run: Run) -> str:
        """Stop a run; its steps lose what they did since their last checkpoint."""
        cancel(run, self.cluster(run))
        return (
            f"{run.id} is being stopped. `moco rerun {run.id} STEP --continue` goes on with a\n"
            "step from its last checkpoint."
        )

    def refresh(self, run: Run) -> None:
        """Ask the server, the workflow, the pods and the store."""
        refresh(run, self.cluster(run))

    def progress(self, run: Run) -> Iterable[tuple[str, Event]]:
        """Read the ends of the logs of the pods that run."""
        return progress(run, self.cluster(run))

    def history(self, run: Run, step: str) -> Sequence[Row]:
        """Read it from the store, beside the step's output."""
        cluster = self.cluster(run)
        place = find_places(run, cluster).of.get(step)
        return read_history(open_artifacts(cluster, place), task_name(step)) if place else ()

    def logs(self, run: Run, steps: Sequence[str]) -> Iterator[tuple[str, StepLog]]:
        """Yield the logs of the pods that still exist, and the store's copies of others."""
        cluster = self.cluster(run)
        places = find_places(run, cluster)
        pods = pods_of_places(cluster, places)
        for step in steps:
            place, note = places.of.get(step), _why_silent(run, step)
            if place is None or (note and not pods_of_step(pods, step)):
                yield step, StepLog(note=note or f"{step} has said nothing: it has not begun")
                continue
            try:
                left = attempts(place, step, cluster, pods)
            except (ClusterError, StoreError) as error:
                yield step, StepLog(note=f"{step}: its log cannot be read: {error}")
                continue
            yield step, StepLog(left, "" if left else f"{step}: {GONE}")

    def follow(self, run: Run, steps: Sequence[str]) -> Follower:
        """Follow the pods of steps; what has ended without leaving one is read from the store."""
        cluster = self.cluster(run)
        pods = pods_of_places(cluster, find_places(run, cluster))
        over = [step for step in steps if run.status(step).state not in ("waiting", "running")]
        gone = [step for step in over if not pods_of_step(pods, step)]
        namespace = ClusterRun.of(run).namespace
        return RunFollower(cluster, lambda: find_places(run, cluster), namespace, steps, gone)

    def artifacts(self, run: Run) -> StoredArtifacts:
        """Find the artifacts of a run in its store."""

        def opener(url: str) -> Store:
            return self.store(url, run)

        return find_artifacts(run, opener(ClusterRun.of(run).store), opener)

    def store(self, url: str, run: Run) -> Store:
        """Open a store: as the environment says where and who, or as the cluster does."""
        if not is_remote(url) or (names_endpoint(os.environ) and names_credentials(os.environ)):
            return open_store(url)
        try:
            return self.cluster(run).store(url)
        except ClusterError as error:
            raise ClusterError(
                f"{error}\nThe store can also be read without the cluster: set "
                f"{ENDPOINT[0]}, {ACCESS_KEY} and {SECRET_KEY}"
            ) from None

    def earlier(self, plan: Plan) -> list[tuple[Run, StoredArtifacts]]:
        """Return all runs of a plan's pipeline, those that others submitted included."""
        return earlier_runs(plan, self.cluster())

    def parts(self, plan: Plan) -> int:
        """Guess it by the number of steps; the cluster is not asked."""
        room = cluster_options(self._values(None), ask=False).workflow_size
        weights = about(plan)
        return 1 if weights.whole <= room else len(cut_plan(plan, weights, room, "s3://parts"))

    def whereabouts(self, run: Run) -> Whereabouts:
        """Name its id, its namespace and its page; of one that was cut, its parts' names."""
        place = ClusterRun.of(run)
        if place.cut:
            name = part_name(run.id, place, "N")
            page, which = "", f"runs called {name}"
        else:
            page, which = f"/details/{place.run}", f"run {place.run}"
        lines = [f"on the cluster: {which} in namespace {place.namespace}"]
        if place.server.startswith("http"):
            lines.append(f"in Kubeflow's pages: {place.server.rstrip('/')}/#/runs{page}")
        return Whereabouts(place.namespace, tuple(lines))

    def doctor(self, checkup: Checkup) -> Iterator[Finding]:
        """Check the cluster from here, and by short pods from inside."""
        from pipelines.backends.kubeflow.doctor import examine
        from pipelines.backends.kubeflow.doctor.site import Site

        namespace = None
        with suppress(MocoError):  # a damaged record does not tell
            namespace = ClusterRun.of(checkup.run).namespace if checkup.run else None
        values = self._values(namespace)
        site = Site(
            cluster=Cluster(cluster_options(values, ask=False)),
            plan=checkup.plan,
            parameters=checkup.parameters,
            given=values,
            claims=checkup.data,
            pods=checkup.pod_seconds is not None,
            pod_seconds=checkup.pod_seconds or POD_SECONDS,
        )
        for finding in examine(site):
            yield finding
            if (finding.check, finding.state) == ("secret", "ok"):
                with suppress(MocoError):
                    self._credentials = [*site.cluster.store_credentials().values()]
        self._examined = site.options

    def facts(self) -> dict[str, Any]:
        """Return the cluster's options."""
        return self._examined.model_dump(mode="json") if self._examined else {}

    def secrets(self) -> list[str]:
        """Return the store's credentials, and what somebody may have given in place of a name."""
        stock, options = ClusterOptions(), self._examined or ClusterOptions()
        given = [
            str(getattr(options, name))
            for name in ClusterOptions.model_fields
            if names_secret(name) and getattr(options, name) != getattr(stock, name)
        ]
        return given + self._credentials

    def _values(self, namespace: str | None) -> Sequence[str]:
        values = self.settings.cluster
        return (f"namespace={namespace}", *values) if namespace else values


BACKEND = Kubeflow


def _why_silent(run: Run, step: str) -> str | None:
    """Say why a step has said nothing, if it has not."""
    status = run.status(step)
    if status.state == "reused":
        return f"{step} did not run: its outputs are {status.reason}; the run that made them has it"
    if status.attempt:
        return None
    reason = f": {status.reason.splitlines()[-1]}" if status.reason else ""
    return f"{step} has said nothing: it is {status.state}{reason}"
