"""The logs of a submitted run: of its pods while they exist, of the store after that.

A pod's log goes with the pod. When a container ends by itself, Kubeflow Pipelines copies what it
said to `ROOT/PIPELINE/RUN/TASK/ID/executor-logs-ATTEMPT` in the store.
"""

import json
import queue
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from components.core.errors import ClusterError, MocoError, StoreError
from components.core.store import Store
from pipelines.backends.kubeflow.connection import TIMEOUT, Cluster
from pipelines.backends.kubeflow.logstream import PodLog
from pipelines.backends.kubeflow.names import task_name
from pipelines.backends.kubeflow.parts import StepPlaces
from pipelines.backends.kubeflow.pods import MAIN, RUN_LABEL, Object, created, name_of, state_of
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.workflow import NODE, attempt_of, place_of
from pipelines.runs.logs import AttemptLog, Event, parse_line, read_log

ASK = 3.0  # seconds between two looks for new pods of steps that are followed
ARCHIVED = "executor-logs"

_ARCHIVED = re.compile(rf"{ARCHIVED}(?:-(\d+))?")
# The platform writes into the same log: Argo's executor, and Kubeflow's launcher, whose errors may
# be all that there is.
_PLATFORM = re.compile(
    r"time=\S+ level=\w+ .*argo=true"
    r"|[IW]\d{4} [\d:.]+ +\d+ \S+\.go:\d+\] "
    r"|E\d{4} [\d:.]+ +\d+ \S+\.go:\d+\] Component failed to execute"
    r"|Error: exit status \d+$"
)
_ENDED = re.compile(
    r"F\d{4} [\d:.]+ +\d+ \S+\.go:\d+\] failed to execute component: "
    r"(?:exit status (\d+)|signal: (.+))$"
)
_SIGNALS = {"killed": 137, "terminated": 143, "segmentation fault": 139, "aborted": 134}


def pods_of_run(cluster: Cluster, place: ClusterRun) -> list[Object]:
    """List the pods of a run that still exist, the oldest first.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    return _pods(cluster, place.namespace, [place.run])


def pods_of_places(cluster: Cluster, places: StepPlaces) -> list[Object]:
    """List the pods that still exist of a run with all its parts, the oldest first.

    Those of steps that a later part has begun again are not among them.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses.
    """
    runs = [place.run for place in places.runs.values()]
    namespaces = {place.namespace for place in places.runs.values()}
    pods = [pod for namespace in namespaces for pod in _pods(cluster, namespace, runs)]
    if not places.parts:
        return pods
    executors = {(place.run, task_name(step)) for step, place in places.of.items()}
    return [
        pod
        for pod in pods
        if (pod["metadata"]["labels"][RUN_LABEL], place_of(node_of(pod))[0]) in executors
    ]


def _pods(cluster: Cluster, namespace: str, runs: Sequence[str]) -> list[Object]:
    with cluster.asking(f"list the pods of run {', '.join(runs)}"):
        answer = cluster.core.list_namespaced_pod(
            namespace,
            label_selector=f"{RUN_LABEL} in ({','.join(runs)})",
            _request_timeout=TIMEOUT,
            _preload_content=False,
        )
        return sorted(json.loads(answer.data)["items"], key=created)


def pods_of_step(pods: Iterable[Object], step: str) -> list[Object]:
    """Choose the pods that ran a step's own command."""
    place = (task_name(step), "executor")
    return [pod for pod in pods if place_of(node_of(pod)) == place]


def node_of(pod: Object) -> str:
    """Return the node of a workflow that a pod is of; empty if it is of none."""
    return str((pod["metadata"].get("annotations") or {}).get(NODE, ""))


def read_pod_log(cluster: Cluster, pod: Object, tail: int | None = None) -> list[Event]:
    """Read what a pod has said so far; one that has not begun has said nothing.

    Raises:
        ClusterError: if the cluster cannot be reached or refuses, or the pod has gone.
    """
    if state_of(pod)[0] == "waiting":
        return []
    metadata = pod["metadata"]
    with cluster.asking(f"read the log of pod {metadata['namespace']}/{metadata['name']}"):
        answer = cluster.core.read_namespaced_pod_log(
            metadata["name"],
            metadata["namespace"],
            container=MAIN,
            tail_lines=tail,
            _request_timeout=TIMEOUT,
            _preload_content=False,
        )
        lines = answer.data.decode("utf-8", "replace").splitlines()
    return list(_events(lines))


def open_artifacts(cluster: Cluster, place: ClusterRun) -> Store:
    """Open the store of a run's artifacts, if it answers within seconds.

    Raises:
        ClusterError, StoreError: if it does not, or its credentials cannot be had.
    """
    store = _opened(cluster, place.artifacts)
    if isinstance(store, MocoError):
        raise store
    return store


@lru_cache(maxsize=32)
def _opened(cluster: Cluster, url: str) -> Store | MocoError:
    """Ask once: one that did not answer would be waited for at every step of a run."""
    try:
        store = cluster.store(url)
        store.check()
    except MocoError as error:
        return error
    return store


def attempts(
    place: ClusterRun, step: str, cluster: Cluster, pods: Iterable[Object]
) -> list[AttemptLog]:
    """Find what is left of what every attempt at a step said, the oldest first.

    The store's copy goes before an ended pod's own log: a node keeps only the end of a long one.

    Args:
        place: Where the step is executed.
        step: The step.
        cluster: The cluster that it is on.
        pods: Of the run.

    Raises:
        ClusterError, StoreError: if there is no pod, and the store cannot be read either.
    """
    mine = pods_of_step(pods, step)
    left: list[AttemptLog] = []
    try:
        left = _archived(place, step, cluster)
    except (ClusterError, StoreError):
        if not mine:
            raise
    copied = {attempt.number for attempt in left}
    for pod in mine:
        number = attempt_of(node_of(pod)) + 1
        if number not in copied or state_of(pod)[0] != "terminated":
            left.append(AttemptLog(number, partial(read_pod_log, cluster, pod)))
    return sorted(left, key=lambda attempt: attempt.number)


def _archived(place: ClusterRun, step: str, cluster: Cluster) -> list[AttemptLog]:
    store = open_artifacts(cluster, place)
    left = []
    for entry in store.list(task_name(step)):
        if match := _ARCHIVED.fullmatch(entry.key.rpartition("/")[2]):
            read = partial(_read_archived, store, entry.key)
            left.append(AttemptLog(int(match[1] or 0) + 1, read))
    return left


def _read_archived(store: Store, key: str) -> list[Event]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ARCHIVED)
        store.get(key, path)
        return read_log(path)


@dataclass
class RunFollower:
    """Follows what the pods of some steps say, those that come later too.

    Attributes:
        cluster: The cluster.
        places: Asked where the steps are executed, again and again: parts begin meanwhile.
        namespace: Of the pods.
        steps: The steps.
        ended: Those that have nothing more to say.
    """

    cluster: Cluster
    places: Callable[[], StepPlaces]
    namespace: str
    steps: Sequence[str]
    ended: Sequence[str] = ()
    logs: dict[str, PodLog] = field(default_factory=dict)
    spoken: queue.Queue[tuple[str, str] | Exception] = field(default_factory=queue.Queue)

    def read(self, rest: bool = False) -> Iterator[tuple[str, Event]]:
        """Yield the lines of some time, as `(step, event)`.

        Args:
            rest: Whether to go on until every pod that is followed has ended.

        Raises:
            ClusterError: if the cluster cannot be reached, or the logs may not be read.
        """
        self._look()
        end = time.monotonic() + ASK
        while True:
            alive = rest and any(log.is_alive() for log in self.logs.values())
            try:
                spoken = self.spoken.get(timeout=max(0.0, min(end - time.monotonic(), 0.5)))
            except queue.Empty:
                if time.monotonic() >= end and not alive:
                    return
                continue
            if isinstance(spoken, Exception):
                with self.cluster.asking("read the logs of the run"):
                    raise spoken
            step, line = spoken
            yield from ((step, event) for event in _events([line]))

    def _say(self, step: str, line: str) -> None:
        self.spoken.put((step, line))

    def _look(self) -> None:
        """Begin to follow the pods that are new and have begun."""
        pods = pods_of_places(self.cluster, self.places())
        for step in self.steps:
            for pod in pods_of_step(pods, step):
                name = name_of(pod)
                if name not in self.logs and state_of(pod)[0] != "waiting":
                    self.logs[name] = PodLog(
                        self.cluster.core,
                        self.namespace,
                        name,
                        MAIN,
                        say=partial(self._say, step),
                        fail=self.spoken.put,
                    )


def _events(lines: Iterable[str]) -> Iterator[Event]:
    """Read lines; of those that the platform wrote only how the command ended, and its errors."""
    for line in lines:
        if ended := _ENDED.match(line):
            code = int(ended[1]) if ended[1] else _SIGNALS.get(ended[2].partition(" (")[0], 1)
            words = f"ended by a signal: {ended[2]}" if ended[2] else "ended"
            yield {"event": words, "level": "error", "exit_code": code}
        elif line.strip() and not _PLATFORM.match(line):
            yield parse_line(line)
