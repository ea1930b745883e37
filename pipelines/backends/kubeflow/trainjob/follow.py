"""Follows a TrainJob to its end: its logs, what it waits for, why it failed."""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.core.errors import ClusterError, ExitCode
from components.core.log import get_logger
from pipelines.backends.kubeflow.connection import TIMEOUT, Cluster
from pipelines.backends.kubeflow.logstream import PodLog
from pipelines.backends.kubeflow.pods import (
    Object,
    created,
    is_beginning,
    name_of,
    state_of,
    why_failed,
    why_waiting,
)
from pipelines.backends.kubeflow.trainjob.manifest import (
    GROUP,
    JOB,
    PLURAL,
    SPEC,
    VERSION,
    Manifest,
)

POLL = 2.0  # seconds
PATIENCE = 600.0  # seconds until what hardly heals by itself ends the step: a missing image
OUTAGE = 600.0  # seconds for which the Kubernetes API may be away
REMINDER = 300.0  # seconds between two words about the same wait
DELETION = 120.0  # seconds

RANK = "batch.kubernetes.io/job-completion-index"
ATTEMPT = "jobset.sigs.k8s.io/restart-attempt"
JOBSET = "jobset.sigs.k8s.io/jobset-name"

_STARTING = ("", "ContainerCreating", "PodInitializing")
_OWN_CODES = frozenset(ExitCode) - {ExitCode.OK, ExitCode.FAILURE}
"""Exit codes that say what was wrong; with others a pod may only have lost its peers."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Ending:
    """How a TrainJob came to its end."""

    code: int
    words: str


class TrainJob:
    """One TrainJob, by its name.

    Raises:
        ClusterError: by every method, when the cluster cannot be reached or refuses.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.namespace = cluster.options.namespace
        self._place = (GROUP, VERSION, self.namespace, PLURAL)

    def start(self, manifest: Manifest) -> None:
        """Create the TrainJob, or take over the one that an earlier pod of the step has created."""
        from kubernetes.client import ApiException

        while True:
            existing = self.read()
            if existing is not None and _is_going_on(existing, manifest):
                self._adopt(manifest["metadata"].get("ownerReferences", []))
                log.info("following a TrainJob that goes on", name=self.name)
                return
            if existing is not None:
                self.delete()
            with self.cluster.asking(f"create the TrainJob {self.name} in {self.namespace}"):
                try:
                    self.cluster.objects.create_namespaced_custom_object(
                        *self._place, manifest, field_validation="Strict", _request_timeout=TIMEOUT
                    )
                except ApiException as error:
                    if error.status == 409:
                        continue  # made just now
                    if error.status == 404:
                        raise ClusterError(
                            "the cluster knows no TrainJobs, which a step of several nodes needs: "
                            "install Kubeflow Trainer 2.0, or let the step run on one node "
                            "(--cluster gpus_per_node=COUNT)"
                        ) from None
                    raise
            log.info("TrainJob created", name=self.name, nodes=_nodes(manifest))
            return

    def read(self) -> Object | None:
        """Return the TrainJob as it is; None if it does not exist."""
        from kubernetes.client import ApiException

        with self.cluster.asking(f"read the TrainJob {self.name} in {self.namespace}"):
            try:
                job: Object = self.cluster.objects.get_namespaced_custom_object(
                    *self._place, self.name, _request_timeout=TIMEOUT
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return job

    def pods(self) -> list[Object]:
        """List its pods, the oldest first."""
        with self.cluster.asking(f"list the pods of the TrainJob {self.name}"):
            answer = self.cluster.core.list_namespaced_pod(
                self.namespace,
                label_selector=f"{JOBSET}={self.name}",
                _request_timeout=TIMEOUT,
                _preload_content=False,
            )
            return sorted(json.loads(answer.data)["items"], key=created)

    def delete(self) -> None:
        """Delete the TrainJob, and wait until it and its pods have gone.

        Raises:
            ClusterError: if they do not go.
        """
        from kubernetes.client import ApiException

        with self.cluster.asking(f"delete the TrainJob {self.name} in {self.namespace}"):
            try:
                # In the foreground its pods would be made anew for a moment.
                self.cluster.objects.delete_namespaced_custom_object(
                    *self._place,
                    self.name,
                    propagation_policy="Background",
                    _request_timeout=TIMEOUT,
                )
            except ApiException as error:
                if error.status != 404:
                    raise
        deadline = time.monotonic() + DELETION
        while self.read() is not None or self.pods():
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the TrainJob {self.name} in {self.namespace} was deleted, but has not gone "
                    f"for {DELETION:.0f} s: `kubectl get trainjobs,pods -l {JOBSET}={self.name}`"
                )
            time.sleep(POLL)

    def _adopt(self, owners: list[Mapping[str, str]]) -> None:
        """Let the TrainJob go with this pod, not with the earlier one."""
        try:
            with self.cluster.asking(f"take over the TrainJob {self.name} in {self.namespace}"):
                self.cluster.objects.patch_namespaced_custom_object(
                    *self._place,
                    self.name,
                    {"metadata": {"ownerReferences": owners}},
                    _request_timeout=TIMEOUT,
                )
        except ClusterError as error:  # it may be followed all the same
            log.warning("the TrainJob still goes with an earlier pod of the step", why=str(error))


@dataclass
class JobFollower:
    """Watches one TrainJob, and tells of it.

    Attributes:
        job: The TrainJob.
        nodes: How many pods it has.
    """

    job: TrainJob
    nodes: int
    streams: dict[str, PodLog] = field(default_factory=dict)
    """By pod."""
    pods: dict[str, Object] = field(default_factory=dict)
    """Every pod that was seen, as it was seen last."""
    attempt: int = 0
    _told: tuple[str, float] = ("", 0.0)
    _stuck_since: float | None = None

    def follow(self) -> Ending:
        """Wait for the end.

        Raises:
            ClusterError: if it cannot start, was deleted, or the cluster is away for too long.
        """
        heard = -math.inf
        try:
            while True:
                try:
                    job, pods = self.job.read(), self.job.pods()
                    heard = time.monotonic()
                except ClusterError as error:
                    if time.monotonic() - heard > OUTAGE:
                        raise
                    self._tell(str(error))
                else:
                    if job is None:
                        raise ClusterError(
                            f"the TrainJob {self.job.name} was deleted; the same step, started "
                            "again, continues from its last checkpoint"
                        )
                    self._look(pods)
                    if ending := self._ending(job):
                        return ending
                    self._tell_waiting(pods, job["metadata"]["creationTimestamp"])
                time.sleep(POLL)
        finally:
            for stream in self.streams.values():
                stream.end()
            for stream in self.streams.values():
                stream.join(timeout=10)

    def _look(self, pods: list[Object]) -> None:
        """Take note of what the pods do, and read their logs."""
        present = {name_of(pod): pod for pod in pods}
        self.pods |= present
        attempt = max((_label(pod, ATTEMPT) for pod in pods), default=self.attempt)
        if attempt > self.attempt:
            why = _why_failed(self._first_failure(self.attempt))
            log.warning("all pods start again, from the last checkpoint", restart=attempt, why=why)
            self.attempt = attempt
        for name, pod in present.items():
            if name not in self.streams and state_of(pod, JOB)[0] != "waiting":
                say = _print if _label(pod, RANK) == 0 else None
                core, namespace = self.job.cluster.core, self.job.namespace
                self.streams[name] = PodLog(core, namespace, name, JOB, say=say)
        for name, stream in self.streams.items():
            if name not in present or state_of(present[name], JOB)[0] == "terminated":
                stream.end()

    def _ending(self, job: Object) -> Ending | None:
        conditions = {
            condition["type"]: condition
            for condition in (job.get("status") or {}).get("conditions") or ()
            if condition["status"] == "True"
        }
        if "Complete" in conditions:
            return Ending(ExitCode.OK, "")
        if "Failed" not in conditions:
            return None
        restarts = f" after {self.attempt} restart(s)" if self.attempt else ""
        failure = self._first_failure(self.attempt)
        if failure is None:
            message = conditions["Failed"].get("message", "")
            return Ending(
                ExitCode.LOST_CLUSTER,
                f"the TrainJob {self.job.name} failed{restarts}: {message}",
            )
        rank = _label(failure, RANK)
        stream = self.streams.get(name_of(failure))
        if stream and rank:  # what rank 0's node said has been printed
            stream.end()
            stream.join(timeout=10)
            for line in stream.tail:
                _print(f"node {rank}: {line}")
        return Ending(
            _exit_code(failure),
            f"the TrainJob {self.job.name} failed{restarts}: {_why_failed(failure)}",
        )

    def _first_failure(self, attempt: int) -> Object | None:
        """Return the pod that failed of itself, not because it lost its peers."""
        failed = [
            pod for pod in self.pods.values() if _label(pod, ATTEMPT) == attempt and _exit_code(pod)
        ]
        return min(
            failed,
            key=lambda pod: (
                _exit_code(pod) not in _OWN_CODES,
                state_of(pod, JOB)[1].get("finishedAt") or "",
                _label(pod, RANK),
            ),
            default=None,
        )

    def _tell_waiting(self, pods: list[Object], since: str) -> None:
        """Say what the TrainJob waits for, which has been there since some time.

        Raises:
            ClusterError: if it waits for what will hardly come.
        """
        waiting = [pod for pod in pods if state_of(pod, JOB)[0] == "waiting"]
        if len(pods) >= self.nodes and not waiting:
            self._stuck_since = None
            return
        refusal = self._refusal(since) if len(pods) < self.nodes else ""
        if waiting:
            pod = min(waiting, key=lambda pod: (not _is_stuck(pod), _label(pod, RANK)))
            events = (
                self.job.cluster.events(self.job.namespace, name_of(pod))
                if is_beginning(pod)
                else []
            )
            words = f"node {_label(pod, RANK)}: {why_waiting(pod, events)}"
        else:
            words = refusal or "its pods have not been made yet"
        self._tell(words)
        stuck = any(map(_is_stuck, waiting)) or ("exceeded quota" not in refusal and bool(refusal))
        now = time.monotonic()
        self._stuck_since = (self._stuck_since or now) if stuck else None
        hopeless = "violates PodSecurity" in refusal
        if hopeless or (self._stuck_since and now - self._stuck_since > PATIENCE):
            raise ClusterError(f"the TrainJob {self.job.name} cannot start: {words}")

    def _refusal(self, since: str) -> str:
        """Say why no pods are made, if the cluster refuses them."""
        for name in (f"{self.job.name}-{JOB}-0", self.job.name):
            for event in reversed(self.job.cluster.events(self.job.namespace, name)):
                if _is_refusal(event) and str(event.get("lastTimestamp") or since) >= since:
                    return f"its pods are refused: {str(event.get('message', '')).strip()}"
        return ""

    def _tell(self, words: str) -> None:
        told, when = self._told
        if words != told or time.monotonic() - when > REMINDER:
            log.info("waiting", why=words)
            self._told = (words, time.monotonic())


def _is_going_on(job: Object, manifest: Manifest) -> bool:
    """Say whether a TrainJob is what we would create, and has neither failed nor been deleted."""
    metadata = job["metadata"]
    failed = any(
        condition["type"] == "Failed" and condition["status"] == "True"
        for condition in (job.get("status") or {}).get("conditions") or ()
    )
    asked = manifest["metadata"]["annotations"][SPEC]
    same = (metadata.get("annotations") or {}).get(SPEC) == asked
    return same and not failed and "deletionTimestamp" not in metadata


def _is_stuck(pod: Object) -> bool:
    """Say whether a pod waits for what a person must mend: an image, a secret."""
    word, details = state_of(pod, JOB)
    return word == "waiting" and details.get("reason", "") not in _STARTING


def _is_refusal(event: Object) -> bool:
    """Tell `FailedCreate` and `JobCreationFailed` from the news of a Job that has failed."""
    reason = str(event.get("reason", ""))
    return event.get("type") == "Warning" and "Creat" in reason


def _why_failed(pod: Object | None) -> str:
    if pod is None:
        return "a pod was lost"
    code = _exit_code(pod)
    name = f" ({ExitCode(code).name})" if code in _OWN_CODES else ""
    told = why_failed(pod)
    own = f"container {JOB} failed with exit code {code}"
    more = f": {told}" if told and told != own else ""
    return f"node {_label(pod, RANK)} ended with exit code {code}{name}{more}"


def _exit_code(pod: Object) -> int:
    """Return the exit code of a pod that has ended, 0 of one that has not."""
    word, details = state_of(pod, JOB)
    return int(details.get("exitCode", 0)) if word == "terminated" else 0


def _label(pod: Object, name: str) -> int:
    return int((pod["metadata"].get("labels") or {}).get(name, 0))


def _nodes(manifest: Manifest) -> Any:
    return manifest["spec"]["trainer"]["numNodes"]


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
