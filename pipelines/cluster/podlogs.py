"""The logs of a submitted run: of its pods while they exist, of the store after that.

A pod's log goes with the pod. When a container ends by itself, Kubeflow Pipelines copies what it
said to `ROOT/PIPELINE/RUN/TASK/ID/executor-logs-ATTEMPT` in the store.
"""

import json
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path

from components.core.errors import ClusterError, MocoError, StoreError
from components.core.store import Store
from pipelines.backends.component import task_name
from pipelines.cluster.connection import TIMEOUT, Cluster
from pipelines.cluster.logstream import AGAIN, follow_lines
from pipelines.cluster.pods import MAIN, Object, created, name_of, state_of
from pipelines.cluster.workflow import NODE, attempt_of, place_of
from pipelines.logs import Event, parse_line, read_log
from pipelines.runs import ClusterRun, Run

RUN_LABEL = "pipeline/runid"
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
    with cluster.asking(f"list the pods of run {place.run}"):
        answer = cluster.core.list_namespaced_pod(
            place.namespace,
            label_selector=f"{RUN_LABEL}={place.run}",
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


@dataclass(frozen=True)
class Attempt:
    """An attempt at a step whose log is left.

    Attributes:
        number: From 1.
        read: Reads the log; raises ClusterError or StoreError.
    """

    number: int
    read: Callable[[], list[Event]]


def attempts(run: Run, step: str, cluster: Cluster, pods: Iterable[Object]) -> list[Attempt]:
    """Find what is left of what every attempt at a step said, the oldest first.

    The store's copy goes before an ended pod's own log: a node keeps only the end of a long one.

    Args:
        run: A submitted run.
        step: The step.
        cluster: The cluster that it is on.
        pods: Of the run.

    Raises:
        ClusterError, StoreError: if there is no pod, and the store cannot be read either.
    """
    mine = pods_of_step(pods, step)
    found: list[Attempt] = []
    try:
        found = _archived(run, step, cluster)
    except (ClusterError, StoreError):
        if not mine:
            raise
    copied = {attempt.number for attempt in found}
    for pod in mine:
        number = attempt_of(node_of(pod)) + 1
        if number not in copied or state_of(pod)[0] != "terminated":
            found.append(Attempt(number, partial(read_pod_log, cluster, pod)))
    return sorted(found, key=lambda attempt: attempt.number)


def _archived(run: Run, step: str, cluster: Cluster) -> list[Attempt]:
    assert run.record.cluster is not None
    store = open_artifacts(cluster, run.record.cluster)
    found = []
    for entry in store.list(task_name(step)):
        if match := _ARCHIVED.fullmatch(entry.key.rpartition("/")[2]):
            read = partial(_read_archived, store, entry.key)
            found.append(Attempt(int(match[1] or 0) + 1, read))
    return found


def _read_archived(store: Store, key: str) -> list[Event]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ARCHIVED)
        store.get(key, path)
        return read_log(path)


@dataclass
class LogStream:
    """Follows what the pods of some steps say, those that come later too."""

    cluster: Cluster
    place: ClusterRun
    steps: Sequence[str]
    known: dict[str, threading.Thread] = field(default_factory=dict)
    spoken: queue.Queue[tuple[str, Event] | Exception] = field(default_factory=queue.Queue)

    def look(self, pods: Iterable[Object]) -> None:
        """Begin to follow the pods that are new and have begun."""
        pods = list(pods)
        for step in self.steps:
            for pod in pods_of_step(pods, step):
                name = name_of(pod)
                if name not in self.known and state_of(pod)[0] != "waiting":
                    thread = threading.Thread(target=self._follow, args=(step, name), daemon=True)
                    self.known[name] = thread
                    thread.start()

    def read(self, seconds: float, rest: bool = False) -> Iterator[tuple[str, Event]]:
        """Yield the lines of some time, as `(step, event)`.

        Args:
            seconds: How long to wait for lines.
            rest: Whether to go on until every pod that is followed has ended.

        Raises:
            ClusterError: if the logs may not be read.
        """
        end = time.monotonic() + seconds
        while True:
            alive = rest and any(thread.is_alive() for thread in self.known.values())
            try:
                spoken = self.spoken.get(timeout=max(0.0, min(end - time.monotonic(), 0.5)))
            except queue.Empty:
                if time.monotonic() >= end and not alive:
                    return
                continue
            if isinstance(spoken, Exception):
                raise spoken
            yield spoken

    def _follow(self, step: str, pod: str) -> None:
        try:
            with self.cluster.asking(f"read the log of pod {self.place.namespace}/{pod}"):
                for event in _events(self._lines(pod)):
                    self.spoken.put((step, event))
        except Exception as error:
            self.spoken.put(error)

    def _lines(self, pod: str) -> Iterator[str]:
        """Yield a pod's lines until it ends; a connection that broke off is opened again."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        last: datetime | None = None
        while True:
            try:
                with suppress(HTTPError):
                    for moment, line in follow_lines(
                        self.cluster.core, self.place.namespace, pod, MAIN, last
                    ):
                        last = moment
                        yield line
                if not self._goes_on(pod):
                    return
            except ApiException as error:
                if error.status == 404:  # the pod has been deleted
                    return
                raise
            time.sleep(AGAIN)

    def _goes_on(self, pod: str) -> bool:
        answer = self.cluster.core.read_namespaced_pod(
            pod, self.place.namespace, _request_timeout=TIMEOUT, _preload_content=False
        )
        return state_of(json.loads(answer.data))[0] == "running"


def _events(lines: Iterable[str]) -> Iterator[Event]:
    """Read lines; of those that the platform wrote only how the command ended, and its errors."""
    for line in lines:
        if ended := _ENDED.match(line):
            code = int(ended[1]) if ended[1] else _SIGNALS.get(ended[2].partition(" (")[0], 1)
            words = f"ended by a signal: {ended[2]}" if ended[2] else "ended"
            yield {"event": words, "level": "error", "exit_code": code}
        elif line.strip() and not _PLATFORM.match(line):
            yield parse_line(line)
